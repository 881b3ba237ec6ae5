"""The cut file against the uncut one with the same neurons masked, on fixed inputs in ONNX Runtime: one function."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

from anatomy_export.core.errors import AnatomyError, first_line
from anatomy_export.core.onnx_tensors import (
    FIRST_IR_WITH_FREE_INITIALIZERS,
    FLOAT_TYPES,
    LARGEST_PROTOBUF,
    tensor_bytes,
)
from anatomy_export.evaluation.classifier_inputs import Inputs
from anatomy_export.evaluation.onnx_session import OnnxRuntimeError, open_session, runtime_reason
from anatomy_export.evaluation.tolerance import TOLERANCE, scaled_tolerance
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan
from anatomy_export.plan_files.repair_file import LayerRepair, Repair
from anatomy_export.surgery.ffn import Ffn
from anatomy_export.surgery.graph import MOST_STEPS, Graph, operator
from anatomy_export.surgery.model import OnnxModel
from anatomy_export.surgery.operators import OF_ONE_VALUE
from anatomy_export.surgery.weights import OnnxFfn
from anatomy_export.surgery.weights_apart import drop_unread_, weights_apart

SHAPES = ((1, 7), (2, 12), (1, 3))
VOCABULARY = 1000
EPSILONS = 32
MOST_NUMBERS = 10**7
MASK = "anatomy_mask"


class NotRunError(Exception):
    """Why the comparison cannot be made."""


@dataclass(frozen=True)
class MaskedRun:
    """What the model computes with the pruned neurons masked: `outputs` by name, those of each of `inputs`."""

    inputs: tuple[Inputs, ...]
    outputs: tuple[dict[str, np.ndarray], ...]
    tolerance: float

    def max_error(self, cut: Path) -> float:
        """The largest difference of any output of the file `cut`.

        Raises:
            AnatomyError: it does not run, or one is more than `tolerance` of that output's largest value, or of 1.
        """
        largest = 0.0
        try:
            session = _session(cut)
            computed = [
                _outputs(session, batch, list(expected))
                for batch, expected in zip(self.inputs, self.outputs, strict=True)
            ]
        except Exception as error:
            raise AnatomyError(
                f"the cut file does not run, the uncut one does ({runtime_reason(error)}); next step: report this"
            ) from error
        for expected, outputs in zip(self.outputs, computed, strict=True):
            for name, value in expected.items():
                difference = _difference(value, outputs[name])
                limit = scaled_tolerance(value[np.isfinite(value)], self.tolerance)
                if difference > limit:
                    raise AnatomyError(
                        f"the cut file is not the model with the same neurons masked: its output '{name}' differs by "
                        f"{difference:.3g}, at most {limit:.3g} is rounding; nothing was written; next step: report it"
                    )
                largest = max(largest, difference)
        return largest


def masked_run(model: OnnxModel, plan: PrunePlan, repair: Repair | None) -> MaskedRun:
    """Run the uncut `model` with the neurons masked that `plan` prunes, at their full width with the repaired weights.

    Raises:
        NotRunError: onnxruntime is not installed, the file is past 2 GB, ONNX Runtime does not run it, or there is
            nothing to compare.
    """
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise NotRunError("onnxruntime is not installed (extra edge)") from error
    if sum(tensor_bytes(tensor) for tensor in model.proto.graph.initializer) > LARGEST_PROTOBUF:
        raise NotRunError("its weights take more than 2 GB")
    names = [value.name for value in model.proto.graph.output if value.name in model.graph.computed]
    if not names:
        raise NotRunError("none of its outputs is computed from its inputs")
    masked, weights = _masked(model, plan, repair)
    try:
        session = _session(masked.SerializeToString(), weights)
    except OnnxRuntimeError as error:
        raise NotRunError(f"ONNX Runtime refuses the uncut one ({error.reason})") from error
    inputs, outputs = _run_made_up(session, model.graph, names)
    if not any(np.isfinite(value).any() for named in outputs for value in named.values()):
        raise NotRunError("none of its outputs holds numbers with a fraction")
    return MaskedRun(tuple(inputs), tuple(outputs), _tolerance(model))


def _run_made_up(session, graph: Graph, names: list[str]) -> tuple[list[Inputs], list[dict[str, np.ndarray]]]:
    """Inputs of every shape that the session takes, and the named outputs of each.

    Raises:
        NotRunError: it takes none.
    """
    inputs, outputs, reason = [], [], ""
    for seed, shape in enumerate(SHAPES):
        try:
            batch = _inputs(graph, shape, np.random.default_rng(seed))
            outputs.append(_outputs(session, batch, names))
            inputs.append(batch)
        except Exception as error:
            reason = f"the uncut one does not run on inputs made up for it ({first_line(error)[:200]})"
    if not inputs:
        raise NotRunError(reason)
    return inputs, outputs


def _tolerance(model: OnnxModel) -> float:
    """A share of an output: rounding in the coarsest type of the FFNs."""
    kinds = {product.weight.tensor.data_type for ffn in model.ffns for product in (ffn.ffn.up, ffn.ffn.down)}
    return max(TOLERANCE, *(EPSILONS * float(ml_dtypes.finfo(FLOAT_TYPES[kind]).eps) for kind in kinds))


def _difference(expected: np.ndarray, computed: np.ndarray) -> float:
    """The largest difference where a number is expected; infinite where there is none, or the shape is another."""
    if expected.shape != computed.shape:
        return float("inf")
    compared = np.isfinite(expected)
    differences = np.abs(expected[compared].astype(np.float64) - computed[compared].astype(np.float64))
    return float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))


def _session(graph: Path | bytes, weights: dict | None = None):
    """Without optimisation and packed weights, which take longer than a few short runs."""
    entries = {"session.disable_prepacking": "1"}
    return open_session(graph, "the model", weights=weights, level="ORT_DISABLE_ALL", entries=entries)


def _outputs(session, batch: Inputs, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the named outputs that are numbers with a fraction."""
    wanted = {value.name for value in session.get_inputs()}
    values = session.run(list(names), {name: value for name, value in batch.items() if name in wanted})
    named = zip(names, values, strict=True)
    return {name: value for name, value in named if isinstance(value, np.ndarray) and value.dtype.kind == "f"}


