"""Find the FFN of every layer in an ONNX graph by its structure, whatever exported or fused it.

An FFN is a product with a stored matrix (hidden d to n neurons), point-wise operators, and a product with a stored
matrix back to d whose result is added to a residual. That addition tells it from poolers and classification heads,
which are two products with an activation between them as well.
"""

from dataclasses import dataclass

import numpy as np

from anatomy_export.exporter.onnx_graph import MICROSOFT, MOST_STEPS, Constant, Graph, Use, attribute, operator
from anatomy_export.exporter.onnx_sizes import width_reader
from anatomy_export.exporter.onnx_tensors import FLOAT_TYPES

MS = f"{MICROSOFT}."
PASSING = {"Identity", "Cast", "CastLike", "Reshape", "Transpose", "Dropout"}
NONLINEAR = {
    "Erf", "Tanh", "Sigmoid", "Relu", "Gelu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "HardSwish", "Mish",
    "Swish", f"{MS}Gelu", f"{MS}BiasGelu", f"{MS}FastGelu", f"{MS}QuickGelu",
}  # fmt: skip
POINTWISE = NONLINEAR | {"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Exp", "Reciprocal", "Abs", "Max", "Min"}
WITH_BIAS = {"Add": (0, 1), f"{MS}BiasGelu": (1,), f"{MS}FastGelu": (1,)}
SKIP_NORMS = (f"{MS}SkipLayerNormalization", f"{MS}SkipSimplifiedLayerNormalization")
PRODUCTS = ("MatMul", "Gemm", f"{MS}FusedMatMul")
QUANTISED = ("MatMulInteger", "QLinearMatMul", "DequantizeLinear", f"{MS}QAttention", f"{MS}MatMulNBits")


@dataclass(frozen=True)
class Product:
    """A product of a computed value with a stored matrix: `shape` is (in, out), `flipped` where (out, in) is stored."""

    node: int
    weight: Constant
    shape: tuple[int, int]
    flipped: bool
    transposed_data: bool


@dataclass(frozen=True)
class Ffn:
    """One layer's FFN. `up_bias` and `down_bias` are inputs of nodes; `residual` is the node that adds the residual;
    `shapes` maps every Reshape that names its width to where it does; `inner` every value between the products to the
    axis of its neurons, counted from the end."""

    name: str
    up: Product
    down: Product
    up_bias: Use | None
    down_bias: Use | None
    residual: int
    shapes: dict[int, Use]
    inner: dict[str, int]
    found_as: str

    @property
    def width(self) -> int:
        return self.up.shape[1]

    @property
    def hidden(self) -> int:
        return self.up.shape[0]


@dataclass(frozen=True)
class Refusal:
    """What looks like an FFN but cannot be cut, and why. `node` is its last product; `in_residual`: what that gives is
    added to the residual, as it is in a layer and not in a head."""

    name: str
    reason: str
    node: int
    in_residual: bool = False


class _NotAnFfn(Exception):
    """The product is no down-projection of an FFN."""


class _CannotCut(Exception):
    """An FFN, but one whose neurons cannot be told apart from something else."""


def find_ffns(graph: Graph) -> list[Ffn | Refusal]:
    """The FFNs of a graph in topological order, with those that cannot be cut."""
    found: list[Ffn | Refusal] = []
    for index, node in enumerate(graph.nodes):
        down = as_product(graph, index)
        if down is None:
            continue
        try:
            found.append(_Search(graph, down).ffn())
        except _NotAnFfn:
            continue
        except _CannotCut as reason:
            found.append(Refusal(node.name or node.output[0], str(reason), index))
    return found


