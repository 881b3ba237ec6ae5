"""The commands that study a model rather than export it: parse, call one function, print."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.table import Table

from anatomy_export.commands.common import (
    CRITERION_NAMES,
    MAX_LENGTH_HELP,
    AnatomyCommand,
    bad_labels_option,
    data_options,
    finite,
    integers,
    one_or_more_of,
    print_table,
    quiet_libraries,
    refuse_alone,
    removed_shares,
)
from anatomy_export.core.errors import MissingExtraError, Terminated
from anatomy_export.core.progress import Progress


@contextmanager
def _goes_on(output: Path) -> Iterator[None]:
    """An interruption ends the command with its exit code, and says that the work so far is kept where it is."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as interrupt:
        click.echo(f"interrupted; the same command goes on from what {output} holds", err=True)
        sys.exit(130 if isinstance(interrupt, KeyboardInterrupt) else 143)


_PARETO_EPILOG = """\b
Examples:
  anatomy pareto --model bert --output pareto-bert
  anatomy pareto --model ./my-classifier --data reviews.csv --criteria obs-gradient,fisher --removed 0.5,0.7 --output p
"""


@click.command("pareto", cls=AnatomyCommand, epilog=_PARETO_EPILOG)
@click.option("--model", required=True, help="bert, gpt2, a checkpoint directory, or a hub id.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Directory; one of the same run goes on."
)
@data_options
@bad_labels_option
@click.option("--criteria", default=",".join(CRITERION_NAMES), callback=one_or_more_of(*CRITERION_NAMES), help="All.")
@click.option(
    "--compensate",
    default="none,auto",
    show_default=True,
    callback=one_or_more_of("none", "bias", "least-squares", "auto"),
)
@click.option(
    "--allocate",
    default="sensitivity",
    show_default=True,
    callback=one_or_more_of("uniform", "global", "sensitivity"),
)
@click.option(
    "--removed",
    default="0.3,0.5,0.7,0.85,0.95",
    show_default=True,
    callback=removed_shares,
    help="Shares of the neurons that go.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="What latency is measured at.")
@click.option("--seq-len", type=click.IntRange(min=2), help="Tokens, likewise. Default: 128, or what the model takes.")
@click.option("--max-length", type=click.IntRange(min=2), help=MAX_LENGTH_HELP)
@click.option(
    "--calibration-examples", type=click.IntRange(min=2), help="Train texts. Default: 1024, or fewer of 65,536 tokens."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def pareto(**options) -> None:
    """Accuracy against measured latency: which ways to prune a model no other way beats."""
    from anatomy_export.bench.plots import pareto_plot
    from anatomy_export.core.files import write_atomic
    from anatomy_export.jobs.pareto import ParetoRequest, run_pareto
    from anatomy_export.jobs.source_data import DataOptions

    as_json = options.pop("as_json")
    data = {name: options.pop(name) for name in list(options) if name in DataOptions.__dataclass_fields__}
    request = ParetoRequest(data=DataOptions(**data), **options)
    quiet_libraries()
    progress = Progress()
    with _goes_on(request.output):
        body = run_pareto(request, progress)
    try:
        write_atomic(request.output / "pareto.svg", pareto_plot(body).decode("utf-8"))
    except MissingExtraError as error:
        progress.note(f"note: no plot ({error})")
    if as_json:
        click.echo(json.dumps(body))
    else:
        print_table(_pareto_table(body))
        click.echo(f"wrote {request.output}")


def _pareto_table(body: dict) -> Table:
    table = Table(title="what no other way beats")
    for heading in ("way", "removed, %", "× dense", "validation, %", "test, %", "agreement, %", "|Δp|, %"):
        way = heading == "way"
        table.add_column(heading, justify="left" if way else "right", overflow="fold" if way else "ellipsis")
    for name in body["non_dominated"]:
        one, test = body["results"][name], body["test"][name]
        table.add_row(
            name.rsplit("/", 1)[0],
            f"{100 * one['removed']:.0f}",
            f"{one['speedup']:.2f}",
            f"{100 * one['accuracy']:.2f}",
            f"{100 * test['accuracy']:.2f}",
            f"{100 * test['agreement']:.1f}",
            f"{100 * test['probability_change']:.2f}",
        )
    return table


_SCORE_EPILOG = """\b
Examples:
  anatomy score --model bert --output anatomy-bert
  anatomy score --model ./my-classifier --probes sentences.txt --strong-threshold 0.2 --output anatomy --json
"""


@click.command("score", cls=AnatomyCommand, epilog=_SCORE_EPILOG)
@click.option("--model", required=True, help="bert, gpt2, bert-base, gpt2-base, a checkpoint directory, or a hub id.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Directory for anatomy.json and .npz.")
@click.option("--force", is_flag=True, help="Replace an earlier output, or an empty directory.")
@click.option("--probes", help="Text file, one probe sentence a line. Default: ten built-in ones.")
@click.option(
    "--strong-threshold",
    type=float,
    default=0.35,
    show_default=True,
    callback=finite,
    help="A neuron is strong where its similarity with any probe's target token is above.",
)
@click.option("--max-length", type=click.IntRange(min=2), help=MAX_LENGTH_HELP)
@click.option("--allow-random-head", is_flag=True, help="Score a checkpoint that has no classification head.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def score(**options) -> None:
    """The anatomy of a model: how its layers and neurons point towards the token that the classifier reads."""
    from anatomy_export.jobs.score import ScoreRequest, run_score

    as_json = options.pop("as_json")
    request = ScoreRequest(**options)
    quiet_libraries()
    body = run_score(request, Progress())
    if as_json:
        click.echo(json.dumps({**body, "output": str(request.output)}))
        return
    print_table(_score_table(body))
    for line in score_sentences(body):
        click.echo(line)
    click.echo(f"wrote {request.output}")


def _score_table(body: dict) -> Table:
    table = Table(title=f"anatomy of {body['model']}, mean of {len(body['probes'])} probes")
    for heading in ("layer", "similarity", "highest neuron", "strong", "of", "dangling", "offset"):
        table.add_column(heading, justify="right")
    found = body["summary"]
    for layer, width in enumerate(body["widths"]):
        table.add_row(
            str(layer),
            f"{found['layer_similarity_mean'][layer]:.3f}",
            f"{found['highest'][layer]:.3f}",
            *(f"{count:,}" for count in (found["strong"][layer], width)),
            *(f"{found[name][layer]:,}" for name in ("dangling", "offset")),
        )
    return table


def score_sentences(body: dict) -> list[str]:
    """What the table of an anatomy does not say."""
    found, threshold = body["summary"], body["strong_threshold"]
    strong, neurons = sum(found["strong"]), sum(body["widths"])
    share, quantile = f"{100 * found['quantile_share']:g} %", f"{found['quantile_threshold']:.3f}"
    if not strong:
        return [
            f"no neuron is strong at {threshold:g}: the highest similarity is {max(found['highest']):.3f}",
            f"the top {share} lie above {quantile}; next step: --strong-threshold {quantile}",
        ]
    lines = [
        f"strong (similarity above {threshold:g}): {strong:,} of {neurons:,} neurons "
        f"({100 * found['strong_share']:.1f} %); the top {share} lie above {quantile}"
    ]
    if found["jaccard_mean"] is not None:
        lines.append(
            f"strong sets of two probes share {100 * found['jaccard_mean']:.0f} % of their neurons on average "
            f"(Jaccard); by chance {100 * found['jaccard_chance']:.0f} %"
        )
    return lines


_STUDY_EPILOG = """\b
Examples:
  anatomy study --model bert --output study-bert
  anatomy study --model ./bert-imdb --data imdb --eval-examples 1000 --latency --output study-imdb
"""


@click.command("study", cls=AnatomyCommand, epilog=_STUDY_EPILOG)
@click.option("--model", required=True, help="bert, gpt2, a checkpoint directory, or a hub id.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Directory; one of the same run goes on."
)
@data_options
@bad_labels_option
@click.option("--max-length", type=click.IntRange(min=2), help=MAX_LENGTH_HELP)
@click.option("--eval-examples", type=click.IntRange(min=1), help="Test texts for accuracy. Default: all.")
@click.option(
    "--probes",
    help="Text file, one a line. Default: ten film reviews, or texts of --data for other classes.",
)
@click.option(
    "--strong-threshold", type=float, default=0.35, show_default=True, callback=finite, help="Stronger neurons stay."
)
@click.option("--seeds", default="0,1,2,3,4", show_default=True, callback=integers, help="Of random removal.")
@click.option(
    "--removed",
    default="0.1,0.3,0.5,0.7",
    show_default=True,
    callback=removed_shares,
    help="Shares of all neurons that go at random.",
)
@click.option("--latency", is_flag=True, help="Time the masked models too, in seconds for 1,000 examples.")
@click.option(
    "--backend", type=click.Choice(["torch", "ort"]), default="torch", show_default=True, help="What --latency times."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def study(**options) -> None:
    """The paper's experiment: each preset of the family against random removal, masked; accuracy and seconds."""
    if not options["latency"]:
        refuse_alone("backend", "--latency")
    from anatomy_export.jobs.source_data import DataOptions
    from anatomy_export.jobs.study import StudyRequest, run_study

    as_json = options.pop("as_json")
    if not options["seeds"] or min(options["seeds"]) < 0:
        raise click.UsageError("--seeds takes one or more whole numbers from 0, comma-separated.")
    data = {name: options.pop(name) for name in list(options) if name in DataOptions.__dataclass_fields__}
    request = StudyRequest(data=DataOptions(**data), **options)
    quiet_libraries()
    with _goes_on(request.output):
        body = run_study(request, Progress())
    if as_json:
        click.echo(json.dumps(body))
        return
    print_table(_study_table(body))
    click.echo(_dense_sentence(body))
    click.echo(f"wrote {request.output}")


def _study_table(body: dict) -> Table:
    table = Table(title="masked, test split")
    for heading in ("setup", "removed", "accuracy, %", "agreement, %", "random, %", "× dense"):
        table.add_column(heading, justify="left" if heading == "setup" else "right")
    setups = body["setups"]
    for name, one in setups.items():
        if one["kind"] == "anatomy":
            rivals = [other for other in setups.values() if other["matches"] == name]
            table.add_row(name, *_measured(one), _over_seeds(rivals), _times_dense([one]))
    for share in body["settings"]["removed"]:
        own = [one for one in setups.values() if one["share"] == share]
        table.add_row(f"random {100 * share:g} %", _removed(own[0]), "", "", _over_seeds(own), _times_dense(own))
    return table


def _measured(one: dict) -> tuple[str, str, str]:
    if "refused" in one:
        return "refused", "n/a", "n/a"
    low, high = (100 * bound for bound in one["interval"])
    return _removed(one), f"{100 * one['accuracy']:.2f} [{low:.1f}, {high:.1f}]", f"{100 * one['agreement']:.1f}"


def _removed(one: dict) -> str:
    return "refused" if "refused" in one else f"{one['removed']:,} ({100 * one['removed_share']:.1f} %)"


def _over_seeds(entries: list[dict]) -> str:
    """Mean accuracy over the seeds, in points, and its range."""
    values = [100 * one["accuracy"] for one in entries if "refused" not in one]
    return f"{sum(values) / len(values):.2f} [{min(values):.1f}, {max(values):.1f}]" if values else "n/a"


def _times_dense(entries: list[dict]) -> str:
    timed = [one["seconds"]["dense_ratio"] for one in entries if one.get("seconds")]
    return f"{timed[0]:.2f}" if timed else "n/a"


def _dense_sentence(body: dict) -> str:
    dense = body["dense"]
    low, high = (100 * bound for bound in dense["interval"])
    seconds = dense.get("seconds")
    timed = (
        f"; {seconds['median_s']:.2f} s for {seconds['examples']:,} examples ({seconds['engine']})" if seconds else ""
    )
    return f"dense {100 * dense['accuracy']:.2f} % [{low:.1f}, {high:.1f}] of {dense['examples']:,} test texts{timed}"
