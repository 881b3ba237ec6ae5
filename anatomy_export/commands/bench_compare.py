"""`anatomy-bench compare`: two results against each other."""

from pathlib import Path

import click
from cloup import argument, command, option

from anatomy_export.commands import kinds, options
from anatomy_export.commands.bench_measurement import bench_table
from anatomy_export.commands.terminal import print_answer


@command("compare")
@argument("first", type=kinds.PATH)
@argument("second", type=kinds.PATH)
@option("--allow-different", is_flag=True, help="Compare different machines, inputs or precisions all the same.")
@options.as_json
def compare(first: Path, second: Path, allow_different: bool, as_json: bool) -> None:
    """Ratio of times of two bench.json files, first ÷ second; with a 95 % interval where both have several launches."""
    from anatomy_export.bench.results import compare_results, read_results
    from anatomy_export.bench.tables import COMPARE_HEADINGS, compare_notes, compare_rows

    bodies = [read_results(path) for path in (first, second)]
    rows = compare_results(*bodies, allow_different=allow_different)
    for path, body in zip((first, second), bodies, strict=True):
        if body.get("partial"):
            click.echo(f"note: {path} is partial: its run was interrupted", err=True)
    table = bench_table(COMPARE_HEADINGS, compare_rows(rows))
    print_answer(as_json, {"results": rows}, lambda: (table, *compare_notes(rows)))
