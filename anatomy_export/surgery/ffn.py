"""Find the FFN of every layer in an ONNX graph by its structure, whatever exported or fused it.

An FFN is a product with a stored matrix (hidden d to n neurons), point-wise operators, and a product with a stored
matrix back to d whose result is added to a residual. That addition tells it from poolers and classification heads,
which are two products with an activation between them as well.
"""

from dataclasses import dataclass

import numpy as np

from anatomy_export.surgery.graph import MOST_STEPS, Graph, Use, attribute, operator
from anatomy_export.surgery.operators import (
    ELEMENTWISE,
    MS,
    NONLINEAR,
    OF_ONE_VALUE,
    PASSING,
    RESHAPING,
    WITH_BIAS,
)
from anatomy_export.surgery.product import Product, as_product
from anatomy_export.surgery.residual import CannotCutError, NotAnFfnError, find_residual, is_adapter
from anatomy_export.surgery.sizes import width_reader


@dataclass(frozen=True)
class Ffn:
    """One layer's FFN. `up_bias` and `down_bias` are inputs of nodes; `residual` is the node that adds the residual;
    `constants` maps every stored value of one for each neuron, `up_bias` among them, to the axis of the neurons;
    `shapes` every Reshape that names its width to where it does; `inner` every value between the products to the axis
    of its neurons. Axes are counted from the end. `twins` are FFNs elsewhere in the graph with the same weights."""

    name: str
    up: Product
    down: Product
    up_bias: Use | None
    down_bias: Use | None
    residual: int
    constants: dict[Use, int]
    shapes: dict[int, Use]
    inner: dict[str, int]
    found_as: str
    twins: tuple["Ffn", ...] = ()

    @property
    def places(self) -> tuple["Ffn", ...]:
        """Itself and its twins."""
        return (self, *self.twins)

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


def find_ffns(graph: Graph) -> list[Ffn | Refusal]:
    """The FFNs of a graph in topological order, with those that cannot be cut."""
    found: list[Ffn | Refusal] = []
    for index, node in enumerate(graph.nodes):
        down = as_product(graph, index)
        if down is None:
            continue
        try:
            found.append(_Search(graph, down).ffn())
        except NotAnFfnError:
            continue
        except CannotCutError as reason:
            found.append(Refusal(node.name or node.output[0], str(reason), index))
    return found


