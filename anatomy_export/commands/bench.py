"""`anatomy-bench`: engines and variants against each other."""

from pathlib import Path

import click
from cloup import option, option_group
from cloup.constraints import Equal, IsSet

from anatomy_export.commands import kinds, options
from anatomy_export.commands.bench_compare import compare
from anatomy_export.commands.bench_measurement import bench_table, list_option, measure_and_write, measurement_options
from anatomy_export.commands.bench_paper import paper
from anatomy_export.commands.contradictions import Includes, given_options, refuse, refuse_without
from anatomy_export.commands.exit_codes import script_group
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
OFF_ON = kinds.some_of("off", "on")

rules = options.together(
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
        "{first} on needs --io-binding on.",
    ),
)


@script_group("bench", commands=[paper, compare], invoke_without_command=True, epilog=EXAMPLES)
@option_group(
    "Models",
    option("--model", default="bert", help="bert, gpt2, bert-base, gpt2-base, a directory, a hub id."),
    option("--bundle", "bundles", multiple=True, help="Time this bundle or .onnx file instead; repeat."),
    option("--keep-ratio", "keep_ratios", default="0.5", type=kinds.SHARES, help="Comma-separated."),
    option("--align", default="auto", type=kinds.Multiple(), help="Round widths up to a multiple."),
    option("--plan", type=kinds.PlanFile(exists=True), help="Mask and slice by this plan.json, or that of a bundle."),
    list_option(
        "--precision", "precisions", "fp32", options.PRECISIONS, ", of the ort variants; the other engines time fp32"
    ),
    option(
        "--target-cpu",
        type=click.Choice(options.TARGET_CPUS),
        default="portable",
        help="Of int8 weights: right on every CPU, or on CPUs like this one.",
    ),
)
@option_group(
    "Inputs and rounds",
    option("--batch", "batches", default="1", type=kinds.COUNTS, help="Comma-separated."),
    option("--seq-len", "lengths", default="128", type=kinds.COUNTS, help="Tokens, comma-separated."),
    option("--repeats", type=kinds.FROM_1, default=20, help="Rounds for each shape."),
    option(
        "--launches",
        type=click.IntRange(min=1, max=MAX_LAUNCHES),
        default=1,
        help="Start the worker processes anew so many times; each launch does all the rounds.",
    ),
    option(
        "--io-binding",
        default="off",
        type=OFF_ON,
        help="CUDA: off, on, or both (off,on): inputs and outputs stay on the device.",
    ),
    option("--cuda-graph", default="off", type=OFF_ON, help="CUDA: off, on, or both (off,on); needs --io-binding on."),
)
@measurement_options
@rules
@click.pass_context
def bench(context, **given) -> None:
    """Time engines and variants against each other, interleaved, each in a process of its own.

    Without a subcommand: dense, mask and slice of a model, or the bundles given.
    """
    if context.invoked_subcommand:
        for option in given_options(context, context.command.params):
            raise click.UsageError(
                f"An option of anatomy-bench itself ({option}) stands before '{context.invoked_subcommand}'; put the "
                "subcommand first."
            )
        return
    from anatomy_export.bench.plots import latency_plot
    from anatomy_export.bench.tables import TERMINAL_HEADINGS, bench_markdown, bench_rows
    from anatomy_export.bench.timing import BenchRequest, run_bench
    from anatomy_export.jobs.bench_bundles import make_bundle

    for axis in ("io_binding", "cuda_graph"):
        given[axis] = tuple(value == "on" for value in given[axis])
    measure_and_write(
        given,
        "bundles" if given["bundles"] else Path(given["model"]).name,
        lambda settings: run_bench(BenchRequest(**settings), Progress(), make_bundle),
        markdown=bench_markdown,
        plot=lambda body: latency_plot([body]),
        tables=lambda body: [bench_table(TERMINAL_HEADINGS, bench_rows(body, intervals=False))],
    )
