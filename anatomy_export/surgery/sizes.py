"""Sizes that are computed while the model runs: who reads an FFN's width, which a cut changes, and who another size."""

from collections.abc import Collection

import numpy as np
from onnx import NodeProto

from anatomy_export.surgery.graph import MOST_STEPS, Graph, attribute, label, operator

SAME = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Flatten", "Reshape"}
ARRANGING = SAME | {"Concat", "Gather", "Slice"}
Flags = list[bool] | None


def width_reader(graph: Graph, shape: int, axis: int, *, inside: Collection[int]) -> str | None:
    """The node that uses the size which the Shape node `shape` gives of its input's `axis` (from the end), in words;
    None where that only shapes values in the nodes `inside`.

    A size is followed element by element, as far as that can be told: a vector's flags say which of its elements are
    the width, None that any may be.
    """
    left: list[tuple[str, Flags]] = [(graph.nodes[shape].output[0], _read(graph, graph.nodes[shape], axis))]
    for _ in range(MOST_STEPS):
        if not left:
            return None
        name, flags = left.pop()
        if flags is not None and not any(flags):
            continue
        if graph.escapes(name):
            return "the graph's output" if name in graph.outputs else "a nested graph"
        for use in graph.uses[name]:
            node = graph.nodes[use.node]
            kind = operator(node)
            if kind == "Reshape" and use.input == 1 and use.node in inside:
                continue
            if kind not in ARRANGING or (use.input and kind != "Concat"):
                return f"{node.op_type} '{label(node)}'"
            left.append((node.output[0], _arranged(graph, node, flags, axis)))
    return f"more than {MOST_STEPS} nodes"


def foreign_size(graph: Graph, size: str, inner: Collection[str]) -> bool:
    """Does the value `size` come from the shapes of others than the values `inner`, or of none?"""
    left, seen, asked = [size], set(), set()
    while left:
        name = left.pop()
        maker = graph.maker(name)
        if name in seen or maker is None:
            continue
        seen.add(name)
        if operator(maker) == "Shape":
            asked.add(maker.input[0])
        else:
            left += filter(None, maker.input)
    return not asked or not asked.issubset(inner)


def _read(graph: Graph, node: NodeProto, axis: int) -> Flags:
    """Which elements of what a Shape node gives are the width."""
    rank = graph.ranks.get(node.input[0])
    if rank is None:
        return None
    flags = [index == rank + axis for index in range(rank)]
    return flags[slice(attribute(node, "start", 0), attribute(node, "end", None))]


def _arranged(graph: Graph, node: NodeProto, flags: Flags, axis: int) -> Flags:
    """Which elements of an arranging node's output are the width, by those of its first input."""
    kind = operator(node)
    if kind in SAME:
        return flags
    if kind == "Gather" and (index := graph.array(node.input[1])) is not None:
        if flags is not None:
            return [flags[element] for element in index.reshape(-1)]
        return None if np.any((index >= 0) | (index == axis)) else [False]
    if kind == "Slice" and flags is not None and len(node.input) > 2:
        parts = [graph.array(name) for name in (*node.input[1:3], *node.input[4:5])]
        bounds = [int(part.reshape(-1)[0]) for part in parts if part is not None and part.size == 1]
        return flags[slice(*bounds)] if len(bounds) == len(parts) else None
    return None