class _Search:
    """From a down-projection back to its up-projection."""

    def __init__(self, graph: Graph, down: Product):
        self.graph, self.down = graph, down
        self.up: Product | None = None
        self.inner: dict[str, int] = {}
        self.kinds: dict[int, str] = {}
        self.constants: dict[Use, int] = {}
        self.reshaped_by = ""
        self.nonlinear = False
        self.shapes: dict[int, Use] = {}
        self.shaped_by: list[str] = []
        self.doubts: list[str] = []

    def ffn(self) -> Ffn:
        node = self.graph.nodes[self.down.node]
        self._walk_back(node.input[self.down.data_input], self.down.in_axis)
        up = self.up
        if up is None or up.shape != self.down.shape[::-1]:
            raise NotAnFfnError
        if not (self.nonlinear or up.activation) and up.shape[1] < up.shape[0]:
            raise NotAnFfnError
        down_bias, residual = find_residual(self.graph, self.down)
        if self.doubts:
            raise CannotCutError(self.doubts[0])
        if is_adapter(self.graph, up, residual):
            raise CannotCutError("it stands inside a layer's residual branch, after another product (an adapter?)")
        self._check_is_plain(up)
        self._check_nothing_leaks()
        self._check_sizes()
        return Ffn(
            name=node.name or node.output[0],
            up=up,
            down=self.down,
            up_bias=self._up_bias(up),
            down_bias=down_bias,
            residual=residual,
            constants=self.constants,
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
                raise NotAnFfnError
            if name not in self.graph.producer:
                raise NotAnFfnError
            index = self.graph.producer[name]
            product = as_product(self.graph, index)
            if product is not None:
                self._reached(product, axis)
            elif index not in self.kinds:
                left += self._inputs(index, axis)

    def _reached(self, product: Product, axis: int) -> None:
        if axis != product.out_axis:
            raise NotAnFfnError
        if self.up is not None and self.up.node != product.node:
            self.doubts.append(
                "two products feed its activation (a gated FFN?)"
                if self.up.shape[0] == product.shape[0]
                else "a second product is added to its up-projection (LoRA that was not merged?)"
            )
            if self.up.shape[0] >= product.shape[0]:
                return
        self.up = product

    def _check_is_plain(self, up: Product) -> None:
        """Raise where a cut would be right only if nodes said something else."""
        for product in (up, self.down):
            if product.peculiarity:
                node = self.graph.nodes[product.node]
                where = f"{node.op_type} '{node.name or node.output[0]}' of '{product.weight.name}'"
                raise CannotCutError(f"its {where} {product.peculiarity}")
        if self.down.activation:
            raise CannotCutError(f"{self.down.activation} is applied to what its down-projection gives")
        if self.reshaped_by:
            raise CannotCutError(f"the operator {self.reshaped_by} stands between its products")
        if not (self.nonlinear or up.activation):
            raise CannotCutError("no activation stands between its products")

    def _inputs(self, index: int, axis: int) -> list[tuple[str, int]]:
        """The computed inputs of an elementwise node, each with the axis of its neurons."""
        node, kind = self.graph.nodes[index], operator(self.graph.nodes[index])
        if kind not in ELEMENTWISE and kind not in PASSING and kind not in RESHAPING:
            raise NotAnFfnError
        self.kinds[index] = kind
        if kind == "Transpose":
            return [(node.input[0], _before_transpose(attribute(node, "perm", [1, 0]), axis))]
        if kind == "Reshape":
            self._note_reshape(index, axis)
        if kind in RESHAPING:
            self.reshaped_by = kind
        if kind not in ELEMENTWISE:
            return [(node.input[0], axis)]
        computed = []
        for position, name in enumerate(node.input):
            if name and not self._note_constant(Use(index, position), name, axis) and not self._is_stored_scalar(name):
                computed.append((name, axis))
        self.nonlinear |= kind in NONLINEAR or (kind in ("Mul", "Div") and len(computed) > 1)
        return computed

    def _note_constant(self, use: Use, name: str, axis: int) -> bool:
        """Is this stored? What it holds of one for each neuron is noted; what is the same for all of them stays."""
        found = self.graph.constant(name)
        if found is None:
            return False
        width, along = self.down.shape[0], found.along(axis)
        if along == width > 1 or (width == 1 and found.shape and self._at_the_bias(use)):
            self.constants[use] = axis
        elif along != 1:
            raise NotAnFfnError
        return True

    def _is_stored_scalar(self, name: str) -> bool:
        """Is this computed from stored numbers alone? Only from one each can it be the same for all neurons."""
        left, sizes = [name], set()
        for _ in range(MOST_STEPS):
            if not left:
                break
            name = left.pop()
            found = self.graph.constant(name)
            if found is not None:
                sizes.add(found.size)
                continue
            node = self.graph.nodes[self.graph.producer[name]] if name in self.graph.producer else None
            if node is None or operator(node) not in ELEMENTWISE | OF_ONE_VALUE:
                return False
            left += node.input[:1] if operator(node) in OF_ONE_VALUE else [one for one in node.input if one]
        if left or not sizes:
            return False
        if sizes != {1}:
            self.doubts.append("a value of one for each neuron is computed while the model runs")
        return True

    def _note_reshape(self, index: int, axis: int) -> None:
        node = self.graph.nodes[index]
        if axis != -1 or len(node.input) < 2:
            raise NotAnFfnError
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
            raise NotAnFfnError
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
                raise CannotCutError(f"a Reshape inside takes its size from '{size}', which the cut would not change")

    def _up_bias(self, up: Product) -> Use | None:
        node = self.graph.nodes[up.node]
        own = Use(up.node, 2) if len(node.input) > 2 and node.input[2] else None
        if own is not None:
            found = self.graph.constant(node.input[2])
            if found is None or found.size != up.shape[1] or found.shape[-1:] != (up.shape[1],):
                raise CannotCutError("the third input of its up-projection is no stored bias of one value a neuron")
            self.constants[own] = -1
            return own
        biases = [use for use in self.constants if self._at_the_bias(use) and self._size(use) == up.shape[1]]
        if len(biases) > 1:
            raise CannotCutError("two biases are added to what its up-projection gives")
        return biases[0] if biases else None

    def _size(self, use: Use) -> int:
        found = self.graph.constant(self.graph.nodes[use.node].input[use.input])
        return 0 if found is None else found.size

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

    def _check_nothing_leaks(self) -> None:
        """Nothing but the FFN itself, and what asks for a shape, may see the values that become narrower."""
        inside = {*self.kinds, self.down.node}
        beside = [name for index in self.kinds for name in self.graph.nodes[index].output[1:] if name]
        for name in (*self.inner, *beside):
            others = [use.node for use in self.graph.uses[name] if use.node not in inside]
            others = [index for index in others if operator(self.graph.nodes[index]) != "Shape"]
            if any(as_product(self.graph, index) is not None for index in others):
                raise CannotCutError("a second product reads its neurons (LoRA that was not merged?)")
            if others or self.graph.escapes(name):
                where = f"node '{self.graph.nodes[others[0]].name}'" if others else "the graph's output"
                raise CannotCutError(f"its value '{name}' is also used by {where}")
        for name, axis in self.inner.items():
            for use in self.graph.uses[name]:
                if operator(self.graph.nodes[use.node]) == "Shape":
                    self._check_width_stays(use.node, axis)

    def _check_width_stays(self, shape: int, axis: int) -> None:
        reader = width_reader(self.graph, shape, axis, inside=self.kinds.keys())
        if reader is not None:
            raise CannotCutError(f"its width, which the cut changes, is read by {reader}")

    def _description(self, up: Product) -> str:
        kinds = [self.kinds[index] for index in sorted(self.kinds) if self.kinds[index] in NONLINEAR]
        kinds = [up.activation] * bool(up.activation) + kinds or ["Mul"]
        ends = [operator(self.graph.nodes[product.node]).removeprefix(MS) for product in (up, self.down)]
        return f"{ends[0]} · {'+'.join(dict.fromkeys(kind.removeprefix(MS) for kind in kinds))} · {ends[1]}"


def _before_transpose(perm, axis: int) -> int:
    """The axis of a Transpose's input, counted from the end, that becomes `axis` of its output."""
    if not 0 < -axis <= len(perm) or sorted(perm) != list(range(len(perm))):
        raise NotAnFfnError
    return perm[axis] - len(perm)
