"""Where the second product of an FFN joins the residual: what tells a layer from a pooler, a head and an adapter."""

from dataclasses import dataclass

from anatomy_export.surgery.graph import MOST_STEPS, Graph, Use, operator, through_transpose
from anatomy_export.surgery.operators import PASSING, SKIP_NORMS
from anatomy_export.surgery.product import Product, as_product


@dataclass(frozen=True)
class Residual:
    """The `node` that adds a product to the residual, and the stored bias that is added on the way, None without one.
    `problem`: why that bias cannot be told from something else; "" where it can."""

    node: int
    bias: Use | None
    problem: str = ""


@dataclass(frozen=True)
class _Bias:
    """A value added on the way: its axis of the outputs, counted from the end; `scaled`: after a factor."""

    use: Use
    axis: int
    scaled: bool = False


def find_residual(graph: Graph, down: Product) -> Residual | None:
    """Follow a product to where it is added to the residual; None where it is added to none."""
    node = graph.nodes[down.node]
    name, axis, scaled = node.output[0], down.out_axis, False
    biases = [_Bias(Use(down.node, 2), axis)] if len(node.input) > 2 and node.input[2] else []
    for _ in range(MOST_STEPS):
        uses = graph.uses[name]
        adding = next((use for use in uses if _adds_a_residual(graph, use)), None)
        if adding is not None:
            biases += [_Bias(use, axis, scaled) for use in _skip_bias(graph, adding)]
            return _joined(graph, down, adding.node, biases)
        if len(uses) != 1:
            return None
        use, node = uses[0], graph.nodes[uses[0].node]
        kind = operator(node)
        if kind == "Add":
            biases.append(_Bias(Use(use.node, 1 - use.input), axis, scaled))
        elif _scales(graph, use):
            scaled = True
        elif kind == "Transpose":
            turned = through_transpose(node, axis)
            if turned is None:
                return None
            axis = turned
        elif kind not in PASSING or use.input or (kind == "Reshape" and axis != -1):
            return None
        name = node.output[0]
    return None


def is_adapter(graph: Graph, up: Product, residual: int) -> bool:
    """Does `up` read what another product gives as it is, while the sum at `residual` only goes to another residual?"""
    name = graph.nodes[up.node].input[up.data_input]
    for _ in range(MOST_STEPS):
        index = graph.origin(name)
        if index is None:
            return False
        if as_product(graph, index) is not None:
            return _goes_to_a_residual_alone(graph, graph.nodes[residual].output[0])
        node = graph.nodes[index]
        computed = [entry for entry in node.input if entry and graph.constant(entry) is None]
        if operator(node) != "Add" or len(computed) != 1:
            return False
        name = computed[0]
    return False


def _goes_to_a_residual_alone(graph: Graph, name: str) -> bool:
    for _ in range(MOST_STEPS):
        if len(graph.uses[name]) != 1:
            return False
        use = graph.uses[name][0]
        if _adds_a_residual(graph, use):
            return True
        if operator(graph.nodes[use.node]) not in PASSING:
            return False
        name = graph.nodes[use.node].output[0]
    return False


def _scales(graph: Graph, use: Use) -> bool:
    """Is the value multiplied by, or divided by, what is stored?"""
    kind = operator(graph.nodes[use.node])
    if kind not in ("Mul", "Div") or (kind == "Div" and use.input):
        return False
    return graph.constant_at(Use(use.node, 1 - use.input)) is not None


def _joined(graph: Graph, down: Product, node: int, biases: list[_Bias]) -> Residual:
    """The residual at `node`, with the one bias: stored along its axis, and not added after a factor."""
    if not biases:
        return Residual(node, None, _bias_after(graph, graph.nodes[node].output[0]))
    constant = graph.constant_at(biases[0].use)
    problem = ""
    if len(biases) > 1:
        problem = "two biases are added to its output"
    elif biases[0].scaled:
        problem = "its output is multiplied before the bias is added"
    elif constant is None or not constant.size == constant.along(biases[0].axis) == down.shape[1]:
        problem = "the bias of its output is no stored vector"
    return Residual(node, biases[0].use, problem)


def _adds_a_residual(graph: Graph, use: Use) -> bool:
    kind = operator(graph.nodes[use.node])
    if kind in SKIP_NORMS:
        return use.input < 2
    return kind == "Add" and graph.constant_at(Use(use.node, 1 - use.input)) is None


def _bias_after(graph: Graph, name: str) -> str:
    """A missing bias is one of zeros that the exporter left out, unless it was moved to after the residual."""
    for use in graph.uses[name]:
        if operator(graph.nodes[use.node]) == "Add" and graph.constant_at(Use(use.node, 1 - use.input)) is not None:
            return "a stored vector is added after the residual, where its own bias is missing"
    return ""


def _skip_bias(graph: Graph, use: Use) -> list[Use]:
    """Where a fused norm of a sum takes the bias."""
    node = graph.nodes[use.node]
    position = {SKIP_NORMS[0]: 4, SKIP_NORMS[1]: 3}.get(operator(node))
    return [Use(use.node, position)] if position is not None and any(node.input[position : position + 1]) else []
