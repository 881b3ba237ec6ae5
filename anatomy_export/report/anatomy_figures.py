"""What an anatomy shows: layer similarity, strong neurons, and how far probes agree on them (figures 1–3a)."""

from collections.abc import Iterable

import numpy as np

from anatomy_export.paper.anatomy_summary import strong_agreement
from anatomy_export.report.figure import ALL, Figure, HeatMap, Panel, Row, Series, Sheet, TextTable
from anatomy_export.report.sources import Score
from anatomy_export.report.strong_neuron_graph import strong_graph
from anatomy_export.report.strong_neurons import Strong, strong_neurons
from anatomy_export.report.wording import counted, percent, shortened

LISTED = 300


def anatomy_figures(score: Score) -> list[Figure]:
    """Figures 1, 1a, 2 or 3, 2a or 3a (list, overlap)."""
    strong = strong_neurons(score)
    notes: tuple[str, ...] = ()
    if strong.substitute:
        share = score.summary.quantile_share
        most = f"the {percent(share)} most similar" if share else "the most similar"
        notes = (
            f"No neuron exceeds the threshold of {score.anatomy.strong_threshold:g}. "
            f"Shown instead are {most} ({strong.words}).",
        )
    return [
        _layer_similarity(score),
        _every_probe(score),
        strong_graph(score, strong, notes),
        _strong_list(score, strong, notes),
        _overlap(score, strong, notes),
    ]


def layer_names(count: int) -> tuple[str, ...]:
    """Names of hidden states: the embeddings, then each block's output."""
    return ("emb.", *(str(layer) for layer in range(1, count)))


def _layer_similarity(score: Score) -> Figure:
    c = score.anatomy.layer_similarity
    mean, low, high = c.mean(axis=0), c.min(axis=0), c.max(axis=0)
    states = list(range(c.shape[1]))
    hover = tuple(
        f"hidden state {state}\nmean {mean[state]:.3f}\nprobes {low[state]:.3f} to {high[state]:.3f}"
        for state in states
    )
    band = Series("lowest to highest probe", [*states, *states[::-1]], [*low, *high[::-1]], draw="band")
    series = [band, Series(f"mean of {counted(len(c), 'probe')}", states, list(mean), hover=hover)]
    for probe, row in enumerate(c):
        hover = tuple(f"probe {probe + 1}\nhidden state {state}\n{row[state]:.3f}" for state in states)
        series.append(Series(f"probe {probe + 1}", states, list(row), style=1, hover=hover, probes=(probe,)))
    return _similarity_figure("Layer similarity", "1", score, series, _similarity_summary(mean, low, high))


def _similarity_figure(topic: str, number: str, score: Score, series: list[Series], summary: str) -> Figure:
    ticks = layer_names(score.anatomy.layer_similarity.shape[1])
    panel = Panel(tuple(series), "hidden state", "cosine with the target token", x_ticks=ticks, comparable=True)
    return Figure(topic=topic, number=number, source=score.label, parts=(panel,), summary=summary)


