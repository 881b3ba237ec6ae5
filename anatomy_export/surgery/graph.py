"""Who makes and who uses each value of an ONNX graph, and which values are constants."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from math import prod

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.onnx_tensors import (
    FLOAT_TYPES,
    is_external,
    parts,
    small_array,
    without_large_tensors,
)
from anatomy_export.surgery.operators import ELEMENTWISE, FUSED_MATMUL, GEMMS, PASSING, SKIP_NORMS, STANDARD

MOST_STEPS = 64
SMALL = 64
OF_SAME_RANK = (ELEMENTWISE | PASSING | {*SKIP_NORMS, "MatMul", FUSED_MATMUL, "LayerNormalization"}) - {"Reshape"}
CASTS = (*FLOAT_TYPES, TensorProto.INT64)


def operator(node: NodeProto) -> str:
    """The operator's name, with "com.microsoft." before ONNX Runtime's own and the domain before any other."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def label(node: NodeProto) -> str:
    """What a message calls a node: its name, else that of its first output."""
    return node.name or node.output[0]


def attribute(node: NodeProto, name: str, default):
    """An attribute's value, or the default where the node has none."""
    entry = next((entry for entry in node.attribute if entry.name == name), None)
    return default if entry is None else onnx.helper.get_attribute_value(entry)


def through_transpose(node: NodeProto, axis: int, *, back: bool = False) -> int | None:
    """The axis that `axis` of a Transpose's input becomes, or the other way `back`; both counted from the end. None
    where there is none."""
    perm = list(attribute(node, "perm", [1, 0]))
    if not 0 < -axis <= len(perm) or sorted(perm) != list(range(len(perm))):
        return None
    return (perm[axis] if back else perm.index(len(perm) + axis)) - len(perm)


@dataclass(frozen=True)
class Use:
    """A value at a node's input."""

    node: int
    input: int


@dataclass(frozen=True)
class Constant:
    """A stored tensor as a node sees it: `name` is where it is stored, `flipped` where a Transpose lies between,
    `cast` to which type by a Cast."""

    name: str
    tensor: TensorProto
    flipped: bool = False
    cast: int | None = None

    @property
    def data_type(self) -> int:
        return self.tensor.data_type if self.cast is None else self.cast

    @property
    def shape(self) -> tuple[int, ...]:
        dims = tuple(self.tensor.dims)
        return dims[::-1] if self.flipped else dims

    @property
    def size(self) -> int:
        return prod(self.tensor.dims)

    def along(self, axis: int) -> int:
        """Its size on an axis counted from the end, 1 where it has no such axis and is broadcast over it."""
        return self.shape[axis] if len(self.shape) >= -axis else 1


