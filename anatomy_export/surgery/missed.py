"""What looks like an FFN but was not read as one: named, so that no layer is passed over in silence.

Such is a product with a stored matrix, in whatever operator, that is added to the residual and whose input comes from
other such products alone, by operators of which one is not linear. Attention is none: two computed values are
multiplied there. Poolers and heads are none: nothing is added to what they give.
"""

import heapq
from dataclasses import dataclass, replace
from math import prod

from onnx import NodeProto, TensorProto

from anatomy_export.core.onnx_tensors import FLOAT_TYPES, parts
from anatomy_export.surgery.ffn import Ffn, Refusal
from anatomy_export.surgery.graph import Graph, attribute, constant_tensor, label, operator
from anatomy_export.surgery.operators import MICROSOFT, PASSING

MOST_VALUES = 256
PRODUCT_PARTS = ("MatMul", "Gemm", "Conv", "Einsum")
ADDING_PARTS = ("Add", "Sum", "Skip")
MIXING = {"Softmax", "LSTM", "GRU", "RNN", "Scan", "Loop", "If", "CumSum"}
EXPERTS = (f"{MICROSOFT}.MoE", f"{MICROSOFT}.QMoE")
STRUCTURAL = PASSING | {
    "Squeeze", "Unsqueeze", "Flatten", "Concat", "Split", "Slice", "Gather", "Expand", "Tile", "Pad", "Where",
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
}  # fmt: skip
LINEAR = STRUCTURAL | {"Add", "Sub", "Sum", "Neg"}


def with_missed(graph: Graph, entries: list[Ffn | Refusal]) -> list[Ffn | Refusal]:
    """`entries` with what looks like an FFN and is not among them, each in its place; every refusal says whether it is
    a layer's."""
    flow = _Flow(graph)
    known = {entry.node for entry in entries}
    merged = [
        entry if isinstance(entry, Ffn) else replace(entry, in_residual=flow.joins_residual(entry.node))
        for entry in entries
    ]
    for index, node in enumerate(graph.nodes):
        reason = None if index in known else flow.missed(index)
        if reason is not None:
            merged.append(Refusal(label(node), reason, index, in_residual=True))
    return sorted(merged, key=lambda entry: entry.node)


@dataclass(frozen=True)
class _Source:
    """What a product's input is computed from: products with stored matrices, and the nodes between."""

    products: tuple[int, ...]
    between: tuple[int, ...]


