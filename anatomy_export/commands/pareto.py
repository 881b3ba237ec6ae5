"""`anatomy pareto`: ways to prune a model against each other."""

import json
from collections.abc import Iterator, Sequence

import click
from cloup import option, option_group

from anatomy_export.commands.guard import command, kept_in
from anatomy_export.commands.options import (
    ALLOCATIONS,
    CRITERION_NAMES,
    REPAIRS,
    bad_labels_option,
    data_options,
    json_option,
    max_length_option,
    pop_data,
    resumed_output_option,
    seed_option,
)
from anatomy_export.commands.parameter_types import FROM_1, FROM_2, REMOVED_SHARES, some_of
from anatomy_export.commands.terminal import print_table, quiet_libraries
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
    data_options(),
    bad_labels_option,
    max_length_option,
    option("--calibration-examples", type=FROM_2, help="Train texts. Default: 1024, or fewer of 65,536 tokens."),
)
@option_group(
    "Ways to prune, comma-separated",
    option(
        "--criteria",
        default=",".join(CRITERION_NAMES),
        show_default="all",
        type=some_of(*CRITERION_NAMES),
        help="What neurons are ranked by.",
    ),
    option("--compensate", default="none,auto", type=some_of(*REPAIRS), help=f"Repairs, of {', '.join(REPAIRS)}."),
    option(
        "--allocate",
        default="sensitivity",
        type=some_of(*ALLOCATIONS),
        help=f"How neurons that go are spread over the layers, of {', '.join(ALLOCATIONS)}.",
    ),
    option("--removed", default="0.3,0.5,0.7,0.85,0.95", type=REMOVED_SHARES, help="Shares of the neurons that go."),
    seed_option("Of calibration and of the random criterion."),
)
@option_group(
    "Latency",
    option("--batch", type=FROM_1, default=1, help="What latency is measured at."),
    option("--seq-len", type=FROM_2, help="Tokens, likewise. Default: 128, or what the model takes."),
)
@option_group("Output", resumed_output_option, json_option)
def pareto(as_json: bool, **options) -> None:
    """Accuracy against measured latency: which ways to prune a model no other way beats."""
    from anatomy_export.bench.plots import pareto_plot
    from anatomy_export.core.errors import MissingExtraError
    from anatomy_export.core.files import write_atomic
    from anatomy_export.jobs.pareto import ParetoRequest, run_pareto

    request = ParetoRequest(data=pop_data(options), **options)
    quiet_libraries()
    progress = Progress()
    with kept_in(request.output):
        body = run_pareto(request, progress)
    try:
        write_atomic(request.output / "pareto.svg", pareto_plot(body).decode("utf-8"))
    except MissingExtraError as error:
        progress.note(f"note: no plot ({error})")
    if as_json:
        click.echo(json.dumps(body))
    else:
        print_table(HEADINGS, _rows(body), title="what no other way beats", left=("way",))
        click.echo(f"wrote {request.output}")


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
