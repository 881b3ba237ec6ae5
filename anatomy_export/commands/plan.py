"""`anatomy plan show`."""

from pathlib import Path

import click
from cloup import argument, group

from anatomy_export.commands import kinds, options
from anatomy_export.commands.terminal import Table, print_table


@group("plan")
def plan() -> None:
    """Look at prune plans."""


@plan.command("show")
@argument("file", type=kinds.PlanFile())
@options.as_json
def show(file: Path, as_json: bool) -> None:
    """Print a plan.json, or that of a bundle, as a table."""
    from anatomy_export.plan_files.plan import read_plan

    prune_plan = read_plan(file)
    if as_json:
        click.echo(prune_plan.to_json(), nl=False)
        return
    print_table(_table(prune_plan))
    parameters = ", ".join(f"{name} {value}" for name, value in prune_plan.parameters.items() if name != "repair")
    click.echo(f"model {prune_plan.fingerprint}\n{parameters}".rstrip())


def _table(prune_plan) -> Table:
    """One row a layer; columns that say nothing of this plan are left out."""
    layers = prune_plan.layers
    repairs = {repair["layer"]: repair for repair in prune_plan.parameters.get("repair", ())}
    columns = {
        "layer": lambda layer: str(layer.layer),
        "width": lambda layer: f"{layer.width:,}",
        "kept": lambda layer: f"{len(layer.keep):,}",
        "kept, %": lambda layer: f"{100 * len(layer.keep) / layer.width:.1f}",
    }
    if any(layer.threshold is not None for layer in layers):
        columns["threshold"] = lambda layer: "n/a" if layer.threshold is None else f"{layer.threshold:.5f}"
        columns["rule"] = lambda layer: layer.rule or "n/a"
    if any(layer.protected for layer in layers):
        columns["protected"] = lambda layer: str(len(layer.protected))
    if repairs:
        columns["repair"] = lambda layer: repairs[layer.layer]["mode"]
        columns["error left, %"] = lambda layer: _error_left(repairs[layer.layer])
    removed = f"{prune_plan.removed:,} of {sum(prune_plan.widths):,} neurons removed"
    rows = ([cell(layer) for cell in columns.values()] for layer in layers)
    return Table(list(columns), rows, title=f"criterion {prune_plan.criterion}, {removed}")


def _error_left(repair: dict) -> str:
    """Held-out error of a layer's output after its repair, of the error before."""
    before = repair["masked_error"]
    return f"{100 * repair['error'] / before:.1f}" if before else "n/a"
