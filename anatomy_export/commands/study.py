"""`anatomy study`: the paper's experiment."""

import json
from collections.abc import Iterator, Sequence

import click
from cloup import option, option_group
from cloup.constraints import IsSet

from anatomy_export.commands.contradictions import refuse_without
from anatomy_export.commands.guard import command, kept_in
from anatomy_export.commands.options import (
    bad_labels_option,
    data_options,
    eval_examples_option,
    json_option,
    max_length_option,
    pop_data,
    resumed_output_option,
    strong_threshold_option,
)
from anatomy_export.commands.parameter_types import REMOVED_SHARES, SEEDS
from anatomy_export.commands.terminal import print_table, quiet_libraries
from anatomy_export.core.progress import Progress

EXAMPLES = """\b
Examples:
  anatomy study --model bert --output study-bert
  anatomy study --model ./bert-imdb --data imdb --eval-examples 1000 --latency --output study-imdb
"""
HEADINGS = ("setup", "removed", "accuracy, %", "agreement, %", "random, %", "× dense")


@command("study", epilog=EXAMPLES)
@option_group(
    "Model and data",
    option("--model", required=True, help="bert, gpt2, a checkpoint directory, or a hub id."),
    data_options(),
    bad_labels_option,
    max_length_option,
    eval_examples_option,
)
@option_group(
    "What to remove",
    option("--probes", help="Text file, one a line. Default: ten film reviews, or texts of --data for other classes."),
    strong_threshold_option("Stronger neurons stay."),
    option(
        "--removed", default="0.1,0.3,0.5,0.7", type=REMOVED_SHARES, help="Shares of all neurons that go at random."
    ),
    option("--seeds", default="0,1,2,3,4", type=SEEDS, help="Of random removal."),
)
@option_group(
    "Latency",
    option("--latency", is_flag=True, help="Time the masked models too, in seconds for 1,000 examples."),
    option("--backend", type=click.Choice(["torch", "ort"]), default="torch", help="What --latency times."),
)
@option_group("Output", resumed_output_option, json_option)
@refuse_without("--latency", IsSet("latency"), ["backend"])
def study(as_json: bool, **options) -> None:
    """The paper's experiment: each preset of the family against random removal, masked; accuracy and seconds."""
    from anatomy_export.jobs.study import StudyRequest, run_study

    request = StudyRequest(data=pop_data(options), **options)
    quiet_libraries()
    with kept_in(request.output):
        body = run_study(request, Progress())
    if as_json:
        click.echo(json.dumps(body))
        return
    print_table(HEADINGS, _rows(body), title="masked, test split", left=("setup",))
    click.echo(_dense_sentence(body["dense"]))
    click.echo(f"wrote {request.output}")


def _rows(body: dict) -> Iterator[Sequence[str]]:
    """One row a preset, with what random removal of as many neurons gives; then one row a random share."""
    setups = body["setups"]
    for name, setup in setups.items():
        if setup["kind"] == "anatomy":
            rivals = [other for other in setups.values() if other["matches"] == name]
            yield name, *_measured(setup), _over_seeds(rivals), _times_dense(setup)
    for share in body["settings"]["removed"]:
        drawn = [setup for setup in setups.values() if setup["share"] == share]
        yield f"random {100 * share:g} %", _removed(drawn[0]), "", "", _over_seeds(drawn), _times_dense(*drawn)


def _measured(setup: dict) -> tuple[str, str, str]:
    if "refused" in setup:
        return "refused", "n/a", "n/a"
    return _removed(setup), _with_interval(setup), f"{100 * setup['agreement']:.1f}"


def _removed(setup: dict) -> str:
    return "refused" if "refused" in setup else f"{setup['removed']:,} ({100 * setup['removed_share']:.1f} %)"


def _with_interval(result: dict, unit: str = "") -> str:
    """Accuracy in percent, and its 95 % interval."""
    low, high = (100 * bound for bound in result["interval"])
    return f"{100 * result['accuracy']:.2f}{unit} [{low:.1f}, {high:.1f}]"


def _over_seeds(setups: list[dict]) -> str:
    """Mean accuracy over the seeds, in points, and its range."""
    values = [100 * setup["accuracy"] for setup in setups if "refused" not in setup]
    return f"{sum(values) / len(values):.2f} [{min(values):.1f}, {max(values):.1f}]" if values else "n/a"


def _times_dense(*setups: dict) -> str:
    ratios = [setup["seconds"]["dense_ratio"] for setup in setups if setup.get("seconds")]
    return f"{ratios[0]:.2f}" if ratios else "n/a"


def _dense_sentence(dense: dict) -> str:
    sentence = f"dense {_with_interval(dense, ' %')} of {dense['examples']:,} test texts"
    seconds = dense.get("seconds")
    if not seconds:
        return sentence
    return f"{sentence}; {seconds['median_s']:.2f} s for {seconds['examples']:,} examples ({seconds['engine']})"
