"""`anatomy study`: the paper's experiment."""

from collections.abc import Iterator, Sequence

from click import Choice
from cloup import command, option, option_group
from cloup.constraints import IsSet

from anatomy_export.commands import kinds, options
from anatomy_export.commands.contradictions import refuse_without
from anatomy_export.commands.exit_codes import kept_in
from anatomy_export.commands.terminal import Table, print_answer, quiet_libraries
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
    options.data(),
    options.bad_labels,
    options.max_length,
    options.eval_examples,
)
@option_group(
    "What to remove",
    option("--probes", help="Text file, one a line. Default: ten film reviews, or texts of --data for other classes."),
    options.strong_threshold("Stronger neurons stay."),
    option(
        "--removed",
        default="0.1,0.3,0.5,0.7",
        type=kinds.REMOVED_SHARES,
        help="Shares of all neurons that go at random.",
    ),
    option("--seeds", default="0,1,2,3,4", type=kinds.SEEDS, help="Of random removal."),
)
@option_group(
    "Latency",
    option("--latency", is_flag=True, help="Time the masked models too, in seconds for 1,000 examples."),
    option("--backend", type=Choice(["torch", "ort"]), default="torch", help="What --latency times."),
)
@option_group("Output", options.resumed_output, options.as_json)
@refuse_without("--latency", IsSet("latency"), ["backend"])
def study(as_json: bool, **given) -> None:
    """The paper's experiment: each preset of the family against random removal, masked; accuracy and seconds."""
    from anatomy_export.jobs.study import StudyRequest, run_study

    request = StudyRequest(data=options.pop_data(given), **given)
    quiet_libraries()
    with kept_in(request.output):
        body = run_study(request, Progress())
    table = Table(HEADINGS, _rows(body), title="masked, test split", left=["setup"])
    print_answer(as_json, body, lambda: (table, _dense_sentence(body["dense"]), f"wrote {request.output}"))


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
