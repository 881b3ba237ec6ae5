"""What `anatomy-bench` and `anatomy-bench paper` share: options, and how a result is written and printed."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click
from cloup import option, option_group
from cloup.constraints import Equal

from anatomy_export.commands import kinds, options
from anatomy_export.commands.contradictions import Includes, refuse
from anatomy_export.commands.terminal import Table, print_answer, quiet_libraries
from anatomy_export.core.platform import usable_cores

PROVIDERS = ("cpu", "cuda", "tensorrt")
ENGINES = ("torch", "torch-compile", "ort", "openvino")
MODES = ("dense", "mask", "slice")


def list_option(name: str, parameter: str, default: str, choices: Sequence[str], note: str = ""):
    """An option that takes some of `choices`, comma-separated."""
    help = f"Comma-separated: {', '.join(choices)}{note}."
    return option(name, parameter, default=default, type=kinds.some_of(*choices), help=help)


measurement_options = options.together(
    option_group(
        "Engines and variants",
        list_option("--backend", "engines", "torch,ort", ENGINES),
        option("--provider", type=click.Choice(PROVIDERS), default="cpu", help="Also picks torch's device."),
        list_option("--variant", "modes", ",".join(MODES), MODES),
        option(
            "--threads",
            type=kinds.FROM_1,
            default=usable_cores,
            show_default=False,
            help="Default: all physical cores.",
        ),
        option("--timeout", "timeout_s", type=kinds.ABOVE_0, default=600, help="Seconds for one call."),
    ),
    option_group(
        "Output",
        option("--output", type=kinds.PATH, help="Default: bench-results/<model>-<time>."),
        options.force,
        options.as_json,
    ),
    refuse(
        Includes("engines", "openvino") & ~Equal("provider", "cpu"),
        ["engines"],
        "--backend openvino runs on the CPU only; leave it out, or use --provider cpu.",
    ),
)


def bench_table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    """A table without a frame; its first two columns are names."""
    return Table(headings, rows, title=title, left=headings[:2], compact=True)


def measure_and_write(
    given: dict,
    name: str,
    measure: Callable,
    *,
    markdown: Callable[[dict], str],
    plot: Callable[[dict], bytes | None],
    tables: Callable[[dict], Iterable[Table]],
) -> None:
    """Call `measure` with those of the options that are not the output's, and write and print its result.

    The results directory is written as a whole or not at all. An interrupted run ends with its exit code.

    Args:
        name: of the directory, where none was given.
        markdown, plot, tables: make what is written and printed of a result's body; a plot of None is left out.
    """
    from anatomy_export.bench.results import write_results
    from anatomy_export.bench.tables import bench_notes
    from anatomy_export.core.errors import MissingExtraError
    from anatomy_export.core.files import staged_directory

    output, force, as_json = (given.pop(option) for option in ("output", "force", "as_json"))
    output = output or Path("bench-results") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    quiet_libraries()
    with staged_directory(output, force) as staging:
        result = measure(given)
        notes = list(bench_notes(result.body))
        try:
            image = plot(result.body)
        except MissingExtraError as error:
            image = None
            notes.append(f"No plot: {error}")
        write_results(result.body, staging, markdown=markdown(result.body), plot=image)
    print_answer(as_json, result.body, lambda: (*tables(result.body), *notes, f"wrote {output}"))
    if result.interrupted:
        click.echo(f"Error: interrupted; the rounds done so far are in {output}, marked partial", err=True)
        sys.exit(result.interrupted)
