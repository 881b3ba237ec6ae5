"""`anatomy score`: the anatomy of a model."""

from collections.abc import Iterator, Sequence

from cloup import command, option, option_group

from anatomy_export.commands import kinds, options
from anatomy_export.commands.terminal import Table, print_answer, quiet_libraries
from anatomy_export.core.progress import Progress

EXAMPLES = """\b
Examples:
  anatomy score --model bert --output anatomy-bert
  anatomy score --model ./my-classifier --probes sentences.txt --strong-threshold 0.2 --output anatomy --json
"""
HEADINGS = ("layer", "similarity", "highest neuron", "strong", "of", "dangling", "offset")


@command("score", epilog=EXAMPLES)
@option_group(
    "Model and probes",
    option("--model", required=True, help="bert, gpt2, bert-base, gpt2-base, a checkpoint directory, or a hub id."),
    option("--allow-random-head", is_flag=True, help="Score a checkpoint that has no classification head."),
    option("--probes", help="Text file, one probe sentence a line. Default: ten built-in ones."),
    options.max_length,
    options.strong_threshold("A neuron is strong where its similarity with any probe's target token is above."),
)
@option_group(
    "Output",
    option("--output", required=True, type=kinds.PATH, help="Directory for anatomy.json and .npz."),
    options.force,
    options.as_json,
)
def score(as_json: bool, **given) -> None:
    """The anatomy of a model: how its layers and neurons point towards the token that the classifier reads."""
    from anatomy_export.jobs.score import ScoreRequest, run_score

    request = ScoreRequest(**given)
    quiet_libraries()
    body = run_score(request, Progress())
    table = Table(HEADINGS, _rows(body), title=f"anatomy of {body['model']}, mean of {len(body['probes'])} probes")
    body_printed = {**body, "output": str(request.output)}
    print_answer(as_json, body_printed, lambda: (table, *_sentences(body), f"wrote {request.output}"))


def _rows(body: dict) -> Iterator[Sequence[str]]:
    """One row a layer."""
    summary = body["summary"]
    for layer, width in enumerate(body["widths"]):
        similarities = (f"{summary[name][layer]:.3f}" for name in ("layer_similarity_mean", "highest"))
        counts = (summary["strong"][layer], width, summary["dangling"][layer], summary["offset"][layer])
        yield (str(layer), *similarities, *(f"{count:,}" for count in counts))


def _sentences(body: dict) -> Iterator[str]:
    """What the table of an anatomy does not say."""
    summary, threshold = body["summary"], body["strong_threshold"]
    strong, neurons = sum(summary["strong"]), sum(body["widths"])
    share, quantile = f"{100 * summary['quantile_share']:g} %", f"{summary['quantile_threshold']:.3f}"
    if not strong:
        yield f"no neuron is strong at {threshold:g}: the highest similarity is {max(summary['highest']):.3f}"
        yield f"the top {share} lie above {quantile}; next step: --strong-threshold {quantile}"
        return
    yield (
        f"strong (similarity above {threshold:g}): {strong:,} of {neurons:,} neurons "
        f"({100 * summary['strong_share']:.1f} %); the top {share} lie above {quantile}"
    )
    if summary["jaccard_mean"] is not None:
        yield (
            f"strong sets of two probes share {100 * summary['jaccard_mean']:.0f} % of their neurons on average "
            f"(Jaccard); by chance {100 * summary['jaccard_chance']:.0f} %"
        )
