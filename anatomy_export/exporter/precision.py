"""An fp32 `.onnx` file to one of float16 or int8 weights, by ONNX Runtime's own converters; without torch."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from anatomy_export.core.errors import AnatomyError, first_line
from anatomy_export.core.target_cpu import described_weights
from anatomy_export.evaluation.classifier_inputs import Inputs
from anatomy_export.evaluation.precision_gate import Precision
from anatomy_export.exporter.fp16 import to_fp16
from anatomy_export.exporter.int8 import to_int8
from anatomy_export.exporter.onnx_files import EXTERNAL_DATA_BYTES
from anatomy_export.exporter.quiet import quiet

PRECISION_KEY = "anatomy.precision"
TARGET_CPU_KEY = "anatomy.target_cpu"


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
        with quiet(""), tempfile.TemporaryDirectory() as folder:
            if precision.name == "fp16":
                made, how = to_fp16(source)
            else:
                made, how = to_int8(source, Path(folder), precision, calibration, flags)
            _save(made, source, target, {**how, "name": precision.name})
    except AnatomyError:
        raise
    except Exception as error:
        raise AnatomyError(
            f"{precision.name} conversion failed: {type(error).__name__}: {first_line(error)[:300]}; "
            "next step: leave --precision out"
        ) from error
    return how


def _save(model: onnx.ModelProto, source: Path, target: Path, how: dict) -> None:
    """Write with the source's metadata and the precision; past 2 GB the weights go to a file beside it."""
    kept = {entry.key: entry.value for entry in onnx.load(source, load_external_data=False).metadata_props}
    new = {PRECISION_KEY: " ".join(filter(None, (how["name"], how.get("method"))))}
    if "target_cpu" in how:
        new[TARGET_CPU_KEY] = described_weights(how)
    onnx.helper.set_model_props(model, {**kept, **new})
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EXTERNAL_DATA_BYTES:
        onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")
    else:
        onnx.save(model, target)