def _masked(model: OnnxModel, plan: PrunePlan, repair: Repair | None) -> tuple[onnx.ModelProto, dict]:
    """The masked model without its weights, and those."""
    masked, weights = weights_apart(model.proto, model.folder)
    masked.ir_version = max(FIRST_IR_WITH_FREE_INITIALIZERS, masked.ir_version)
    for layer, ffn in zip(plan.layers, model.ffns, strict=True):
        _mask_(masked, ffn, layer, None if repair is None else repair.layers[layer.layer])
    drop_unread_(masked, weights)
    return masked, weights


def _mask_(masked: onnx.ModelProto, ffn: OnnxFfn, layer: LayerPlan, repair: LayerRepair | None) -> None:
    """Let the second product of an FFN read zeros for the pruned neurons; with a repair, its weights at full width."""
    down = ffn.ffn.down
    neurons, weight, bias = (f"{MASK}_{part}_{layer.layer}" for part in ("neurons", "weight", "bias"))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(down.weight.data_type)
    kept = np.zeros((ffn.width, *[1] * (-down.in_axis - 1)), dtype)
    kept[list(layer.keep)] = 1
    tensors = {neurons: kept}
    if repair is not None:
        full = np.zeros((ffn.width, ffn.hidden), dtype)
        full[list(layer.keep)] = repair.down_weight
        tensors[weight] = full if down.flipped == down.weight.flipped else np.ascontiguousarray(full.T)
        tensors[bias] = ffn.shaped_down_bias(repair.down_bias).astype(dtype)
    for place in ffn.ffn.places:
        _mask_place_(masked, place, neurons)
        if repair is not None:
            _repair_place_(masked, place, weight, bias)
    masked.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())


def _mask_place_(masked: onnx.ModelProto, place: Ffn, neurons: str) -> None:
    node, position = masked.graph.node[place.down.node], place.down.data_input
    name, node.input[position] = node.input[position], f"{MASK}_read_{place.down.node}"
    masked.graph.node.append(onnx.helper.make_node("Mul", [name, neurons], [node.input[position]]))


def _repair_place_(masked: onnx.ModelProto, place: Ffn, weight: str, bias: str) -> None:
    nodes, use = masked.graph.node, place.down_bias
    node = nodes[place.down.node]
    node.input[place.down.weight_use.input] = weight
    if use is not None:
        nodes[use.node].input[use.input] = bias
        return
    name, node.output[0] = node.output[0], f"{MASK}_sum_{place.down.node}"
    nodes.append(onnx.helper.make_node("Add", [node.output[0], bias], [name]))


def _inputs(graph: Graph, shape: tuple[int, int], generator: np.random.Generator) -> Inputs:
    """A value for every input of the graph, of (batch, tokens) where it leaves them open."""
    sizes: dict[str, int] = {}
    made = {}
    for value in graph.proto.input:
        if value.name in graph.initializers:
            continue
        kind = value.type.tensor_type
        dims = [
            dim.dim_value
            if dim.HasField("dim_value")
            else sizes.setdefault(dim.dim_param or f"{value.name}:{axis}", shape[min(axis, 1)])
            for axis, dim in enumerate(kind.shape.dim)
        ]
        if prod(dims) > MOST_NUMBERS:
            raise ValueError(f"input '{value.name}' has the shape {dims}")
        numbers = _numbers(graph, value.name, kind.elem_type, dims, generator)
        made[value.name] = numbers.astype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return made


def _numbers(graph: Graph, name: str, kind: int, dims: list[int], generator: np.random.Generator) -> np.ndarray:
    """Ids where they look up a table, by the name's meaning or below its length; ones for other whole numbers."""
    if kind in FLOAT_TYPES:
        return generator.standard_normal(dims)
    rows = _table_rows(graph, name)
    if "mask" in name or rows is None:
        ones = np.ones(dims)
        if "mask" in name and len(dims) == 2 and dims[0] > 1 and dims[1] > 2:
            ones[1:, -2:] = 0
        return ones
    if "type" in name or "segment" in name:
        return np.zeros(dims)
    if "position" in name:
        return np.broadcast_to(np.arange(dims[-1]), dims)
    return generator.integers(0, min(rows, VOCABULARY), dims)


def _table_rows(graph: Graph, name: str) -> int | None:
    """The rows of the stored table that a value looks up; None where it looks up none."""
    left = [name]
    for _ in range(MOST_STEPS):
        if not left:
            return None
        for use in graph.uses[left.pop()]:
            node = graph.nodes[use.node]
            table = graph.constant(node.input[0]) if operator(node) == "Gather" and use.input == 1 else None
            if table is not None and len(table.shape) == 2:
                return table.shape[0]
            if node.op_type == "EmbedLayerNormalization":
                table = graph.constant(node.input[use.input + 2]) if use.input < 2 else None
                return None if table is None else table.shape[0]
            if operator(node) in OF_ONE_VALUE and use.input == 0:
                left.append(node.output[0])
    return None
