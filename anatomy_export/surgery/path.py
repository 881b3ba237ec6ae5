"""What stands between the two products of an FFN, read from the second back to the first."""

from dataclasses import dataclass, field

import numpy as np

from anatomy_export.surgery.graph import MOST_STEPS, Graph, Use, operator, through_transpose
from anatomy_export.surgery.operators import ELEMENTWISE, NONLINEAR, OF_ONE_VALUE, PASSING, RESHAPING, WITH_BIAS
from anatomy_export.surgery.product import Product, as_product

Step = tuple[str, int]


@dataclass
class ActivationPath:
    """The nodes and values between `up` and `down`; axes, of the neurons, are counted from the end.

    `inner` maps every value to its axis, `kinds` every node to its operator, `constants` every stored value of one for
    each neuron to its axis. `shapes` maps every Reshape that names the width to where it does, `computed_sizes` are
    sizes that a Reshape takes from elsewhere. `reshaped_by` is the last operator that could part neurons, `doubts` say
    what makes a cut wrong, the first of them first.
    """

    down: Product
    up: Product | None = None
    inner: dict[str, int] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    constants: dict[Use, int] = field(default_factory=dict)
    shapes: dict[int, Use] = field(default_factory=dict)
    computed_sizes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    reshaped_by: str = ""
    nonlinear: bool = False

    @property
    def activates(self) -> bool:
        """Does an operator that is not linear stand between the products?"""
        return self.nonlinear or (self.up is not None and bool(self.up.activation))


def trace_back(graph: Graph, down: Product) -> ActivationPath | None:
    """Follow what `down` reads, and all that it is computed from, to the up-projection; None where that leads to none
    of the same sizes, or through what no FFN has."""
    path = ActivationPath(down)
    left = [(graph.nodes[down.node].input[down.data_input], down.in_axis)]
    while left:
        name, axis = left.pop()
        index = graph.producer.get(name)
        if index is None or path.inner.setdefault(name, axis) != axis or len(path.inner) > MOST_STEPS:
            return None
        product = as_product(graph, index)
        if product is not None:
            if axis != product.out_axis:
                return None
            _reach(path, product)
        elif index not in path.kinds:
            steps = _read_node(graph, path, index, axis)
            if steps is None:
                return None
            left += steps
    return path if path.up is not None and path.up.shape == down.shape[::-1] else None


def _reach(path: ActivationPath, product: Product) -> None:
    """Take the product for the up-projection; of several the one that reads most."""
    if path.up is None or path.up.node == product.node:
        path.up = product
        return
    gated = path.up.shape[0] == product.shape[0]
    path.doubts.append(
        "two products feed its activation (a gated FFN?)"
        if gated
        else "a second product is added to its up-projection (LoRA that was not merged?)"
    )
    if path.up.shape[0] < product.shape[0]:
        path.up = product


def _read_node(graph: Graph, path: ActivationPath, index: int, axis: int) -> list[Step] | None:
    """Note a node between the products; its computed inputs, each with the axis of its neurons; None for no FFN's."""
    node, kind = graph.nodes[index], operator(graph.nodes[index])
    path.kinds[index] = kind
    if kind in ELEMENTWISE:
        return _read_elementwise(graph, path, index, axis)
    if kind not in PASSING and kind not in RESHAPING:
        return None
    before = through_transpose(node, axis, back=True) if kind == "Transpose" else axis
    if before is None:
        return None
    if kind == "Reshape" and not _read_reshape(graph, path, index, axis):
        return None
    if kind in RESHAPING:
        path.reshaped_by = kind
    return [(node.input[0], before)]


def _read_elementwise(graph: Graph, path: ActivationPath, index: int, axis: int) -> list[Step] | None:
    computed = []
    for position, name in enumerate(graph.nodes[index].input):
        if name and graph.constant(name) is not None:
            if not _read_constant(graph, path, Use(index, position), axis):
                return None
        elif name and not _is_of_stored_numbers(graph, path, name):
            computed.append((name, axis))
    kind = path.kinds[index]
    path.nonlinear |= kind in NONLINEAR or (kind in ("Mul", "Div") and len(computed) > 1)
    return computed


def _read_constant(graph: Graph, path: ActivationPath, use: Use, axis: int) -> bool:
    """Note a stored value of one for each neuron, and pass over one that is the same for all; False for any other."""
    constant, width = graph.constant_at(use), path.down.shape[0]
    if constant is None:
        return False
    along = constant.along(axis)
    if along == width > 1 or (width == 1 and constant.shape and is_at_the_bias(graph, use)):
        path.constants[use] = axis
        return True
    return along == 1


def _is_of_stored_numbers(graph: Graph, path: ActivationPath, name: str) -> bool:
    """Is this computed from stored numbers alone? Only from one each can it be the same for all neurons."""
    left, sizes = [name], set()
    for _ in range(MOST_STEPS):
        if not left:
            break
        name = left.pop()
        constant, maker = graph.constant(name), graph.maker(name)
        if constant is not None:
            sizes.add(constant.size)
        elif maker is None or operator(maker) not in ELEMENTWISE | OF_ONE_VALUE:
            return False
        else:
            left += maker.input[:1] if operator(maker) in OF_ONE_VALUE else filter(None, maker.input)
    if left or not sizes:
        return False
    if sizes != {1}:
        path.doubts.append("a value of one for each neuron is computed while the model runs")
    return True


def is_at_the_bias(graph: Graph, use: Use) -> bool:
    """Is this where a value is added to the up-projection's output as it is, but for its shape?"""
    node = graph.nodes[use.node]
    if use.input not in WITH_BIAS.get(operator(node), ()):
        return False
    index = graph.origin(node.input[1 - use.input])
    return index is not None and as_product(graph, index) is not None


def _read_reshape(graph: Graph, path: ActivationPath, index: int, axis: int) -> bool:
    """Note where a Reshape takes its size from; False where it is none of an FFN."""
    node = graph.nodes[index]
    if axis != -1 or len(node.input) < 2:
        return False
    use, maker = Use(index, 1), graph.maker(node.input[1])
    sizes = graph.array(node.input[1])
    if sizes is None and maker is not None and operator(maker) == "Concat":
        use = Use(graph.producer[node.input[1]], len(maker.input) - 1)
        sizes = graph.array(graph.value_at(use))
    if sizes is None:
        path.computed_sizes.append(graph.value_at(use))
        return True
    if sizes.ndim != 1 or not len(sizes) or sizes.dtype != np.int64:
        return False
    if sizes[-1] == path.down.shape[0]:
        path.shapes[index] = use
    elif sizes[-1] != -1 or np.any(sizes[:-1] > 1):
        path.doubts.append(f"a Reshape inside has the size {sizes.tolist()}")
    return True