class _Flow:
    """Which values are computed from which, and which nodes are products with a stored matrix."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def missed(self, index: int) -> str | None:
        """Why the node, which looks like the end of an FFN, is none that can be cut; None where it does not look so."""
        node = self.graph.nodes[index]
        if operator(node) in EXPERTS:
            return "it is a mixture of experts in one operator"
        if any(map(self._is_matrix, parts(node, NodeProto))):
            return f"the graphs nested in its {node.op_type} are not searched"
        if not self._is_product(index):
            return None
        source = self._source(index)
        if source is None or not any(map(self._is_nonlinear, (*source.between, *source.products))):
            return None
        if not self._fits(index, source) or not self.joins_residual(index):
            return None
        return self._reason(index, source)

    def _is_matrix(self, node: NodeProto) -> bool:
        return any(part in node.op_type for part in PRODUCT_PARTS)

    def _is_product(self, index: int) -> bool:
        node = self.graph.nodes[index]
        return self._is_matrix(node) and self._stored(node) is not None and bool(self._inputs(index))

    def _inputs(self, index: int) -> list[str]:
        return [name for name in self.graph.nodes[index].input if name in self.graph.computed]

    def _stored(self, node: NodeProto) -> TensorProto | None:
        """The largest stored tensor of two axes or more that a node's inputs hold, whatever it is stored as."""
        left = self._fixed(node)
        stored: list[TensorProto] = []
        for _ in range(MOST_VALUES):
            if not left:
                break
            name = left.pop()
            tensor, maker = self.graph.initializers.get(name), self.graph.maker(name)
            if tensor is None and maker is not None:
                tensor = constant_tensor(maker)
                left += self._fixed(maker)
            if tensor is not None and len(tensor.dims) > 1:
                stored.append(tensor)
        return max(stored, key=lambda tensor: prod(tensor.dims), default=None)

    def _fixed(self, node: NodeProto) -> list[str]:
        return [name for name in node.input if name and name not in self.graph.computed]

    def _source(self, index: int) -> _Source | None:
        """What feeds a product; None where that is more than other products, or values are mixed on the way."""
        graph, left = self.graph, self._inputs(index)[:1]
        seen: set[str] = set()
        products: set[int] = set()
        between: set[int] = set()
        while left:
            name = left.pop()
            if name in seen:
                continue
            seen.add(name)
            maker = graph.producer.get(name)
            if maker is None or len(seen) > MOST_VALUES:
                return None
            if self._is_product(maker):
                products.add(maker)
                continue
            if self._mixes(graph.nodes[maker]):
                return None
            between.add(maker)
            left += self._inputs(maker)
        return _Source(tuple(sorted(products)), tuple(sorted(between)))

    def _mixes(self, node: NodeProto) -> bool:
        return self._is_matrix(node) or node.op_type in MIXING or "Attention" in node.op_type

    def _is_nonlinear(self, index: int) -> bool:
        node = self.graph.nodes[index]
        if self._is_matrix(node):
            return "Gelu" in node.op_type or bool(attribute(node, "activation", b""))
        if operator(node) in ("Mul", "Div"):
            return len(set(self._inputs(index))) > 1
        return operator(node) not in LINEAR and "Normalization" not in node.op_type

    def _fits(self, index: int, source: _Source) -> bool:
        """Could the product lead back to the size that one of its source takes? Yes where sizes are not plain."""
        node = self.graph.nodes[index]
        stored = next((self.graph.initializers[name] for name in node.input if name in self.graph.initializers), None)
        if stored is None or len(stored.dims) != 2 or "Conv" in node.op_type:
            return True
        size = stored.dims[0] if attribute(node, "transB", 0) else stored.dims[1]
        sources = [self._stored(self.graph.nodes[product]) for product in source.products]
        return any(tensor is not None and (len(tensor.dims) != 2 or size in tensor.dims) for tensor in sources)

    def joins_residual(self, index: int) -> bool:
        """Is what the node gives added, value by value, to something that is computed beside it?"""
        graph = self.graph
        if self._is_product(index) and len(set(self._inputs(index))) > 1:
            return True
        reached = set(graph.nodes[index].output)
        left = [use.node for name in graph.nodes[index].output for use in graph.uses[name]]
        heapq.heapify(left)
        while left and len(reached) < MOST_VALUES:
            index = heapq.heappop(left)
            node = graph.nodes[index]
            if self._mixes(node) or node.output[0] in reached:
                continue
            beside = [name for name in self._inputs(index) if name not in reached]
            if beside and any(part in node.op_type for part in ADDING_PARTS):
                return True
            reached.update(node.output)
            for name in node.output:
                for use in graph.uses[name]:
                    heapq.heappush(left, use.node)
        return False

    def _reason(self, index: int, source: _Source) -> str:
        """The first thing that tells it from an FFN that can be cut; its nodes and weights by name."""
        nodes = self.graph.nodes
        for product in (*source.products, index):
            node = nodes[product]
            tensor = self._stored(node)
            where = f"{node.op_type} '{label(node)}' of '{tensor.name if tensor is not None else ''}'"
            if tensor is not None and tensor.data_type not in FLOAT_TYPES:
                return f"weights of its {where} are quantised (cut the float32 file, then quantise that)"
            scales = {name: attribute(node, name, 1.0) for name in ("alpha", "beta")}
            if set(scales.values()) != {1.0}:
                scaled = " and ".join(f"{name} {value:g}" for name, value in scales.items() if value != 1.0)
                return f"its {where} has {scaled}"
        if len(source.products) > 1:
            names = ", ".join(f"'{label(nodes[product])}'" for product in source.products)
            return f"{len(source.products)} products feed its activation (a gated FFN?): {names}"
        first = nodes[source.products[0]]
        between = [nodes[place] for place in source.between]
        split = next((node for node in between if node.op_type in ("Split", "Slice", "Gather")), None)
        if split is not None:
            return f"the {split.op_type} '{label(split)}' parts its neurons (a gated FFN?)"
        kinds = sorted({operator(nodes[place]) for place in (*source.products, *source.between, index)})
        return f"from '{label(first)}' on it is written as none that is known ({', '.join(kinds)})"
