"""`anatomy pareto`: ways to prune a model against each other."""

from collections.abc import Iterator, Sequence

from cloup import command, option, option_group

from anatomy_export.commands import kinds, options
from anatomy_export.commands.exit_codes import kept_in
from anatomy_export.commands.terminal import Table, print_answer, quiet_libraries
from anatomy_export.core.progress import Progress

EXAMPLES = """\b
Examples:
  anatomy pareto --model bert --output pareto-bert
  anatomy pareto --model ./my-classifier --data reviews.csv --criteria obs-gradient,fisher --removed 0.5,0.7 --output p
"""
HEADINGS = ("way", "removed, %", "× dense", "validation, %", "test, %", "agreement, %", "|Δp|, %")


@command("pareto", epilog=EXAMPLES)
@option_group(
    "Model and data",
    option("--model", required=True, help="bert, gpt2, a checkpoint directory, or a hub id."),
    options.data(),
    options.bad_labels,
    options.max_length,
    option("--calibration-examples", type=kinds.FROM_2, help="Train texts. Default: 1024, or fewer of 65,536 tokens."),
)
@option_group(
    "Ways to prune, comma-separated",
    option(
        "--criteria",
        default=",".join(options.CRITERION_NAMES),
        show_default="all",
        type=kinds.some_of(*options.CRITERION_NAMES),
        help="What neurons are ranked by.",
    ),
    option(
        "--compensate",
        default="none,auto",
        type=kinds.some_of(*options.REPAIRS),
        help=f"Repairs, of {', '.join(options.REPAIRS)}.",
    ),
    option(
        "--allocate",
        default="sensitivity",
        type=kinds.some_of(*options.ALLOCATIONS),
        help=f"How neurons that go are spread over the layers, of {', '.join(options.ALLOCATIONS)}.",
    ),
    option(
        "--removed", default="0.3,0.5,0.7,0.85,0.95", type=kinds.REMOVED_SHARES, help="Shares of the neurons that go."
    ),
    option("--seed", type=kinds.FROM_0, default=0, help="Of calibration and of the random criterion."),
)
@option_group(
    "Latency",
    option("--batch", type=kinds.FROM_1, default=1, help="What latency is measured at."),
    option("--seq-len", type=kinds.FROM_2, help="Tokens, likewise. Default: 128, or what the model takes."),
)
@option_group("Output", options.resumed_output, options.as_json)
def pareto(as_json: bool, **given) -> None:
    """Accuracy against measured latency: which ways to prune a model no other way beats."""
    from anatomy_export.bench.plots import pareto_plot
    from anatomy_export.core.errors import MissingExtraError
    from anatomy_export.core.files import write_atomic
    from anatomy_export.jobs.pareto import ParetoRequest, run_pareto

    request = ParetoRequest(data=options.pop_data(given), **given)
    quiet_libraries()
    progress = Progress()
    with kept_in(request.output):
        body = run_pareto(request, progress)
    try:
        write_atomic(request.output / "pareto.svg", pareto_plot(body).decode("utf-8"))
    except MissingExtraError as error:
        progress.note(f"note: no plot ({error})")
    table = Table(HEADINGS, _rows(body), title="what no other way beats", left=["way"])
    print_answer(as_json, body, lambda: (table, f"wrote {request.output}"))


def _rows(body: dict) -> Iterator[Sequence[str]]:
    """One row a way that no other beats."""
    for name in body["non_dominated"]:
        validation, test = body["results"][name], body["test"][name]
        yield (
            name.rsplit("/", 1)[0],
            f"{100 * validation['removed']:.0f}",
            f"{validation['speedup']:.2f}",
            f"{100 * validation['accuracy']:.2f}",
            f"{100 * test['accuracy']:.2f}",
            f"{100 * test['agreement']:.1f}",
            f"{100 * test['probability_change']:.2f}",
        )
