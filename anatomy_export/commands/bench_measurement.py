"""What `anatomy-bench` and `anatomy-bench paper` share: options, and how a result is written and printed."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from cloup import option, option_group
from cloup.constraints import Equal

from anatomy_export.commands.contradictions import Includes, refuse
from anatomy_export.commands.options import force_option, json_option, together
from anatomy_export.commands.parameter_types import ABOVE_0, FROM_1, PATH, some_of
from anatomy_export.commands.terminal import print_table, quiet_libraries
from anatomy_export.core.platform import usable_cores

ENGINES = ("torch", "torch-compile", "ort", "openvino")
PROVIDERS = ("cpu", "cuda", "tensorrt")
MODES = ("dense", "mask", "slice")

measurement_options = together(
    option_group(
        "Engines and variants",
        option("--backend", "engines", default="torch,ort", type=some_of(*ENGINES), help=f"Comma-separated: {', '.join(ENGINES)}."),
        option("--provider", type=click.Choice(PROVIDERS), default="cpu", help="Also picks torch's device."),
        option("--variant", "modes", default=",".join(MODES), type=some_of(*MODES), help=f"Comma-separated: {', '.join(MODES)}."),
        option("--threads", type=FROM_1, default=usable_cores, show_default="all physical cores", help="Of an engine."),
        option("--timeout", "timeout_s", type=ABOVE_0, default=600, help="Seconds for one call."),
    ),
    option_group(
        "Output",
        option("--output", type=PATH, help="Default: bench-results/<model>-<time>."),
        force_option,
        json_option,
    ),
    refuse(
        Includes("engines", "openvino") & ~Equal("provider", "cpu"),
        ["engines"],
        "--backend openvino runs on the CPU only; leave it out, or use --provider cpu.",
    ),
)


@dataclass(frozen=True)
class Documents:
    """How the body of a result becomes Markdown, a plot (None: nothing to draw), and tables for the terminal.

    A table is its title, its headings and its rows.
    """

    markdown: Callable[[dict], str]
    plot: Callable[[dict], bytes | None]
    tables: Callable[[dict], Iterable[tuple[str | None, Sequence[str], Sequence[Sequence[str]]]]]


def measure_and_write(options: dict, name: str, measure: Callable, documents: Documents) -> None:
    """Call `measure` with those of the options that are not the output's, and print and write its result.

    The results directory is written as a whole or not at all. An interrupted run ends with its exit code.
    """
    from anatomy_export.bench.results import write_results
    from anatomy_export.bench.tables import bench_notes
    from anatomy_export.core.files import staged_directory

    output, force, as_json = (options.pop(option) for option in ("output", "force", "as_json"))
    output = output or Path("bench-results") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    quiet_libraries()
    with staged_directory(output, force) as staging:
        result = measure(options)
        plot, no_plot = _plot(documents, result.body)
        write_results(result.body, staging, markdown=documents.markdown(result.body), plot=plot)
    if as_json:
        click.echo(json.dumps(result.body))
    else:
        for title, headings, rows in documents.tables(result.body):
            print_bench_table(headings, rows, title=title)
        for note in [*bench_notes(result.body), *no_plot, f"wrote {output}"]:
            click.echo(note)
    if result.interrupted:
        click.echo(f"Error: interrupted; the rounds done so far are in {output}, marked partial", err=True)
        sys.exit(result.interrupted)


def _plot(documents: Documents, body: dict) -> tuple[bytes | None, list[str]]:
    """The plot and, where matplotlib is missing, a line that says so."""
    from anatomy_export.core.errors import MissingExtraError

    try:
        return documents.plot(body), []
    except MissingExtraError as error:
        return None, [f"No plot: {error}"]


def print_bench_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table without a frame; its first two columns are names."""
    print_table(headings, rows, title=title, left=headings[:2], compact=True)
