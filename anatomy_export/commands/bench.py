"""`anatomy-bench` and `anatomy doctor`: parse, call one function, print."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from click.core import ParameterSource
from rich.box import SIMPLE_HEAD
from rich.table import Table

from anatomy_export.bench.stats import MAX_LAUNCHES
from anatomy_export.commands.common import (
    HELP_NAMES,
    PRECISIONS,
    AnatomyCommand,
    AnatomyGroup,
    alignment,
    one_or_more_of,
    positive_integers,
    print_table,
    quiet_libraries,
    removed_shares,
    shares,
)
from anatomy_export.commands.precision_options import TARGET_CPUS
from anatomy_export.core.platform import usable_cores
from anatomy_export.core.progress import Progress

ENGINES = ("torch", "torch-compile", "ort", "openvino")
PROVIDERS = click.Choice(["cpu", "cuda", "tensorrt"])
MODES = ("dense", "mask", "slice")

_BENCH_EPILOG = """\b
Examples:
  anatomy-bench --backend ort
  anatomy-bench --backend torch,ort --model bert-base --batch 1,8 --keep-ratio 0.7,0.5,0.3
  anatomy-bench --bundle exports/bert-dense --bundle exports/bert-slice --backend ort --json
  anatomy-bench paper --model bert
  anatomy-bench compare before/bench.json after/bench.json
"""


def _common(command):
    """Options that both measurements take."""
    threads = usable_cores()
    for option in reversed(
        (
            click.option(
                "--backend",
                "engines",
                default="torch,ort",
                show_default=True,
                callback=one_or_more_of(*ENGINES),
                help=f"Comma-separated: {', '.join(ENGINES)}.",
            ),
            click.option(
                "--provider", type=PROVIDERS, default="cpu", show_default=True, help="Also picks torch's device."
            ),
            click.option(
                "--variant",
                "modes",
                default=",".join(MODES),
                show_default=True,
                callback=one_or_more_of(*MODES),
                help=f"Comma-separated: {', '.join(MODES)}.",
            ),
            click.option("--threads", type=click.IntRange(min=1), default=threads, help="Default: all physical cores."),
            click.option(
                "--timeout",
                "timeout_s",
                type=click.FloatRange(min=0, min_open=True),
                default=600,
                show_default=True,
                help="Seconds for one call.",
            ),
            click.option("--output", type=click.Path(path_type=Path), help="Default: bench-results/<model>-<time>."),
            click.option("--force", is_flag=True, help="Replace an existing output directory."),
            click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output."),
        )
    ):
        command = option(command)
    return command


@click.group(
    "bench",
    cls=AnatomyGroup,
    invoke_without_command=True,
    epilog=_BENCH_EPILOG,
    context_settings=HELP_NAMES,
)
@click.option(
    "--model", default="bert", show_default=True, help="bert, gpt2, bert-base, gpt2-base, a directory, a hub id."
)
@click.option("--bundle", "bundles", multiple=True, help="Time this bundle or .onnx file instead; repeat.")
@click.option("--batch", "batches", default="1", show_default=True, callback=positive_integers, help="Comma-separated.")
@click.option("--seq-len", "lengths", default="128", show_default=True, callback=positive_integers, help="Tokens.")
@click.option("--keep-ratio", "keep_ratios", default="0.5", show_default=True, callback=shares, help="Comma-separated.")
@click.option("--align", default="auto", show_default=True, callback=alignment, help="Round widths up to a multiple.")
@click.option("--plan", type=click.Path(path_type=Path, exists=True), help="Mask and slice by this plan.json.")
@click.option(
    "--precision",
    "precisions",
    default="fp32",
    show_default=True,
    callback=one_or_more_of(*PRECISIONS),
    help=f"Comma-separated: {', '.join(PRECISIONS)}, of the ort variants; the other engines time fp32.",
)
@click.option(
    "--target-cpu",
    type=click.Choice(TARGET_CPUS),
    default="portable",
    show_default=True,
    help="Of int8 weights: right on every CPU, or on CPUs like this one.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=20, show_default=True, help="Rounds for each shape.")
@click.option(
    "--launches",
    type=click.IntRange(min=1, max=MAX_LAUNCHES),
    default=1,
    show_default=True,
    help="Start the worker processes anew so many times; each launch does all the rounds.",
)
@click.option(
    "--io-binding",
    default="off",
    show_default=True,
    callback=one_or_more_of("off", "on"),
    help="CUDA: off, on, or both (off,on): inputs and outputs stay on the device.",
)
@click.option(
    "--cuda-graph",
    default="off",
    show_default=True,
    callback=one_or_more_of("off", "on"),
    help="CUDA: off, on, or both (off,on); needs --io-binding on.",
)
@_common
@click.pass_context
def bench(context, **options) -> None:
    """Time engines and variants against each other, interleaved, each in a process of its own.

    Without a subcommand: dense, mask and slice of a model, or the bundles given.
    """
    if context.invoked_subcommand:
        _refuse_lost_options(context)
        return
    from anatomy_export.bench.plots import latency_plot
    from anatomy_export.bench.tables import TERMINAL_HEADINGS, bench_markdown, bench_rows
    from anatomy_export.bench.timing import BenchRequest, run_bench
    from anatomy_export.jobs.bench_bundles import make_bundle

    _refuse_contradictions(context, options)
    sent, shown = _split_options(options)
    for axis in ("io_binding", "cuda_graph"):
        sent[axis] = tuple(value == "on" for value in sent[axis])
    name = "bundles" if sent["bundles"] else Path(sent["model"]).name

    def tables(body: dict) -> list:
        return [(None, TERMINAL_HEADINGS, bench_rows(body, intervals=False))]

    documents = _Documents(bench_markdown, lambda body: latency_plot([body]), tables)
    _measure_and_write(lambda: run_bench(BenchRequest(**sent), Progress(), make_bundle), shown, name, documents)


@bench.command("paper")
@click.option(
    "--model", default="bert-base", show_default=True, help="bert-base, gpt2-base, bert, gpt2, a directory, a hub id."
)
@click.option(
    "--removed",
    default="0,0.1,0.3,0.5,0.7",
    show_default=True,
    callback=removed_shares,
    help="Shares of the neurons; the dense model is there in any case.",
)
@click.option(
    "--texts",
    default="reviews,imdb",
    show_default=True,
    callback=one_or_more_of("reviews", "imdb"),
    help="reviews: the embedded sentences; imdb: IMDB from the hub, or the sentences joined up to IMDB's lengths.",
)
@click.option(
    "--examples", type=click.IntRange(min=1, max=2000), default=1000, show_default=True, help="Texts of each kind."
)
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Texts of a batch.")
@click.option("--seq-len", "length", type=click.IntRange(min=2), default=100, show_default=True, help="Tokens, padded.")
@_common
def paper(**options) -> None:
    """The paper's job: 1,000 reviews in batches of 32 padded to 100 tokens; and how it should be run."""
    from anatomy_export.bench.paper import PaperRequest, run_paper
    from anatomy_export.bench.plots import paper_plot
    from anatomy_export.bench.tables import PAPER_HEADINGS, paper_markdown, paper_rows
    from anatomy_export.jobs.bench_bundles import make_bundle

    sent, shown = _split_options(options)

    def tables(body: dict) -> list:
        return [(texts, PAPER_HEADINGS, paper_rows(body, texts, intervals=False)) for texts in body["texts"]]

    documents = _Documents(paper_markdown, paper_plot, tables)
    name = f"paper-{Path(sent['model']).name}"
    _measure_and_write(lambda: run_paper(PaperRequest(**sent), Progress(), make_bundle), shown, name, documents)