class Graph:
    """The main graph of a model, its nodes by index."""

    def __init__(self, model: onnx.ModelProto):
        self.proto = model.graph
        self._model = model
        self.nodes = list(model.graph.node)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        self.producer: dict[str, int] = {}
        self.uses: dict[str, list[Use]] = defaultdict(list)
        self.captured: set[str] = set()
        self._constants: dict[str, Constant | None] = {}
        for index, node in enumerate(self.nodes):
            for name in node.output:
                self.producer[name] = index
            for position, name in enumerate(node.input):
                if name:
                    self.uses[name].append(Use(index, position))
            self.captured |= _names_inside(node)

    def escapes(self, name: str) -> bool:
        """Is the value an output of the graph, or used in a graph nested in it?"""
        return name in self.outputs or name in self.captured

    def maker(self, name: str) -> NodeProto | None:
        """The node that computes a value; None for an input of the graph and an initializer."""
        return self.nodes[self.producer[name]] if name in self.producer else None

    def origin(self, name: str) -> int | None:
        """The node that computes a value, seen through those that only pass it on; None for an input of the graph."""
        for _ in range(MOST_STEPS):
            index = self.producer.get(name)
            if index is None or operator(self.nodes[index]) not in PASSING:
                return index
            name = self.nodes[index].input[0]
        return None

    def value_at(self, use: Use) -> str:
        """The name of the value that is used."""
        return self.nodes[use.node].input[use.input]

    def constant_at(self, use: Use) -> Constant | None:
        """The stored tensor behind a node's input; None where that is computed."""
        return self.constant(self.value_at(use))

    def constant(self, name: str) -> Constant | None:
        """The stored tensor behind a value, through Identity, Cast and Transpose; None where it is computed."""
        if name not in self._constants:
            self._constants[name] = self._constant(name)
        return self._constants[name]

    def _constant(self, name: str) -> Constant | None:
        flipped, cast = False, None
        for _ in range(MOST_STEPS):
            if name in self.initializers:
                return Constant(name, self.initializers[name], flipped, cast)
            node = self.maker(name)
            if node is None:
                return None
            kind = operator(node)
            if kind == "Constant":
                tensor = constant_tensor(node)
                return None if tensor is None else Constant(name, tensor, flipped, cast)
            if kind == "Transpose" and list(attribute(node, "perm", [1, 0])) == [1, 0]:
                flipped = not flipped
            elif kind == "Cast" and attribute(node, "to", 0) in CASTS:
                cast = attribute(node, "to", 0) if cast is None else cast
            elif kind != "Identity":
                return None
            name = node.input[0]
        return None

    @cached_property
    def computed(self) -> set[str]:
        """Values that depend on the graph's inputs by more than their shapes; the range that a dynamic quantisation
        takes from a value counts as none."""
        computed = {value.name for value in self.proto.input} - self.initializers.keys()
        for node in self.nodes:
            kind = operator(node)
            if kind not in ("Shape", "Size") and not computed.isdisjoint(node.input):
                computed.update(node.output[:1] if kind == "DynamicQuantizeLinear" else node.output)
        return computed - {""}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The number of axes of every value of which it can be told."""
        try:
            inferred = onnx.shape_inference.infer_shapes(without_large_tensors(self._model), data_prop=True).graph
        except Exception:  # a graph that is not valid: what it says itself
            inferred = self.proto
        shapes = {
            value.name: value.type.tensor_type.shape.dim
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
            if value.type.tensor_type.HasField("shape")
        }
        ranks = {name: len(dims) for name, dims in shapes.items()}
        for node in self.nodes:  # behind ONNX Runtime's own operators, of which shape inference knows nothing
            given = [ranks.get(name) for name in node.input if name and self.constant(name) is None]
            if operator(node) in GEMMS:
                ranks[node.output[0]] = 2
            elif operator(node) == "Reshape" and (sizes := shapes.get(node.input[1])) and sizes[0].dim_value:
                ranks[node.output[0]] = sizes[0].dim_value
            elif operator(node) in OF_SAME_RANK and given and None not in given:
                ranks.setdefault(node.output[0], max(rank for rank in given if rank is not None))
        return ranks

    def array(self, name: str) -> np.ndarray | None:
        """A constant of at most `SMALL` elements; None where there is none. Under an Unsqueeze it is a vector."""
        node = self.maker(name)
        if node is not None and operator(node) == "Unsqueeze":
            inner = self.array(node.input[0])
            return None if inner is None else inner.reshape(-1)
        constant = self.constant(name)
        if constant is None or constant.size > SMALL or is_external(constant.tensor):
            return None
        array = small_array(constant.tensor)
        return array.T if constant.flipped else array


def sort_nodes_(graph: GraphProto) -> None:
    """Put the nodes of a graph into an order in which each stands after what it uses; a file may have any.

    Raises:
        AnatomyError: nodes use each other's values in a circle.
    """
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    needed = [{producer[name] for name in names_used(node) if name in producer} for node in graph.node]
    if all(max(before, default=-1) < index for index, before in enumerate(needed)):
        return
    sorter = TopologicalSorter(dict(enumerate(needed)))
    try:
        sorter.prepare()
    except CycleError as error:
        raise AnatomyError(
            f"node '{label(graph.node[error.args[1][0]])}' uses a value that is computed from its own; "
            "next step: export the model again"
        ) from error
    ready: list[int] = []
    order: list[int] = []
    while sorter.is_active():
        for index in sorter.get_ready():
            heappush(ready, index)
        order.append(heappop(ready))
        sorter.done(order[-1])
    set_nodes_(graph, [graph.node[index] for index in order])


def set_nodes_(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Give a graph other nodes, some of its own among them."""
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def constant_tensor(node: NodeProto) -> TensorProto | None:
    """What a Constant node holds; None for text and sparse values."""
    for entry in node.attribute:
        if entry.name == "value":
            return entry.t
        if entry.name in ("value_float", "value_floats", "value_int", "value_ints"):
            dtype = np.float32 if "float" in entry.name else np.int64
            return onnx.numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(entry), dtype))
    return None


def names_used(node: NodeProto) -> set[str]:
    """Names of the values that a node reads, and the graphs nested in it."""
    return {name for name in node.input if name} | _names_inside(node)


def _names_inside(node: NodeProto) -> set[str]:
    """Names that the graphs nested in a node use."""
    names: set[str] = set()
    for graph in parts(node, GraphProto):
        names |= {value.name for value in graph.output}
        names |= {name for inner in graph.node for name in inner.input}
    return names
