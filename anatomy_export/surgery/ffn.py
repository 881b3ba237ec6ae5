"""Find the FFN of every layer in an ONNX graph by its structure, whatever exported or fused it.

An FFN is a product with a stored matrix (hidden d to n neurons), point-wise operators, and a product with a stored
matrix back to d whose result is added to a residual. That addition tells it from poolers and classification heads,
which are two products with an activation between them as well.
"""

from dataclasses import dataclass

from anatomy_export.surgery.graph import Graph, Use, label, operator
from anatomy_export.surgery.operators import MS, NONLINEAR
from anatomy_export.surgery.path import ActivationPath, is_at_the_bias, trace_back
from anatomy_export.surgery.product import Product, as_product
from anatomy_export.surgery.residual import find_residual, is_adapter
from anatomy_export.surgery.sizes import foreign_size, width_reader


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
    def node(self) -> int:
        """Its last product."""
        return self.down.node

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
    products = (as_product(graph, index) for index in range(len(graph.nodes)))
    entries = (_ffn_before(graph, product) for product in products if product is not None)
    return [entry for entry in entries if entry is not None]


def _ffn_before(graph: Graph, down: Product) -> Ffn | Refusal | None:
    """The FFN whose last product is `down`; None where that is no down-projection."""
    path = trace_back(graph, down)
    if path is None or path.up is None or (not path.activates and path.up.shape[1] < path.up.shape[0]):
        return None
    residual = find_residual(graph, down)
    if residual is None:
        return None
    up, name = path.up, label(graph.nodes[down.node])
    up_bias, unclear_bias = _up_bias(graph, up, path)
    reason = residual.problem or _obstacle(graph, up, path, residual.node) or unclear_bias
    if reason:
        return Refusal(name, reason, down.node)
    if up_bias is not None:
        path.constants.setdefault(up_bias, -1)
    return Ffn(
        name=name,
        up=up,
        down=down,
        up_bias=up_bias,
        down_bias=residual.bias,
        residual=residual.node,
        constants=path.constants,
        shapes=path.shapes,
        inner=path.inner,
        found_as=_description(graph, up, path),
    )


def _obstacle(graph: Graph, up: Product, path: ActivationPath, residual: int) -> str:
    """Why what stands between the products and around them cannot be cut; "" where it can."""
    if path.doubts:
        return path.doubts[0]
    if is_adapter(graph, up, residual):
        return "it stands inside a layer's residual branch, after another product (an adapter?)"
    return _peculiar(graph, up, path) or _leak(graph, path) or _foreign_size(graph, path)


def _peculiar(graph: Graph, up: Product, path: ActivationPath) -> str:
    """Why a cut would be right only if nodes said something else; "" where it is."""
    for product in (up, path.down):
        if product.peculiarity:
            node = graph.nodes[product.node]
            return f"its {node.op_type} '{label(node)}' of '{product.weight.name}' {product.peculiarity}"
    if path.down.activation:
        return f"{path.down.activation} is applied to what its down-projection gives"
    if path.reshaped_by:
        return f"the operator {path.reshaped_by} stands between its products"
    return "" if path.activates else "no activation stands between its products"


def _leak(graph: Graph, path: ActivationPath) -> str:
    """What but the FFN itself, and what asks for a shape, sees the values that become narrower; "" for nothing."""
    inside = {*path.kinds, path.down.node}
    beside = [name for index in path.kinds for name in graph.nodes[index].output[1:] if name]
    for name in (*path.inner, *beside):
        others = [use.node for use in graph.uses[name] if use.node not in inside]
        others = [index for index in others if operator(graph.nodes[index]) != "Shape"]
        if any(as_product(graph, index) is not None for index in others):
            return "a second product reads its neurons (LoRA that was not merged?)"
        if others or graph.escapes(name):
            where = f"node '{graph.nodes[others[0]].name}'" if others else "the graph's output"
            return f"its value '{name}' is also used by {where}"
    for name, axis in path.inner.items():
        for use in graph.uses[name]:
            reader = None
            if operator(graph.nodes[use.node]) == "Shape":
                reader = width_reader(graph, use.node, axis, inside=path.kinds.keys())
            if reader is not None:
                return f"its width, which the cut changes, is read by {reader}"
    return ""


def _foreign_size(graph: Graph, path: ActivationPath) -> str:
    size = next((size for size in path.computed_sizes if foreign_size(graph, size, path.inner.keys())), None)
    return "" if size is None else f"a Reshape inside takes its size from '{size}', which the cut would not change"


def _up_bias(graph: Graph, up: Product, path: ActivationPath) -> tuple[Use | None, str]:
    """Where the bias of the first product is added, None without one; and why that cannot be told."""
    node, width = graph.nodes[up.node], up.shape[1]
    if len(node.input) > 2 and node.input[2]:
        constant = graph.constant(node.input[2])
        if constant is None or constant.size != width or constant.shape[-1:] != (width,):
            return None, "the third input of its up-projection is no stored bias of one value a neuron"
        return Use(up.node, 2), ""
    biases = []
    for use in path.constants:
        constant = graph.constant_at(use)
        if is_at_the_bias(graph, use) and constant is not None and constant.size == width:
            biases.append(use)
    if len(biases) > 1:
        return None, "two biases are added to what its up-projection gives"
    return next(iter(biases), None), ""


def _description(graph: Graph, up: Product, path: ActivationPath) -> str:
    kinds = [path.kinds[index] for index in sorted(path.kinds) if path.kinds[index] in NONLINEAR]
    kinds = [up.activation] * bool(up.activation) + kinds or ["Mul"]
    ends = [operator(graph.nodes[product.node]).removeprefix(MS) for product in (up, path.down)]
    return f"{ends[0]} · {'+'.join(dict.fromkeys(kind.removeprefix(MS) for kind in kinds))} · {ends[1]}"
