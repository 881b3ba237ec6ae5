"""An fp32 `.onnx` file to one of float16 or int8 weights, by ONNX Runtime's own converters; without torch.

float16 is for CUDA: inputs stay int64, the logits float32, and the operators that sum over many values stay float32.
int8 is for CPUs: weights by output channel; activations by the range of each call (dynamic), or by ranges that
calibration text shows (static, QDQ).
"""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from anatomy_export.core.errors import AnatomyError, MissingExtraError, first_line
from anatomy_export.core.onnx_tensors import FIRST_IR_WITH_FREE_INITIALIZERS, file_bytes
from anatomy_export.core.target_cpu import PORTABLE, described_weights, int8_weights
from anatomy_export.evaluation.inputs import Inputs
from anatomy_export.evaluation.onnx_session import OnnxSession
from anatomy_export.evaluation.precision_gate import Precision

STATIC_OPERATORS = ["MatMul", "Gemm"]
KEPT_FLOAT32 = ["LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "Softmax", "ReduceMean"]
PRECISION_KEY = "anatomy.precision"
TARGET_CPU_KEY = "anatomy.target_cpu"
EXTERNAL_DATA_BYTES = 2**31 - 2**26


def convert_precision(
    source: Path,
    target: Path,
    precision: Precision,
    calibration: Sequence[Inputs] = (),
    flags: Sequence[str] | None = None,
) -> dict:
    """Write the fp32 file `source` in another precision to `target`; its metadata stays, with the precision added.

    Args:
        calibration: inputs by name, each (1, sequence) without padding, for static int8.
        flags: CPU flags to choose int8 weights for where `target_cpu` is "native"; None takes this machine's.

    Returns:
        How it was done, as plain values.

    Raises:
        AnatomyError: static int8 without calibration text, or the conversion failed.
    """
    if precision.calibrated and not calibration:
        raise AnatomyError(
            "static int8 takes its ranges from calibration text, but there is none; next step: pass --data, or use "
            "--int8 dynamic"
        )
    try:
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            made, how = _CONVERTERS[precision.name](source, Path(folder) / "made.onnx", precision, calibration, flags)
            _save(made, source, target, {**how, "name": precision.name})
    except (AnatomyError, MissingExtraError):
        raise
    except Exception as error:
        raise AnatomyError(
            f"{precision.name} conversion failed: {type(error).__name__}: {first_line(error)[:300]}; "
            "next step: leave --precision out"
        ) from error
    return how


def _to_fp16(source: Path, made: Path, precision: Precision, calibration, flags) -> tuple[onnx.ModelProto, dict]:
    try:
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    except ImportError as error:
        raise MissingExtraError(str(error.name), "edge") from error
    model = _load_plain(source)
    blocked = [*DEFAULT_OP_BLOCK_LIST, *KEPT_FLOAT32]
    model = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    nodes = {tuple(node.output): node for node in model.graph.node}  # before 1.32 it writes a cast once for each use
    del model.graph.node[:]
    model.graph.node.extend(nodes.values())
    converted = ir.from_proto(model)
    converted.graph.sort()  # the casts stand at the end
    return ir.to_proto(converted), {"kept_float32": KEPT_FLOAT32}


def _to_int8(source: Path, made: Path, precision: Precision, calibration, flags) -> tuple[onnx.ModelProto, dict]:
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
    model = _load_plain(source)
    unpack_attention_(model)
    unpacked = made.with_name("unpacked.onnx")
    onnx.save(model, unpacked, save_as_external_data=large)
    del model
    if precision.int8 == "dynamic":
        quantize_dynamic(unpacked, made, **common)
    else:
        how |= {"calibration": precision.calibration, "calibration_texts": len(calibration)}
        tables = made.with_name("tables.onnx")
        quantize_dynamic(unpacked, tables, op_types_to_quantize=["Gather"], **common)
        _quantize_static(tables, made, precision, calibration, common)
    return onnx.load(made), how


def check_fp16_range(fp32: Path, fp16: Path, inputs: Iterable[Inputs]) -> None:
    """Raise AnatomyError where a value that the float16 file holds in float16 is past its range, 65,504, on one of
    `inputs`, and was finite before. On a CPU, ONNX Runtime computes in float32, so that its logits would not show it.
    """
    names = [name for node in onnx.load(fp32, load_external_data=False).graph.node for name in node.output if name]
    before, after = (_all_values(path, names) for path in (fp32, fp16))
    for batch in inputs:
        finite = before(batch)
        for name, value in after(batch).items():
            if value.dtype == np.float16 and (~np.isfinite(value) & np.isfinite(finite[name])).any():
                largest = float(np.abs(finite[name][np.isfinite(finite[name])]).max())
                raise AnatomyError(
                    f"value '{name}' reaches {largest:.3g}, float16 ends at 65,504; next step: leave --precision out, "
                    "or use int8"
                )


def _all_values(path: Path, names: Sequence[str]) -> Callable[[Inputs], Inputs]:
    """A call from inputs to those of the named values that the graph holds."""
    model = onnx.load(path, load_external_data=False)
    made = {name for node in model.graph.node for name in node.output}
    there = {value.name for value in model.graph.output}
    wanted = [name for name in names if name in made]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in there)
    entries = {"session.model_external_initializers_file_folder_path": str(path.parent)}
    session = OnnxSession(model.SerializeToString(), path.name, entries=entries)
    return lambda batch: dict(zip(wanted, session.run(wanted, batch), strict=True))


def _load_plain(source: Path) -> onnx.ModelProto:
    """The model without what it says of weights' types and of shapes between nodes, which a conversion makes untrue;
    weights are no inputs, as before IR version 4 they had to be, for the converters leave inputs as they are."""
    model = onnx.load(source)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = _true_inputs(model)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, FIRST_IR_WITH_FREE_INITIALIZERS)
    described = [info for info in model.graph.value_info if info.name not in weights]
    for info in described:
        info.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    model.graph.value_info.extend(described)
    return model


def _true_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that must be given."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


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
    plain = {"num_heads", "qkv_hidden_sizes", "scale", "mask_filter_value"} >= {one.name for one in node.attribute}
    return plain and inputs[1] in constants and inputs[2] in constants and not (inputs[3] or inputs[4])


def _unpacked(node: onnx.NodeProto, constants: dict, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
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


def _save(model: onnx.ModelProto, source: Path, target: Path, how: dict) -> None:
    """Write with the source's metadata and the precision; past 2 GB the weights go to a file beside it."""
    kept = {one.key: one.value for one in onnx.load(source, load_external_data=False).metadata_props}
    new = {PRECISION_KEY: " ".join(filter(None, (how["name"], how.get("method"))))}
    if "target_cpu" in how:
        new[TARGET_CPU_KEY] = described_weights(how)
    onnx.helper.set_model_props(model, {**kept, **new})
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EXTERNAL_DATA_BYTES:
        onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")
    else:
        onnx.save(model, target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converters' advice off the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)


_CONVERTERS = {"fp16": _to_fp16, "int8": _to_int8}
