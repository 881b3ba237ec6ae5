"""`anatomy plan show`."""

from pathlib import Path

import click
from cloup import argument

from anatomy_export.commands.guard import GuardedCommand, group
from anatomy_export.commands.options import json_option
from anatomy_export.commands.parameter_types import PlanFile
from anatomy_export.commands.terminal import print_table


@group("plan")
def plan() -> None:
    """Look at prune plans."""


@plan.command("show", cls=GuardedCommand)
@argument("file", type=PlanFile())
@json_option
def show(file: Path, as_json: bool) -> None:
    """Print a plan.json, or that of a bundle, as a table."""
    from anatomy_export.plans.plan import read_plan

    pruning = read_plan(file)
    if as_json:
        click.echo(pruning.to_json(), nl=False)
        return
    _print_layers(pruning)
    parameters = ", ".join(f"{name} {value}" for name, value in pruning.parameters.items() if name != "repair")
    click.echo(f"model {pruning.fingerprint}\n{parameters}".rstrip())


def _print_layers(pruning) -> None:
    """One row a layer; columns that say nothing of this plan are left out."""
    repairs = {repair["layer"]: repair for repair in pruning.parameters.get("repair", ())}
    columns = {
        "layer": lambda layer: str(layer.layer),
        "width": lambda layer: f"{layer.width:,}",
        "kept": lambda layer: f"{len(layer.keep):,}",
        "kept, %": lambda layer: f"{100 * len(layer.keep) / layer.width:.1f}",
    }
    if any(layer.threshold is not None for layer in pruning.layers):
        columns["threshold"] = lambda layer: "n/a" if layer.threshold is None else f"{layer.threshold:.5f}"
        columns["rule"] = lambda layer: layer.rule or "n/a"
    if any(layer.protected for layer in pruning.layers):
        columns["protected"] = lambda layer: str(len(layer.protected))
    if repairs:
        columns["repair"] = lambda layer: repairs[layer.layer]["mode"]
        columns["error left, %"] = lambda layer: _error_left(repairs[layer.layer])
    rows = [[cell(layer) for cell in columns.values()] for layer in pruning.layers]
    removed = f"{pruning.removed:,} of {sum(pruning.widths):,} neurons removed"
    print_table(list(columns), rows, title=f"criterion {pruning.criterion}, {removed}")


def _error_left(repair: dict) -> str:
    """Held-out error of a layer's output after its repair, of the error before."""
    before = repair["masked_error"]
    return f"{100 * repair['error'] / before:.1f}" if before else "n/a"