def as_product(graph: Graph, index: int) -> Product | None:
    """The node as a product with a stored matrix on its right; None where it is none."""
    node = graph.nodes[index]
    kind = operator(node)
    if kind not in PRODUCTS or len(node.input) < 2 or not node.output:
        return None
    weight = graph.constant(node.input[1])
    if weight is None or len(weight.shape) != 2 or graph.constant(node.input[0]) is not None:
        return None
    if weight.tensor.data_type not in FLOAT_TYPES:
        return None
    if any(attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return None
    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        return None
    flipped = weight.flipped != bool(attribute(node, "transB", 0))
    rows, columns = weight.tensor.dims
    shape = (columns, rows) if flipped else (rows, columns)
    return Product(index, weight, shape, flipped, bool(attribute(node, "transA", 0)))


class _Search:
    """From a down-projection back to its up-projection."""

    def __init__(self, graph: Graph, down: Product):
        self.graph, self.down = graph, down
        self.up: Product | None = None
        self.inner: dict[str, int] = {}
        self.kinds: dict[int, str] = {}
        self.biases: list[Use] = []
        self.shapes: dict[int, Use] = {}
        self.shaped_by: list[str] = []
        self.doubts: list[str] = []

    def ffn(self) -> Ffn:
        node = self.graph.nodes[self.down.node]
        self._walk_back(node.input[0], -2 if self.down.transposed_data else -1)
        up = self.up
        if up is None or not NONLINEAR & set(self.kinds.values()):
            raise _NotAnFfn
        if up.shape != self.down.shape[::-1]:
            raise _NotAnFfn
        down_bias, residual = self._to_the_residual()
        if self.doubts:
            raise _CannotCut(self.doubts[0])
        self._check_nothing_leaks()
        self._check_sizes()
        return Ffn(
            name=node.name or node.output[0],
            up=up,
            down=self.down,
            up_bias=self._up_bias(up),
            down_bias=down_bias,
            residual=residual,
            shapes=self.shapes,
            inner=self.inner,
            found_as=self._description(up),
        )

    def _walk_back(self, name: str, axis: int) -> None:
        """Follow `name` and all that it is computed from, neurons on `axis`, until the up-projection."""
        left = [(name, axis)]
        while left:
            name, axis = left.pop()
            if self.inner.setdefault(name, axis) != axis or len(self.inner) > MOST_STEPS:
                raise _NotAnFfn
            if name not in self.graph.producer:
                raise _NotAnFfn
            index = self.graph.producer[name]
            product = as_product(self.graph, index)
            if product is not None:
                self._reached(product, axis)
            elif index not in self.kinds:
                left += self._inputs(index, axis)

    def _reached(self, product: Product, axis: int) -> None:
        if axis != -1:
            raise _NotAnFfn
        if self.up is not None and self.up.node != product.node:
            self.doubts.append("two products feed its activation (a gated FFN?)")
        self.up = self.up or product

    def _inputs(self, index: int, axis: int) -> list[tuple[str, int]]:
        """The computed inputs of a point-wise node, each with the axis of its neurons."""
        node, kind = self.graph.nodes[index], operator(self.graph.nodes[index])
        if kind not in POINTWISE and kind not in PASSING:
            raise _NotAnFfn
        self.kinds[index] = kind
        if kind == "Transpose":
            return [(node.input[0], _before_transpose(attribute(node, "perm", [1, 0]), axis))]
        if kind == "Reshape":
            self._note_reshape(index, axis)
        if kind in PASSING:
            return [(node.input[0], axis)]
        computed = []
        for position, name in enumerate(node.input):
            use = Use(index, position)
            if name and not self._is_scalar(name, use) and not self._note_bias(use, name, axis):
                computed.append((name, axis))
        return computed

    def _is_scalar(self, name: str, use: Use | None = None, depth: int = 8) -> bool:
        """One number, stored or computed from such; the bias of the only neuron is none."""
        found = self.graph.constant(name)
        if found is not None:
            only_neuron = self.down.shape[0] == 1 and len(found.shape) > 0
            return found.size == 1 and not (only_neuron and use is not None and self._at_the_bias(use))
        if name not in self.graph.producer or not depth:
            return False
        node = self.graph.nodes[self.graph.producer[name]]
        inputs = node.input[:1] if operator(node) in ("CastLike", "Cast") else node.input
        known = operator(node) in POINTWISE | {"CastLike", "Cast", "Identity"}
        return known and len(inputs) > 0 and all(self._is_scalar(one, depth=depth - 1) for one in inputs)

    def _note_bias(self, use: Use, name: str, axis: int) -> bool:
        found = self.graph.constant(name)
        if found is None:
            return False
        shape = found.shape
        if len(shape) < -axis or shape[axis] != self.down.shape[0] or found.size != self.down.shape[0]:
            raise _NotAnFfn
        self.biases.append(use)
        return True

    def _note_reshape(self, index: int, axis: int) -> None:
        node = self.graph.nodes[index]
        if axis != -1 or len(node.input) < 2:
            raise _NotAnFfn
        sizes = self.graph.array(node.input[1])
        if sizes is not None:
            self._note_size(index, Use(index, 1), sizes)
            return
        maker = self.graph.producer.get(node.input[1])
        if maker is not None and operator(self.graph.nodes[maker]) == "Concat":
            last = len(self.graph.nodes[maker].input) - 1
            piece = self.graph.nodes[maker].input[last]
            sizes = self.graph.array(piece)
            if sizes is not None:
                self._note_size(index, Use(maker, last), sizes)
                return
            self.shaped_by.append(piece)
            return
        self.shaped_by.append(node.input[1])

    def _note_size(self, reshape: int, use: Use, sizes: np.ndarray) -> None:
        if sizes.ndim != 1 or not len(sizes) or sizes.dtype != np.int64:
            raise _NotAnFfn
        if sizes[-1] == self.down.shape[0]:
            self.shapes[reshape] = use
        elif sizes[-1] != -1 or np.any(sizes[:-1] > 1):
            self.doubts.append(f"a Reshape inside has the size {sizes.tolist()}")

    def _check_sizes(self) -> None:
        """Sizes computed while the model runs must come from the values that are cut."""
        for size in self.shaped_by:
            left, seen, asked = [size], set(), set()
            while left:
                name = left.pop()
                if name in seen or name not in self.graph.producer:
                    continue
                seen.add(name)
                node = self.graph.nodes[self.graph.producer[name]]
                if operator(node) == "Shape":
                    asked.add(node.input[0])
                else:
                    left += [one for one in node.input if one]
            if not asked or not asked <= self.inner.keys():
                raise _CannotCut(f"a Reshape inside takes its size from '{size}', which the cut would not change")

    def _up_bias(self, up: Product) -> Use | None:
        node = self.graph.nodes[up.node]
        own = Use(up.node, 2) if len(node.input) > 2 and node.input[2] else None
        if own is not None:
            found = self.graph.constant(node.input[2])
            if found is None or found.size != up.shape[1] or found.shape[-1:] != (up.shape[1],):
                raise _CannotCut("the third input of its up-projection is no stored bias of one value a neuron")
        if not self.biases:
            return own
        if own or len(self.biases) > 1 or not self._at_the_bias(self.biases[0]):
            raise _CannotCut("its activation has values of its own for each neuron")
        return self.biases[0]

    def _at_the_bias(self, use: Use) -> bool:
        """Is this where a value is added to the up-projection's output as it is, but for its shape?"""
        node = self.graph.nodes[use.node]
        if use.input not in WITH_BIAS.get(operator(node), ()):
            return False
        name = node.input[1 - use.input]
        for _ in range(MOST_STEPS):
            index = self.graph.producer.get(name)
            if index is None:
                return False
            if as_product(self.graph, index) is not None:
                return True
            if operator(self.graph.nodes[index]) not in PASSING:
                return False
            name = self.graph.nodes[index].input[0]
        return False

    def _to_the_residual(self) -> tuple[Use | None, int]:
        """Follow the product to where it is added to the residual: the down-bias on the way, None without one, and the
        node that adds."""
        node = self.graph.nodes[self.down.node]
        bias = Use(self.down.node, 2) if len(node.input) > 2 and node.input[2] else None
        name = node.output[0]
        for _ in range(MOST_STEPS):
            uses = self.graph.uses[name]
            adding = [use for use in uses if self._adds_a_residual(use)]
            if adding:
                found = self._only_one(bias, self._skip_bias(adding[0]))
                if found is None:
                    self._check_no_bias_after(self.graph.nodes[adding[0].node].output[0])
                return found, adding[0].node
            if len(uses) != 1:
                raise _NotAnFfn
            use = uses[0]
            kind = operator(self.graph.nodes[use.node])
            if kind == "Add":
                bias = self._only_one(bias, Use(use.node, 1 - use.input))
            elif kind not in PASSING or kind == "Transpose" or use.input:
                raise _NotAnFfn
            name = self.graph.nodes[use.node].output[0]
        raise _NotAnFfn

    def _only_one(self, *uses: Use | None) -> Use | None:
        given = [use for use in uses if use is not None]
        if len(given) > 1:
            raise _CannotCut("two biases are added to its output")
        for use in given:
            found = self.graph.constant(self.graph.nodes[use.node].input[use.input])
            if found is None or found.size != self.down.shape[1] or found.shape[-1:] != (self.down.shape[1],):
                raise _CannotCut("the bias of its output is no stored vector")
        return given[0] if given else None

    def _adds_a_residual(self, use: Use) -> bool:
        node = self.graph.nodes[use.node]
        if operator(node) in SKIP_NORMS:
            return use.input < 2
        return operator(node) == "Add" and self.graph.constant(node.input[1 - use.input]) is None

    def _check_no_bias_after(self, name: str) -> None:
        """A missing bias is one of zeros that the exporter left out, unless it was moved to after the residual."""
        for use in self.graph.uses[name]:
            node = self.graph.nodes[use.node]
            if operator(node) == "Add" and self.graph.constant(node.input[1 - use.input]) is not None:
                raise _CannotCut("a stored vector is added after the residual, where its own bias is missing")

    def _skip_bias(self, use: Use) -> Use | None:
        node = self.graph.nodes[use.node]
        position = {SKIP_NORMS[0]: 4, SKIP_NORMS[1]: 3}.get(operator(node))
        if position is None or len(node.input) <= position or not node.input[position]:
            return None
        return Use(use.node, position)

    def _check_nothing_leaks(self) -> None:
        """Nothing but the FFN itself, and what asks for a shape, may see the values that become narrower."""
        inside = {*self.kinds, self.down.node}
        beside = [name for index in self.kinds for name in self.graph.nodes[index].output[1:] if name]
        for name in (*self.inner, *beside):
            others = [use.node for use in self.graph.uses[name] if use.node not in inside]
            others = [index for index in others if operator(self.graph.nodes[index]) != "Shape"]
            if others or self.graph.escapes(name):
                where = f"node '{self.graph.nodes[others[0]].name}'" if others else "the graph's output"
                raise _CannotCut(f"its value '{name}' is also used by {where}")
        for name, axis in self.inner.items():
            for use in self.graph.uses[name]:
                if operator(self.graph.nodes[use.node]) == "Shape":
                    self._check_width_stays(use.node, axis)

    def _check_width_stays(self, shape: int, axis: int) -> None:
        reader = width_reader(self.graph, shape, axis, inside=self.kinds.keys())
        if reader is not None:
            raise _CannotCut(f"its width, which the cut changes, is read by {reader}")

    def _description(self, up: Product) -> str:
        kinds = [self.kinds[index] for index in sorted(self.kinds) if self.kinds[index] in NONLINEAR]
        ends = [operator(self.graph.nodes[product.node]).removeprefix(MS) for product in (up, self.down)]
        return f"{ends[0]} · {'+'.join(dict.fromkeys(kind.removeprefix(MS) for kind in kinds))} · {ends[1]}"


def _before_transpose(perm, axis: int) -> int:
    """The axis of a Transpose's input, counted from the end, that becomes `axis` of its output."""
    if not 0 < -axis <= len(perm) or sorted(perm) != list(range(len(perm))):
        raise _NotAnFfn
    return perm[axis] - len(perm)
