"""FFNs that a graph computes at several places with the same stored weights: two towers, or layers that share."""

from collections import defaultdict
from dataclasses import replace

from anatomy_export.surgery.ffn import Ffn, Refusal
from anatomy_export.surgery.graph import Graph, Use, label


def join_twins(graph: Graph, entries: list[Ffn | Refusal]) -> list[Ffn | Refusal]:
    """The same, with FFNs of the same weights as one, where the first of them stood.

    Those whose matrices are used in another way elsewhere are refused: not all who read them would lose the same.
    """
    readers = _readers(graph)
    by_node = {node: entry for entry in entries if isinstance(entry, Ffn) for node in (entry.up.node, entry.down.node)}
    joined: list[Ffn | Refusal] = []
    for entry in entries:
        if not isinstance(entry, Ffn):
            joined.append(entry)
            continue
        matrices = {entry.up.weight.name, entry.down.weight.name}
        nodes = sorted(node for name in matrices for node in readers[name])
        reasons = [_difference(graph, entry, node, by_node.get(node)) for node in nodes]
        reasons += [f"'{name}' is used in a nested graph" for name in matrices & graph.captured]
        twins = {by_node[node].node: by_node[node] for node in nodes if node in by_node}
        if any(reasons):
            joined.append(Refusal(entry.name, next(filter(None, reasons)), entry.node, in_residual=True))
        elif entry is next(iter(twins.values())):
            joined.append(replace(entry, twins=tuple(twins.values())[1:]))
    return joined


def take_apart(entries: list[Ffn | Refusal]) -> list[Ffn | Refusal]:
    """The same with every FFN for itself again, in topological order."""
    places = [place for entry in entries for place in (entry.places if isinstance(entry, Ffn) else [entry])]
    apart = [replace(place, twins=()) if isinstance(place, Ffn) else place for place in places]
    return sorted(apart, key=lambda place: place.node)


def _readers(graph: Graph) -> dict[str, set[int]]:
    """The nodes that compute with each stored tensor; what only hands it on is none."""
    readers: dict[str, set[int]] = defaultdict(set)
    for index, node in enumerate(graph.nodes):
        if node.output and graph.constant(node.output[0]) is None:
            for constant in map(graph.constant, filter(None, node.input)):
                if constant is not None:
                    readers[constant.name].add(index)
    return readers


def _difference(graph: Graph, ffn: Ffn, node: int, other: Ffn | None) -> str:
    """Why an FFN cannot be cut together with the node, of the FFN `other` or of none, that reads one of its matrices;
    "" where it can."""
    if other is None:
        return f"it shares a matrix with '{label(graph.nodes[node])}', which is not cut"
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
    constants = [None if use is None else graph.constant_at(use) for use in uses]
    return [None if constant is None else constant.name for constant in constants]


def _reading(ffn: Ffn) -> list[tuple]:
    """How the nodes take the matrices."""
    return [
        (product.flipped, product.weight.flipped, product.weight.data_type, product.out_axis)
        for product in (ffn.up, ffn.down)
    ]