@bench.command("compare")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--allow-different", is_flag=True, help="Compare different machines, inputs or precisions all the same.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def compare(first: Path, second: Path, allow_different: bool, as_json: bool) -> None:
    """Ratio of times of two bench.json files, first ÷ second; with a 95 % interval where both have several launches."""
    from anatomy_export.bench.results import compare_results, read_results
    from anatomy_export.bench.tables import COMPARE_HEADINGS, compare_notes, compare_rows

    bodies = [read_results(path) for path in (first, second)]
    rows = compare_results(*bodies, allow_different=allow_different)
    for path, body in zip((first, second), bodies, strict=True):
        if body.get("partial"):
            click.echo(f"note: {path} is partial: its run was interrupted", err=True)
    if as_json:
        click.echo(json.dumps({"results": rows}))
    else:
        _print_table(None, COMPARE_HEADINGS, compare_rows(rows))
        for note in compare_notes(rows):
            click.echo(note)


def _split_options(options: dict) -> tuple[dict, dict]:
    """What the measurement takes, and what only the printing takes."""
    if options["provider"] != "cpu" and "openvino" in options["engines"]:
        raise click.UsageError("--backend openvino runs on the CPU only; leave it out, or use --provider cpu.")
    shown = {name: options.pop(name) for name in ("output", "force", "as_json")}
    quiet_libraries()
    return options, shown


def _refuse_lost_options(context) -> None:
    """Options before a subcommand belong to the default measurement and would be lost in silence."""
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"An option of anatomy-bench itself ({name}) stands before '{context.invoked_subcommand}'; put the "
                "subcommand first."
            )


