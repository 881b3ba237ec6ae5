"""float16 weights, for CUDA: inputs stay int64, the logits float32, and what sums over many values stays float32."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from anatomy_export.core.errors import AnatomyError, MissingExtraError
from anatomy_export.evaluation.classifier_inputs import Inputs
from anatomy_export.evaluation.onnx_session import OnnxSession
from anatomy_export.exporter.onnx_files import load_plain

KEPT_FLOAT32 = ["LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "Softmax", "ReduceMean"]


def to_fp16(source: Path) -> tuple[onnx.ModelProto, dict]:
    """The model in float16, and how it was done; inputs and logits keep their types.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    except ImportError as error:
        raise MissingExtraError(str(error.name), "edge") from error
    model = load_plain(source)
    blocked = [*DEFAULT_OP_BLOCK_LIST, *KEPT_FLOAT32]
    model = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    nodes = {tuple(node.output): node for node in model.graph.node}  # before 1.32 it writes a cast once for each use
    del model.graph.node[:]
    model.graph.node.extend(nodes.values())
    converted = ir.from_proto(model)
    converted.graph.sort()  # the casts stand at the end
    return ir.to_proto(converted), {"kept_float32": KEPT_FLOAT32}


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
