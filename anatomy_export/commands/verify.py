"""The command `anatomy verify`: parse, call one function, print."""

import json
from pathlib import Path

import click
from rich.table import Table

from anatomy_export.commands.common import AnatomyCommand, print_table
from anatomy_export.core.progress import Progress


@click.command("verify", cls=AnatomyCommand)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def verify(directory: Path, as_json: bool) -> None:
    """Check a bundle where it is to run: its files, plan, tokenizer and reference texts; and time it there.

    Needs the extra edge (onnxruntime, tokenizers); no torch.
    """
    from anatomy_export.bundle.verify import verify_bundle

    report = verify_bundle(directory, Progress())
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    elif len(report.checks) > 1:
        print_table(_table(report))
        click.echo(f"ONNX Runtime {report.onnxruntime}, {report.cpu}")
    report.raise_for_failures()


def _table(report) -> Table:
    table = Table(title=f"{report.bundle}: {report.mode}, {report.precision}")
    for heading in ("check", "", "found"):
        table.add_column(heading)
    for check in report.checks:
        state = {True: "ok", False: "FAILED", None: "–"}[check.passed]
        table.add_row(check.name, state, check.detail)
    if report.median_s is not None:
        taken = f"{1e3 * report.median_s:.2f} ms, median, batch 1, {report.tokens} tokens"
        table.add_row("time", "–", taken)
    return table