def _refuse_contradictions(context, options: dict) -> None:
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    for chosen, rest in (
        ("bundles", ("model", "modes", "keep_ratios", "align", "plan", "precisions", "target_cpu")),
        ("plan", ("keep_ratios", "align")),
    ):
        lost = [_spelled(context, name) for name in rest if name in given]
        if chosen in given and lost:
            raise click.UsageError(
                f"{_spelled(context, chosen)} already says what {', '.join(lost)} would; leave out one."
            )
    if "target_cpu" in given and "int8" not in options["precisions"]:
        raise click.UsageError("--target-cpu means something beside --precision int8 only.")
    for axis in ("io_binding", "cuda_graph"):
        if "on" in options[axis] and options["provider"] == "cpu":
            raise click.UsageError(f"{_spelled(context, axis)} needs --provider cuda or tensorrt.")
    if "on" in options["cuda_graph"] and "on" not in options["io_binding"]:
        raise click.UsageError("--cuda-graph on needs --io-binding on.")


def _spelled(context, name: str) -> str:
    """A parameter as the user writes it: --keep-ratio for keep_ratios."""
    return next(option.opts[0] for option in context.command.params if option.name == name)


@dataclass(frozen=True)
class _Documents:
    """How a results body becomes Markdown, a plot (None: nothing to draw), and tables for the terminal."""

    markdown: Callable[[dict], str]
    plot: Callable[[dict], bytes | None]
    tables: Callable[[dict], list]


def _measure_and_write(measure: Callable, shown: dict, name: str, documents: _Documents) -> None:
    """Measure, write the results directory as a whole or not at all, and print; exit as an interrupted run says."""
    from anatomy_export.bench.results import write_results
    from anatomy_export.bench.tables import bench_notes
    from anatomy_export.core.files import staged_directory

    output = shown["output"] or Path("bench-results") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with staged_directory(output, shown["force"]) as staging:
        result = measure()
        plot, no_plot = _plot(documents, result.body)
        write_results(result.body, staging, markdown=documents.markdown(result.body), plot=plot)
    if shown["as_json"]:
        click.echo(json.dumps(result.body))
    else:
        for title, headings, rows in documents.tables(result.body):
            _print_table(title, headings, rows)
        for note in [*bench_notes(result.body), *no_plot]:
            click.echo(note)
        click.echo(f"wrote {output}")
    if result.interrupted:
        click.echo(f"Error: interrupted; the rounds done so far are in {output}, marked partial", err=True)
        sys.exit(result.interrupted)


def _plot(documents: _Documents, body: dict) -> tuple[bytes | None, list[str]]:
    """The plot and, where matplotlib is missing, a line that says so."""
    from anatomy_export.core.errors import MissingExtraError

    try:
        return documents.plot(body), []
    except MissingExtraError as error:
        return None, [f"No plot: {error}"]


def _print_table(title: str | None, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, show_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < 2 else "right", no_wrap=index > 0)
    for row in rows:
        table.add_row(*row)
    print_table(table)


@click.command("doctor", cls=AnatomyCommand)
@click.option(
    "--require", default="", help="Comma-separated providers (cpu, cuda, tensorrt) that must start: else exit 3."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def doctor(require: str, as_json: bool) -> None:
    """Versions, CPU, execution providers that really start, and what the cache holds."""
    from dataclasses import asdict

    from anatomy_export.jobs.doctor import PROVIDERS, diagnose, require_providers

    required = one_or_more_of(*PROVIDERS)(None, None, require) if require else ()
    with Progress().stage("try each execution provider"):
        found = diagnose()
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        rows = [(name, version) for name, version in found.versions.items()]
        rows.append(
            ("CPU", f"{found.cpu}, {found.cpus} logical cores ({' '.join(found.cpu_flags) or 'flags unknown'})")
        )
        rows.append(("memory", "unknown" if found.memory_bytes is None else f"{found.memory_bytes / 1e9:,.1f} GB"))
        rows += [(f"threads, {name}", str(count)) for name, count in found.threads.items()]
        rows += [("GPU", ", ".join(one.values())) for one in found.gpus] or [("GPU", "none found by nvidia-smi")]
        for name, state in found.providers.items():
            listed = "available" if state["available"] else "not available"
            starts = "starts" if state["starts"] else f"does not start: {state['reason']}"
            rows.append((f"provider {name}", starts if state["starts"] else f"{listed}, {starts}"))
        rows += [("cached", f"{name}, {size / 1e6:,.1f} MB") for name, size in found.cached.items()]
        rows.append(("cache in", found.cache))
        for name, value in rows:
            click.echo(f"{name:<20} {value}")
    require_providers(found, list(required))
