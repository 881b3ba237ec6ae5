"""`anatomy verify`: is a bundle right where it is to run?"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from cloup import argument

from anatomy_export.commands.guard import command
from anatomy_export.commands.options import json_option
from anatomy_export.commands.parameter_types import PATH
from anatomy_export.commands.terminal import print_table
from anatomy_export.core.progress import Progress

HEADINGS = ("check", "", "found")


@command("verify")
@argument("directory", type=PATH)
@json_option
def verify(directory: Path, as_json: bool) -> None:
    """Check a bundle where it is to run: its files, plan, tokenizer and reference texts; and time it there.

    Needs the extra edge (onnxruntime, tokenizers); no torch.
    """
    from anatomy_export.bundle.verify import verify_bundle

    report = verify_bundle(directory, Progress())
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    elif len(report.checks) > 1:
        title = f"{report.bundle}: {report.mode}, {report.precision}"
        print_table(HEADINGS, _rows(report), title=title, left=HEADINGS)
        click.echo(f"ONNX Runtime {report.onnxruntime}, {report.cpu}")
    report.raise_for_failures()


def _rows(report) -> Iterator[Sequence[str]]:
    """One row a check, and the time."""
    states = {True: "ok", False: "FAILED", None: "–"}
    for check in report.checks:
        yield check.name, states[check.passed], check.detail
    if report.median_s is not None:
        yield "time", "–", f"{1e3 * report.median_s:.2f} ms, median, batch 1, {report.tokens} tokens"
