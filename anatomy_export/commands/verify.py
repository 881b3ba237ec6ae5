"""`anatomy verify`: is a bundle right where it is to run?"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cloup import argument, command

from anatomy_export.commands import kinds, options
from anatomy_export.commands.terminal import Table, print_answer
from anatomy_export.core.progress import Progress

HEADINGS = ("check", "", "found")


@command("verify")
@argument("directory", type=kinds.PATH)
@options.as_json
def verify(directory: Path, as_json: bool) -> None:
    """Check a bundle where it is to run: its files, plan, tokenizer and reference texts; and time it there.

    Needs the extra edge (onnxruntime, tokenizers); no torch.
    """
    from anatomy_export.bundle.verify import verify_bundle

    report = verify_bundle(directory, Progress())
    title = f"{report.bundle}: {report.mode}, {report.precision}"
    table = Table(HEADINGS, _rows(report), title=title, left=HEADINGS)
    parts = (table, f"ONNX Runtime {report.onnxruntime}, {report.cpu}") if len(report.checks) > 1 else ()
    print_answer(as_json, report.as_dict(), lambda: parts)
    report.raise_for_failures()


def _rows(report) -> Iterator[Sequence[str]]:
    """One row a check, and the time."""
    states = {True: "ok", False: "FAILED", None: "–"}
    for check in report.checks:
        yield check.name, states[check.passed], check.detail
    if report.median_s is not None:
        yield "time", "–", f"{1e3 * report.median_s:.2f} ms, median, batch 1, {report.tokens} tokens"