def _similarity_summary(mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    last = len(mean) - 1
    steps = np.diff(mean)
    surge = int(steps.argmax())
    widest = int((high - low).argmax())
    fall = f" It falls in {counted(int((steps < 0).sum()), 'step')}." if (steps < 0).any() else ""
    return (
        f"The mean similarity with the final token is {mean[0]:.2f} at the embeddings, {mean[last // 2]:.2f} halfway "
        f"(after block {last // 2}) and {mean[-1]:.2f} after the last block. "
        f"The largest step, {steps[surge]:+.2f}, is that of block {surge + 1} of {last}.{fall} "
        f"Probes lie furthest apart at {layer_words(widest)} ({low[widest]:.2f} to {high[widest]:.2f})."
    )


def layer_words(state: int) -> str:
    return "the embeddings" if state == 0 else f"block {state}"


def _every_probe(score: Score) -> Figure:
    c = score.anatomy.layer_similarity
    states = list(range(c.shape[1]))
    series = []
    for probe, row in enumerate(c):
        text = shortened(score.anatomy.probes[probe])
        hover = tuple(f"probe {probe + 1}: {text}\nhidden state {state}: {row[state]:.3f}" for state in states)
        series.append(Series(f"probe {probe + 1}", states, list(row), style=probe, hover=hover, probes=(ALL, probe)))
    early = max(1, (len(states) - 1) // 3)
    top, bottom = int(c[:, early].argmax()), int(c[:, early].argmin())
    summary = (
        f"After block {early}, the similarity is highest for probe {top + 1} ({c[top, early]:.2f}) and lowest for "
        f"probe {bottom + 1} ({c[bottom, early]:.2f}). {_tones(score, early)}"
    ).strip()
    return _similarity_figure("Layer similarity, every probe", "1a", score, series, summary)


def _tones(score: Score, layer: int) -> str:
    """Positive against negative probes, where their tasks say which they are."""
    means = []
    for tone in ("positive", "negative"):
        of_tone = [number for number, probe in enumerate(score.probes) if probe.task and tone in probe.task]
        if not of_tone:
            return ""
        means.append(score.anatomy.layer_similarity[of_tone, layer].mean())
    return f"There the mean of the positive probes is {means[0]:.2f}, of the negative ones {means[1]:.2f}."


def _listed(names: Iterable[str]) -> str:
    neurons = list(names)
    more = len(neurons) - LISTED
    return ", ".join(neurons[:LISTED]) + (f" and {more:,} more" if more > 0 else "") if neurons else "–"


def _strong_list(score: Score, strong: Strong, notes: tuple[str, ...]) -> Figure:
    rows = []
    for layer, mask in enumerate(strong.masks):
        count = mask.sum(axis=0)
        always = np.flatnonzero(count == len(mask))
        some = np.flatnonzero((count > 0) & (count < len(mask)))
        cells = (_listed(map(str, always)), _listed(f"{neuron} ({count[neuron]})" for neuron in some))
        rows.append(Row((str(layer), f"{len(always) + len(some):,}", *cells), (ALL,), (ALL, layer)))
        for probe, strong_here in enumerate(mask):
            parts = (strong_here & (count == len(mask)), strong_here & (count < len(mask)))
            listed = (_listed(map(str, np.flatnonzero(part))) for part in parts)
            rows.append(Row((str(layer), f"{strong_here.sum():,}", *listed), (probe,), (ALL, layer)))
    shared = sum(int(mask.all(axis=0).sum()) for mask in strong.masks)
    full, total = int(np.argmax(strong.counts)), sum(score.widths)
    summary = (
        f"{counted(sum(strong.counts), 'neuron')} of {total:,} ({percent(sum(strong.counts) / total)}) with a "
        f"{strong.words} for "
        f"one probe at least, {shared:,} for every probe. Layer {full} has most, {strong.counts[full]:,}. "
        f"In brackets: for how many of the {len(score.probes)} probes."
    )
    headings = ("layer", "strong", "for every probe", "for some probes")
    return Figure(
        topic="Strong neurons, listed",
        number="3a" if score.rule == "gpt2" else "2a",
        source=score.label,
        parts=(TextTable(headings, tuple(rows), numeric=frozenset((0, 1))),),
        summary=summary,
        notes=notes,
    )


def _overlap(score: Score, strong: Strong, notes: tuple[str, ...]) -> Figure:
    whole = np.concatenate(strong.masks, axis=1)
    sheets = [_sheet(whole, (ALL,)), *(_sheet(mask, (layer,)) for layer, mask in enumerate(strong.masks))]
    labels = tuple(str(probe + 1) for probe in range(len(whole)))
    return Figure(
        topic="Strong neurons, overlap",
        number="3a" if score.rule == "gpt2" else "2a",
        own_title="Strong neurons, overlap between probes",
        source=score.label,
        parts=(HeatMap(labels, "probe", "common ÷ all of both", tuple(sheets)),),
        summary=_overlap_summary(score, strong),
        notes=notes,
    )


def _sheet(mask: np.ndarray, layers: tuple[int, ...]) -> Sheet:
    """Jaccard indices of the strong sets of all pairs of probes; NaN where both are empty. mask: (P, n)."""
    counts = mask.astype(np.int64)
    common = counts @ counts.T
    union = counts.sum(axis=1)[:, None] + counts.sum(axis=1)[None] - common
    values = np.where(union > 0, common / np.maximum(union, 1), np.nan)
    hover = tuple(
        tuple(
            f"probes {row + 1} and {column + 1}\n{common[row, column]:,} common of {union[row, column]:,} strong"
            for column in range(len(mask))
        )
        for row in range(len(mask))
    )
    return Sheet(values, hover, layers)


def _overlap_summary(score: Score, strong: Strong) -> str:
    if len(score.probes) < 2:
        return "With a single probe there is nothing to compare."
    overall, _ = strong_agreement(strong.anatomy)
    if overall is None:
        return "No probe has a strong neuron, so that there is nothing to compare."
    by_layer = {layer: strong_agreement(strong.anatomy, [layer])[0] for layer in range(len(score.widths))}
    known = {layer: share for layer, share in by_layer.items() if share is not None}
    low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    chance = ""
    if score.summary.jaccard_chance is not None and not strong.substitute:
        chance = f"; as many neurons drawn at random would share {percent(score.summary.jaccard_chance)}"
    return (
        f"Two probes share {percent(overall)} of their strong neurons on average (common neurons ÷ all that are strong "
        f"for either){chance}. They agree most in layer {high} ({percent(known[high])}) and least in layer {low} "
        f"({percent(known[low])})."
    )
