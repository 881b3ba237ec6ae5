"""The graph of strong neurons: layers from top to bottom, neighbours fully connected (the paper, figures 2 and 3)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import isqrt

import numpy as np

from anatomy_export.paper.anatomy_summary import dangling_neurons
from anatomy_export.report.figure import ALL, Figure, Panel, Series
from anatomy_export.report.sources import Score
from anatomy_export.report.strong_neurons import Strong
from anatomy_export.report.wording import counted, percent

LINES, PROBE_LINES, MARKS = 400, 100, 1500


def strong_graph(score: Score, strong: Strong, notes: tuple[str, ...]) -> Figure:
    """All probes together, and each alone, at the same places."""
    unions = [np.flatnonzero(mask.any(axis=0)) for mask in strong.masks]
    places = [_places(_spread(union, MARKS)) for union in unions]
    series = [*_edges(places, [list(place) for place in places], LINES, (ALL,))]
    for probe in range(len(score.probes)):
        chosen = [
            [neuron for neuron in place if mask[probe, neuron]]
            for place, mask in zip(places, strong.masks, strict=True)
        ]
        series += _edges(places, chosen, PROBE_LINES, (probe,))
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
        source=score.label,
        parts=(panel,),
        summary=_summary(score, strong),
        notes=(*notes, *_limits(strong.counts)),
    )


def _places(neurons: np.ndarray) -> dict[int, float]:
    """Where each neuron of a layer stands: centred, one apart, so that a funnel looks like one."""
    return {neuron: index - (len(neurons) - 1) / 2 for index, neuron in enumerate(neurons.tolist())}


def _spread(neurons: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of the neurons, evenly spread, with the first and the last."""
    if len(neurons) <= limit:
        return neurons
    return neurons[np.linspace(0, len(neurons) - 1, limit).round().astype(int)]


def _edges(places: list[dict[int, float]], chosen: list[list[int]], limit: int, probes) -> Iterator[Series]:
    """Lines between the chosen neurons of neighbouring layers, at most `limit` between two."""
    for layer in range(len(places) - 1):
        ends = [np.array(chosen[layer + below], dtype=int) for below in (0, 1)]
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
    small, large = sorted(map(len, ends))
    of_small = min(small, isqrt(limit))
    of_large = min(large, limit // of_small)
    if len(ends[0]) == small:
        return _spread(ends[0], of_small), _spread(ends[1], of_large)
    return _spread(ends[0], of_large), _spread(ends[1], of_small)


def _marks(score: Score, strong: Strong, places: list[dict[int, float]]) -> Iterator[Series]:
    most = max(map(len, places), default=0)
    size = 9 if most <= 40 else 6 if most <= 150 else 4
    unnamed = {"strong for every probe", "strong for some probes"}
    for layer in range(len(places)):
        for series in _layer_marks(score, strong, layer, places[layer]):
            in_legend = series.label in unnamed
            unnamed.discard(series.label)
            yield replace(series, in_legend=in_legend, mark_size=size)


def _layer_marks(score: Score, strong: Strong, layer: int, place: dict[int, float]) -> Iterator[Series]:
    """The neurons of a layer: of all probes, those of every probe apart, then of each probe."""
    mask, similarity, count = strong.masks[layer], score.anatomy.neuron_similarity[layer], len(score.probes)
    frequency = mask.sum(axis=0)
    around = (ALL, layer - 1, layer, layer + 1) if layer else (ALL, layer, layer + 1)

    def marks(
        label: str, neurons: list[int], hover: Callable[[int], str], probe: int, some: bool = False
    ) -> Iterator[Series]:
        if neurons:
            yield Series(
                label,
                [place[neuron] for neuron in neurons],
                [layer] * len(neurons),
                int(some),
                "marks",
                tuple(map(hover, neurons)),
                open_marks=some,
                probes=(probe,),
                layers=around,
            )

    def of_all(neuron: int) -> str:
        best = int(similarity[:, neuron].argmax())
        return (
            f"layer {layer}, neuron {neuron}\nsimilarity up to {similarity[best, neuron]:.3f} (probe {best + 1})\n"
            f"strong for {frequency[neuron]} of {counted(count, 'probe')}"
        )

    def of_probe(probe: int, neuron: int) -> str:
        return f"layer {layer}, neuron {neuron}\nsimilarity {similarity[probe, neuron]:.3f} with probe {probe + 1}"

    yield from marks("strong for every probe", [neuron for neuron in place if frequency[neuron] == count], of_all, ALL)
    yield from marks(
        "strong for some probes", [neuron for neuron in place if frequency[neuron] < count], of_all, ALL, True
    )
    for probe in range(count):
        neurons = [neuron for neuron in place if mask[probe, neuron]]
        yield from marks(f"probe {probe + 1}", neurons, partial(of_probe, probe), probe)


def _limits(counts: list[int]) -> tuple[str, ...]:
    notes = []
    pairs = [above * below for above, below in pairwise(counts)]
    if any(pair > LINES for pair in pairs):
        notes.append(
            f"All {sum(pairs):,} pairs of neighbouring strong neurons are connected; at most {LINES} lines between two "
            "layers are drawn, from neurons spread evenly over the layer."
        )
    if any(count > MARKS for count in counts):
        notes.append(f"At most {MARKS:,} neurons of a layer are drawn, spread evenly.")
    return tuple(notes)


def _summary(score: Score, strong: Strong) -> str:
    counts = strong.counts
    if not sum(counts):
        return f"No neuron has a {strong.words} for any probe, so that the graph is empty."
    listed = ", ".join(f"{count:,}" for count in counts)
    empty = [layer for layer, count in enumerate(counts) if not count]
    dangling = sum(int(dangling_neurons(strong.anatomy, layer).sum()) for layer in range(len(counts)))
    return (
        f"Neurons with a {strong.words}, from layer 0 down: {listed}; that is "
        f"{percent(sum(counts) / sum(score.widths))} of all. "
        + (f"Layers without any: {', '.join(map(str, empty))}. " if empty else "")
        + f"Dangling, that is with nothing strong in the layer below for one probe at least: {dangling:,}."
    )
