"""The graph of strong neurons: layers from top to bottom, neighbours fully connected (the paper, figures 2 and 3)."""

from collections.abc import Iterator
from itertools import pairwise
from math import isqrt

import numpy as np

from anatomy_export.report.figure import ALL, Figure, Panel, Series
from anatomy_export.report.sources import Score
from anatomy_export.report.strong import Strong
from anatomy_export.report.wording import counted, percent

LINES, PROBE_LINES, MARKS = 400, 100, 1500


def strong_graph(score: Score, strong: Strong, notes: tuple[str, ...]) -> Figure:
    """All probes together, and each alone, at the same places."""
    unions = [np.flatnonzero(mask.any(axis=0)) for mask in strong.masks]
    drawn = [_spread(union, MARKS) for union in unions]
    places = [dict(zip(own.tolist(), _places(len(own)), strict=True)) for own in drawn]
    series = [*_edges(places, [set(own) for own in places], LINES, (ALL,))]
    for probe in range(len(score.tasks)):
        own = [{one for one in place if mask[probe, one]} for place, mask in zip(places, strong.masks, strict=True)]
        series += _edges(places, own, PROBE_LINES, (probe,))
    series += _marks(score, strong, places)
    layers = len(unions)
    panel = Panel(
        tuple(series),
        "neurons, in order of their numbers",
        "layer",
        y_ticks=tuple(str(layer) for layer in range(layers)),
        x_hidden=True,
        y_reversed=True,
        height=max(280, 44 * layers + 90),
    )
    return Figure(
        topic="Graph of strong neurons",
        number="3" if score.rule == "gpt2" else "2",
        title="Graph of strong neurons",
        source=score.label,
        parts=(panel,),
        summary=_summary(score, strong, [len(union) for union in unions]),
        notes=(*notes, *_limits(unions, drawn)),
    )


def _places(count: int) -> list[float]:
    """Centred, one apart, so that a funnel looks like one."""
    return [index - (count - 1) / 2 for index in range(count)]


def _spread(neurons: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of the neurons, evenly spread, with the first and the last."""
    if len(neurons) <= limit:
        return neurons
    return neurons[np.linspace(0, len(neurons) - 1, limit).round().astype(int)]


def _edges(places: list[dict[int, float]], chosen: list[set[int]], limit: int, probes) -> Iterator[Series]:
    for layer in range(len(places) - 1):
        ends = [np.array(sorted(chosen[layer + below]), dtype=int) for below in (0, 1)]
        upper, lower = ends if len(ends[0]) * len(ends[1]) <= limit else _both(ends, limit)
        x: list[float | None] = []
        y: list[float | None] = []
        for above in upper.tolist():
            for below in lower.tolist():
                x += [places[layer][above], places[layer + 1][below], None]
                y += [layer, layer + 1, None]
        if x:
            choice = (ALL, layer, layer + 1)
            yield Series("", x, y, draw="edges", in_legend=False, probes=probes, layers=choice)


def _both(ends: list[np.ndarray], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Fewer neurons of either layer, so that at most `limit` lines join them."""
    small, large = sorted(len(own) for own in ends)
    of_small = min(small, isqrt(limit))
    of_large = min(large, limit // of_small)
    if len(ends[0]) == small:
        return _spread(ends[0], of_small), _spread(ends[1], of_large)
    return _spread(ends[0], of_large), _spread(ends[1], of_small)


def _marks(score: Score, strong: Strong, places: list[dict[int, float]]) -> Iterator[Series]:
    most = max((len(place) for place in places), default=0)
    size = 9 if most <= 40 else 6 if most <= 150 else 4
    count = len(score.tasks)
    kinds = (("strong for every probe", 0, False), ("strong for some probes", 1, True))
    legend = [False, False]
    for layer, place in enumerate(places):
        around = (ALL, layer - 1, layer, layer + 1) if layer else (ALL, layer, layer + 1)
        mask, best = strong.masks[layer], score.anatomy.neuron_similarity[layer]
        frequency = mask.sum(axis=0)
        for kind, (label, style, open_) in enumerate(kinds):
            own = [one for one in place if (frequency[one] < count) == bool(kind)]
            if own:
                hover = tuple(_hover(layer, one, best[:, one], int(frequency[one])) for one in own)
                yield Series(
                    label,
                    [place[one] for one in own],
                    [layer] * len(own),
                    style,
                    "marks",
                    hover,
                    open_marks=open_,
                    mark_size=size,
                    in_legend=not legend[kind],
                    probes=(ALL,),
                    layers=around,
                )
                legend[kind] = True
        for probe in range(count):
            own = [one for one in place if mask[probe, one]]
            if own:
                hover = tuple(
                    f"layer {layer}, neuron {one}\nsimilarity {best[probe, one]:.3f} with probe {probe + 1}"
                    for one in own
                )
                yield Series(
                    f"probe {probe + 1}",
                    [place[one] for one in own],
                    [layer] * len(own),
                    0,
                    "marks",
                    hover,
                    mark_size=size,
                    in_legend=False,
                    probes=(probe,),
                    layers=around,
                )


def _hover(layer: int, neuron: int, similarity: np.ndarray, frequency: int) -> str:
    best = int(similarity.argmax())
    return (
        f"layer {layer}, neuron {neuron}\nsimilarity up to {similarity[best]:.3f} (probe {best + 1})\n"
        f"strong for {frequency} of {counted(len(similarity), 'probe')}"
    )


def _limits(unions: list[np.ndarray], drawn: list[np.ndarray]) -> tuple[str, ...]:
    notes = []
    pairs = [len(one) * len(other) for one, other in pairwise(unions)]
    if any(pair > LINES for pair in pairs):
        notes.append(
            f"All {sum(pairs):,} pairs of neighbouring strong neurons are connected; at most {LINES} lines between two "
            "layers are drawn, from neurons spread evenly over the layer."
        )
    if any(len(own) < len(union) for own, union in zip(drawn, unions, strict=True)):
        notes.append(f"At most {MARKS:,} neurons of a layer are drawn, spread evenly.")
    return tuple(notes)


def _summary(score: Score, strong: Strong, counts: list[int]) -> str:
    if not sum(counts):
        return f"No neuron has a {strong.words} for any probe, so that the graph is empty."
    listed = ", ".join(f"{count:,}" for count in counts)
    empty = [layer for layer, count in enumerate(counts) if not count]
    dangling = sum(
        int((mask & ~below.any(axis=1, keepdims=True)).any(axis=0).sum()) for mask, below in pairwise(strong.masks)
    )
    return (
        f"Neurons with a {strong.words}, from layer 0 down: {listed}; that is "
        f"{percent(sum(counts) / sum(score.widths))} of all. "
        + (f"Layers without any: {', '.join(map(str, empty))}. " if empty else "")
        + f"Dangling, that is with nothing strong in the layer below for one probe at least: {dangling:,}."
    )
