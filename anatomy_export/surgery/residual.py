"""Where the second product of an FFN joins the residual: what tells a layer from a pooler, a head and an adapter."""

from anatomy_export.surgery.graph import MOST_STEPS, Graph, Use, attribute, operator
from anatomy_export.surgery.operators import PASSING, SKIP_NORMS
from anatomy_export.surgery.product import Product, as_product


class NotAnFfnError(Exception):
    """The product is no down-projection of an FFN."""


class CannotCutError(Exception):
    """An FFN, but one whose neurons cannot be told apart from something else."""


def find_residual(graph: Graph, down: Product) -> tuple[Use | None, int]:
    """Follow a product to where it is added to the residual.

    Returns:
        The bias on the way, None without one, and the node that adds.

    Raises:
        NotAnFfnError: it is added to none. CannotCutError: its bias is not stored as one vector.
    """
    node = graph.nodes[down.node]
    name, axis, scaled = node.output[0], down.out_axis, False
    biases = [(Use(down.node, 2), axis, scaled)] if len(node.input) > 2 and node.input[2] else []
    for _ in range(MOST_STEPS):
        uses = graph.uses[name]
        adding = [use for use in uses if _adds_a_residual(graph, use)]
        if adding:
            biases += [(use, axis, scaled) for use in _skip_bias(graph, adding[0])]
            bias = _only_bias(graph, down, biases)
            if bias is None:
                _check_no_bias_after(graph, graph.nodes[adding[0].node].output[0])
            return bias, adding[0].node
        if len(uses) != 1:
            raise NotAnFfnError
        use = uses[0]
        kind = operator(graph.nodes[use.node])
        if kind == "Add":
            biases.append((Use(use.node, 1 - use.input), axis, scaled))
        elif _scales(graph, use):
            scaled = True
        elif kind == "Transpose":
            axis = _after_transpose(list(attribute(graph.nodes[use.node], "perm", [1, 0])), axis)
        elif kind not in PASSING or use.input or (kind == "Reshape" and axis != -1):
            raise NotAnFfnError
        name = graph.nodes[use.node].output[0]
    raise NotAnFfnError


def is_adapter(graph: Graph, up: Product, residual: int) -> bool:
    """Does `up` read what another product gives as it is, while the sum at `residual` only goes to another residual?"""
    name = graph.nodes[up.node].input[up.data_input]
    for _ in range(MOST_STEPS):
        index = graph.producer.get(name)
        if index is None:
            return False
        if as_product(graph, index) is not None:
            return _goes_to_a_residual_alone(graph, graph.nodes[residual].output[0])
        node = graph.nodes[index]
        computed = [one for one in node.input if one and graph.constant(one) is None]
        if operator(node) not in PASSING and (operator(node) != "Add" or len(computed) != 1):
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


def _after_transpose(perm: list[int], axis: int) -> int:
    """The axis of a Transpose's output, counted from the end, that its input's `axis` becomes."""
    if not 0 < -axis <= len(perm) or sorted(perm) != list(range(len(perm))):
        raise NotAnFfnError
    return perm.index(len(perm) + axis) - len(perm)


def _scales(graph: Graph, use: Use) -> bool:
    """Is the value multiplied by, or divided by, what is stored?"""
    node = graph.nodes[use.node]
    if operator(node) not in ("Mul", "Div") or (operator(node) == "Div" and use.input):
        return False
    return graph.constant(node.input[1 - use.input]) is not None


def _only_bias(graph: Graph, down: Product, biases: list[tuple[Use, int, bool]]) -> Use | None:
    """The one bias, stored along the axis that is given with it and not after a factor; None where there is none."""
    if len(biases) > 1:
        raise CannotCutError("two biases are added to its output")
    for use, axis, scaled in biases:
        if scaled:
            raise CannotCutError("its output is multiplied before the bias is added")
        found = graph.constant(graph.nodes[use.node].input[use.input])
        if found is None or found.size != down.shape[1] or found.along(axis) != down.shape[1]:
            raise CannotCutError("the bias of its output is no stored vector")
    return biases[0][0] if biases else None


def _adds_a_residual(graph: Graph, use: Use) -> bool:
    node = graph.nodes[use.node]
    if operator(node) in SKIP_NORMS:
        return use.input < 2
    return operator(node) == "Add" and graph.constant(node.input[1 - use.input]) is None


def _check_no_bias_after(graph: Graph, name: str) -> None:
    """A missing bias is one of zeros that the exporter left out, unless it was moved to after the residual."""
    for use in graph.uses[name]:
        node = graph.nodes[use.node]
        if operator(node) == "Add" and graph.constant(node.input[1 - use.input]) is not None:
            raise CannotCutError("a stored vector is added after the residual, where its own bias is missing")


def _skip_bias(graph: Graph, use: Use) -> list[Use]:
    """Where a fused norm of a sum takes the bias."""
    node = graph.nodes[use.node]
    position = {SKIP_NORMS[0]: 4, SKIP_NORMS[1]: 3}.get(operator(node))
    return [Use(use.node, position)] if position is not None and any(node.input[position : position + 1]) else []
