"""int8 weights, for CPUs, by output channel; activations by the range of each call (dynamic), or by ranges that
calibration text shows (static, QDQ)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from anatomy_export.core.errors import MissingExtraError
from anatomy_export.core.onnx_tensors import file_bytes
from anatomy_export.core.target_cpu import PORTABLE, int8_weights
from anatomy_export.evaluation.classifier_inputs import Inputs
from anatomy_export.evaluation.precision_gate import Precision
from anatomy_export.exporter.onnx_files import EXTERNAL_DATA_BYTES, load_plain

STATIC_OPERATORS = ["MatMul", "Gemm"]


def to_int8(
    source: Path, folder: Path, precision: Precision, calibration: Sequence[Inputs], flags: Sequence[str] | None
) -> tuple[onnx.ModelProto, dict]:
    """The model with int8 weights, and how it was done; what lies between goes to `folder`.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "edge") from error
    weights = int8_weights(precision.target_cpu or PORTABLE, flags)
    large = file_bytes(source) > EXTERNAL_DATA_BYTES
    common: dict[str, Any] = {
        "per_channel": True,
        "reduce_range": weights["reduce_range"],
        "weight_type": QuantType.QInt8,
        "use_external_data_format": large,
        "extra_options": {"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
    }
    how: dict[str, Any] = {"method": precision.int8, "per_channel": True, **weights}
    model = load_plain(source)
    unpack_attention_(model)
    unpacked, tables, made = (folder / f"{name}.onnx" for name in ("unpacked", "tables", "int8"))
    onnx.save(model, unpacked, save_as_external_data=large)
    del model
    if precision.int8 == "dynamic":
        quantize_dynamic(unpacked, made, **common)
    else:
        how |= {"calibration": precision.calibration, "calibration_texts": len(calibration)}
        quantize_dynamic(unpacked, tables, op_types_to_quantize=["Gather"], **common)
        _quantize_static(tables, made, precision, calibration, common)
    return onnx.load(made), how


def unpack_attention_(model: onnx.ModelProto) -> int:
    """Take the product with the packed Q, K, V weights out of contrib `Attention`, for ONNX Runtime quantizes it only
    outside where the mask is a bias; the same function in `MatMul`, `Split` and `MultiHeadAttention`.

    Returns:
        How many were taken apart.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes += _unpacked(node, constants, model.graph) if _is_packed(node, constants) else [node]
    taken_apart = sum(node.op_type == "Attention" for node in model.graph.node) - sum(
        node.op_type == "Attention" for node in nodes
    )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return taken_apart


def _is_packed(node: onnx.NodeProto, constants: dict) -> bool:
    """Is this an `Attention` of constant weights, without past, and masked by a bias or not at all?"""
    if (node.domain, node.op_type) != ("com.microsoft", "Attention") or len(node.output) != 1:
        return False
    inputs = [*node.input, "", "", "", ""]
    plain = {"num_heads", "qkv_hidden_sizes", "scale", "mask_filter_value"} >= {
        attribute.name for attribute in node.attribute
    }
    return plain and inputs[1] in constants and inputs[2] in constants and not (inputs[3] or inputs[4])


def _unpacked(node: onnx.NodeProto, constants: dict, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    packed = constants[node.input[1]].dims[1]
    sizes = attributes.pop("qkv_hidden_sizes", None) or [packed // 3] * 3
    named = {part: f"{node.output[0]}_{part}" for part in ("qkv", "sizes", "query", "key", "value")}
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(sizes, dtype=np.int64), named["sizes"]))
    parts = [named["query"], named["key"], named["value"]]
    bias = [*node.input, "", "", "", ""][5]
    return [
        onnx.helper.make_node("MatMul", list(node.input[:2]), [named["qkv"]], name=f"{node.name}_qkv"),
        onnx.helper.make_node("Split", [named["qkv"], named["sizes"]], parts, name=f"{node.name}_split", axis=-1),
        onnx.helper.make_node(
            "MultiHeadAttention",
            [*parts, node.input[2], *(["", bias] if bias else [])],
            list(node.output),
            name=node.name,
            domain="com.microsoft",
            **attributes,
        ),
    ]


def _quantize_static(source: Path, made: Path, precision: Precision, calibration, common: dict) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    # One text at a time, so that memory holds the activations of one.
    options = {**common, "extra_options": {**common["extra_options"], "CalibStridedMinMax": 1}}
    quantize_static(
        source,
        made,
        _Reader(source, calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=STATIC_OPERATORS,
        activation_type=QuantType.QUInt8,
        calibrate_method={"percentile": CalibrationMethod.Percentile, "entropy": CalibrationMethod.Entropy}[
            str(precision.calibration)
        ],
        calibration_providers=["CPUExecutionProvider"],
        **options,
    )


class _Reader:
    """Calibration inputs, one text at a time, as ONNX Runtime's calibrator asks for them."""

    def __init__(self, source: Path, batches: Sequence[Inputs]):
        wanted = {
            value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in onnx.load(source, load_external_data=False).graph.input
        }
        self.inputs = [{name: batch[name].astype(kind) for name, kind in wanted.items()} for batch in batches]
        self.left = iter(self.inputs)

    def __len__(self) -> int:
        return len(self.inputs)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.left = iter(self.inputs[start_index:end_index])

    def get_next(self) -> Inputs | None:
        return next(self.left, None)
