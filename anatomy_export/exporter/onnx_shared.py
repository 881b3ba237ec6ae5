"""FFNs that a graph computes at several places with the same stored weights: two towers, or layers that share."""

from collections import defaultdict
from dataclasses import replace

from anatomy_export.exporter.onnx_ffn import Ffn, Refusal
from anatomy_export.exporter.onnx_graph import Graph, Use


def join_twins(graph: Graph, found: list[Ffn | Refusal]) -> list[Ffn | Refusal]:
    """The same, with FFNs of the same weights as one, where the first of them stood.

    Those that share a part of their weights only are refused: they cannot lose the same neurons.
    """
    by_matrix: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(found):
        if isinstance(one, Ffn):
            for name in {one.up.weight.name, one.down.weight.name}:
                by_matrix[name].append(index)
    joined: list[Ffn | Refusal] = []
    for index, one in enumerate(found):
        if not isinstance(one, Ffn):
            joined.append(one)
            continue
        sharing = {*by_matrix[one.up.weight.name], *by_matrix[one.down.weight.name]}
        others = {other: found[other] for other in sorted(sharing - {index})}
        reason = next((text for other in others.values() if (text := _difference(graph, one, other))), "")
        if reason:
            joined.append(Refusal(one.name, reason, one.down.node, in_residual=True))
        elif not others or index < min(others):
            joined.append(replace(one, twins=tuple(other for other in others.values() if isinstance(other, Ffn))))
    return joined


def take_apart(found: list[Ffn | Refusal]) -> list[Ffn | Refusal]:
    """The same with every FFN for itself again, in topological order."""
    places = [place for one in found for place in (one.places if isinstance(one, Ffn) else [one])]
    apart = [replace(place, twins=()) if isinstance(place, Ffn) else place for place in places]
    return sorted(apart, key=lambda place: place.down.node if isinstance(place, Ffn) else place.node)


def _difference(graph: Graph, ffn: Ffn, other: Ffn | Refusal) -> str:
    """Why an FFN cannot be cut as another one is that shares one of its matrices; "" where it can."""
    if not isinstance(other, Ffn):
        return ""
    if (ffn.up.weight.name, ffn.down.weight.name) != (other.up.weight.name, other.down.weight.name):
        return f"it shares one of its two matrices with the FFN of '{other.name}'"
    if _vectors(graph, ffn) != _vectors(graph, other):
        return f"it shares its matrices, but not its biases, with the FFN of '{other.name}'"
    if _reading(ffn) != _reading(other):
        return f"it shares its matrices with the FFN of '{other.name}', which reads them in another way"
    return ""


def _vectors(graph: Graph, ffn: Ffn) -> list[str | None]:
    """The stored tensors beside the matrices, by name."""
    uses: list[Use | None] = [ffn.up_bias, ffn.down_bias, *ffn.constants]
    found = [None if use is None else graph.constant(graph.nodes[use.node].input[use.input]) for use in uses]
    return [None if constant is None else constant.name for constant in found]


def _reading(ffn: Ffn) -> list[tuple]:
    """How the nodes take the matrices."""
    products = (ffn.up, ffn.down)
    return [(one.flipped, one.weight.flipped, one.weight.data_type, one.out_axis) for one in products]
