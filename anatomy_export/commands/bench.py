"""`anatomy-bench`: engines and variants against each other."""

from pathlib import Path

import click
from cloup import option, option_group
from cloup.constraints import Equal, IsSet

from anatomy_export.commands.bench_compare import compare
from anatomy_export.commands.bench_measurement import Documents, measure_and_write, measurement_options
from anatomy_export.commands.bench_paper import paper
from anatomy_export.commands.contradictions import Includes, given_options, refuse, refuse_without
from anatomy_export.commands.guard import group
from anatomy_export.commands.options import PRECISIONS, TARGET_CPUS, together
from anatomy_export.commands.parameter_types import COUNTS, FROM_1, SHARES, Multiple, PlanFile, some_of
from anatomy_export.core.progress import Progress

EXAMPLES = """\b
Examples:
  anatomy-bench --backend ort
  anatomy-bench --backend torch,ort --model bert-base --batch 1,8 --keep-ratio 0.7,0.5,0.3
  anatomy-bench --bundle exports/bert-dense --bundle exports/bert-slice --backend ort --json
  anatomy-bench paper --model bert
  anatomy-bench compare before/bench.json after/bench.json
"""
MAX_LAUNCHES = 10
OF_PLAN = ("keep_ratios", "align")
OF_BUNDLES = ("model", "modes", *OF_PLAN, "plan", "precisions", "target_cpu")

rules = together(
    refuse(IsSet("bundles"), OF_BUNDLES, "--bundle already says what {all} would; leave out one."),
    refuse(IsSet("plan"), OF_PLAN, "--plan already says what {all} would; leave out one."),
    refuse_without("--precision int8", Includes("precisions", "int8"), ["target_cpu"]),
    *(
        refuse(Includes(axis, "on") & Equal("provider", "cpu"), [axis], "{first} needs --provider cuda or tensorrt.")
        for axis in ("io_binding", "cuda_graph")
    ),
    refuse(
        Includes("cuda_graph", "on") & ~Includes("io_binding", "on"),
        ["cuda_graph"],
        "--cuda-graph on needs --io-binding on.",
    ),
)


@group("bench", commands=[paper, compare], invoke_without_command=True, epilog=EXAMPLES)
@option_group(
    "Models",
    option("--model", default="bert", help="bert, gpt2, bert-base, gpt2-base, a directory, a hub id."),
    option("--bundle", "bundles", multiple=True, help="Time this bundle or .onnx file instead; repeat."),
    option("--keep-ratio", "keep_ratios", default="0.5", type=SHARES, help="Comma-separated."),
    option("--align", default="auto", type=Multiple(), help="Round widths up to a multiple."),
    option("--plan", type=PlanFile(exists=True), help="Mask and slice by this plan.json, or that of a bundle."),
    option(
        "--precision",
        "precisions",
        default="fp32",
        type=some_of(*PRECISIONS),
        help=f"Comma-separated: {', '.join(PRECISIONS)}, of the ort variants; the other engines time fp32.",
    ),
    option(
        "--target-cpu",
        type=click.Choice(TARGET_CPUS),
        default="portable",
        help="Of int8 weights: right on every CPU, or on CPUs like this one.",
    ),
)
@option_group(
    "Inputs and rounds",
    option("--batch", "batches", default="1", type=COUNTS, help="Comma-separated."),
    option("--seq-len", "lengths", default="128", type=COUNTS, help="Tokens."),
    option("--repeats", type=FROM_1, default=20, help="Rounds for each shape."),
    option(
        "--launches",
        type=click.IntRange(min=1, max=MAX_LAUNCHES),
        default=1,
        help="Start the worker processes anew so many times; each launch does all the rounds.",
    ),
    option(
        "--io-binding",
        default="off",
        type=some_of("off", "on"),
        help="CUDA: off, on, or both (off,on): inputs and outputs stay on the device.",
    ),
    option(
        "--cuda-graph",
        default="off",
        type=some_of("off", "on"),
        help="CUDA: off, on, or both (off,on); needs --io-binding on.",
    ),
)
@measurement_options
@rules
@click.pass_context
def bench(context, **options) -> None:
    """Time engines and variants against each other, interleaved, each in a process of its own.

    Without a subcommand: dense, mask and slice of a model, or the bundles given.
    """
    if context.invoked_subcommand:
        lost = given_options(context, context.command.params)
        if lost:
            raise click.UsageError(
                f"An option of anatomy-bench itself ({lost[0]}) stands before '{context.invoked_subcommand}'; put the "
                "subcommand first."
            )
        return
    from anatomy_export.bench.plots import latency_plot
    from anatomy_export.bench.tables import TERMINAL_HEADINGS, bench_markdown, bench_rows
    from anatomy_export.bench.timing import BenchRequest, run_bench
    from anatomy_export.jobs.bench_bundles import make_bundle

    for axis in ("io_binding", "cuda_graph"):
        options[axis] = tuple(value == "on" for value in options[axis])
    documents = Documents(
        bench_markdown,
        lambda body: latency_plot([body]),
        lambda body: [(None, TERMINAL_HEADINGS, bench_rows(body, intervals=False))],
    )
    name = "bundles" if options["bundles"] else Path(options["model"]).name
    measure_and_write(options, name, lambda sent: run_bench(BenchRequest(**sent), Progress(), make_bundle), documents)
