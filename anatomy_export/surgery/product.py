"""Nodes that multiply a computed value with a stored matrix, whatever operator says so."""

from dataclasses import dataclass

from onnx import NodeProto

from anatomy_export.core.onnx_tensors import FLOAT_TYPES
from anatomy_export.surgery.graph import Constant, Graph, Use, attribute, operator
from anatomy_export.surgery.operators import FUSED_GEMM, FUSED_MATMUL, GEMMS, PRODUCTS


@dataclass(frozen=True)
class Product:
    """A product of a computed value with a stored matrix.

    `shape` is (in, out), `flipped` where (out, in) is stored. `weight_use` is where the node takes the matrix;
    `in_axis` is the axis of the computed value that is summed over, `out_axis` that of the outputs in the result, both
    counted from the end. `activation` is applied to the result by the same node; `peculiarity` says what else the node
    does, which a cut cannot follow.
    """

    node: int
    weight: Constant
    weight_use: Use
    shape: tuple[int, int]
    flipped: bool
    in_axis: int = -1
    out_axis: int = -1
    activation: str = ""
    peculiarity: str = ""

    @property
    def data_input(self) -> int:
        """The position of the computed value among the node's inputs."""
        return 1 - self.weight_use.input


def as_product(graph: Graph, index: int) -> Product | None:
    """The node as a product of a computed value with a stored matrix; None where it is none."""
    node = graph.nodes[index]
    if operator(node) not in PRODUCTS or len(node.input) < 2 or not node.output:
        return None
    constants = [graph.constant(name) for name in node.input[:2]]
    stored = [position for position, constant in enumerate(constants) if constant is not None]
    if len(stored) != 1:
        return None
    position = stored[0]
    weight = constants[position]
    if weight is None or len(weight.shape) != 2 or weight.tensor.data_type not in FLOAT_TYPES:
        return None
    layout = _einsum_layout(node, position) if operator(node) == "Einsum" else _matrix_layout(node, position)
    if layout is None:
        return None
    outputs_first, in_axis, out_axis = layout
    return Product(
        index,
        weight,
        Use(index, position),
        weight.shape[::-1] if outputs_first else weight.shape,
        flipped=outputs_first != weight.flipped,
        in_axis=in_axis,
        out_axis=out_axis,
        activation=_text(node, "activation") if operator(node) == FUSED_GEMM else "",
        peculiarity=_peculiarity(node),
    )


def _matrix_layout(node: NodeProto, position: int) -> tuple[bool, int, int]:
    """Is the matrix (out, in) as the node takes it; the axis summed over; the axis of the outputs."""
    transposed = [bool(attribute(node, name, 0)) for name in ("transA", "transB")]
    if position == 1:
        return transposed[1], -2 if transposed[0] else -1, -1
    return not transposed[0], -1 if transposed[1] else -2, -2


def _einsum_layout(node: NodeProto, position: int) -> tuple[bool, int, int] | None:
    """The same of an Einsum that sums over one axis and puts one in its place; None where it does anything else."""
    operands, arrow, result = _text(node, "equation").replace(" ", "").replace("...", ".").partition("->")
    terms = operands.split(",")
    if not arrow or len(terms) != 2:
        return None
    data, matrix = terms[1 - position], terms[position]
    summed, outputs = set(matrix) & set(data), set(matrix) & set(result)
    if len(matrix) != 2 or len(summed) != 1 or len(outputs) != 1 or summed == outputs or "." in matrix:
        return None
    entering, leaving = summed.pop(), outputs.pop()
    if sorted(data.replace(entering, leaving)) != sorted(result) or len({*result}) != len(result):
        return None
    in_axis, out_axis = data.index(entering) - len(data), result.index(leaving) - len(result)
    if "." in data[in_axis:] or "." in result[out_axis:]:
        return None
    return matrix.index(leaving) == 0, in_axis, out_axis


def _peculiarity(node: NodeProto) -> str:
    for name in ("alpha", "beta") if operator(node) in (*GEMMS, FUSED_MATMUL) else ():
        factor = attribute(node, name, 1.0)
        if factor != 1.0 and (name == "alpha" or len(node.input) > 2):
            return f"has {name} {factor:g}"
    return ""


def _text(node: NodeProto, name: str) -> str:
    return attribute(node, name, b"").decode(errors="replace")
