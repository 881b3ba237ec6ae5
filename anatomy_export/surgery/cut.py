"""Cut the FFNs of an existing ONNX file by a plan, without torch: the same function as slicing the torch model."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from anatomy_export.core.errors import AnatomyError, first_line
from anatomy_export.core.files import staged_file
from anatomy_export.core.onnx_tensors import DataFile, read_model, without_large_tensors
from anatomy_export.core.progress import Progress
from anatomy_export.core.target_cpu import target_cpu_note
from anatomy_export.evaluation.judge import Judge
from anatomy_export.evaluation.onnx_session import OnnxSession
from anatomy_export.evaluation.precision_gate import FP32, Precision, PrecisionReport
from anatomy_export.exporter.precision import check_fp16_range, convert_precision
from anatomy_export.plans.identity import ffn_fingerprint
from anatomy_export.plans.plan import PrunePlan
from anatomy_export.plans.repair import Repair
from anatomy_export.surgery.edit import Editor
from anatomy_export.surgery.masked import NotRunError, masked_run
from anatomy_export.surgery.model import FINGERPRINT, WIDTHS, OnnxModel, damage_is_refused
from anatomy_export.surgery.recorded_logits import check_file_logits


@dataclass(frozen=True)
class LayerCut:
    """One layer, counted with those that cannot be cut: neurons before and after, and which operators the FFN was found
    by."""

    layer: int
    width: int
    kept: int
    found_as: str


@dataclass(frozen=True)
class SliceResult:
    """What was cut. Before and after: `size_bytes` of the file and its external data, `accuracy` as a fraction, None
    where there is nothing to measure it on. `judged`: what the precision cost. `max_abs_error`: how far outputs of
    the fp32 cut are at most from the model with the same neurons masked, None where it was not run."""

    output: Path | None
    layers: tuple[LayerCut, ...]
    size_bytes: tuple[int, int | None]
    plan_sha256: str
    source_fingerprint: str
    fingerprint: str | None
    precision: str = "fp32"
    accuracy: tuple[float | None, float | None] = (None, None)
    judged: PrecisionReport | None = None
    max_abs_error: float | None = None

    def as_dict(self) -> dict:
        """The value of `--json`."""
        return {
            "output": None if self.output is None else str(self.output),
            "layers": [asdict(layer) for layer in self.layers],
            "neurons": {
                "dense": sum(layer.width for layer in self.layers),
                "pruned": sum(layer.kept for layer in self.layers),
            },
            "size_bytes": {"dense": self.size_bytes[0], "pruned": self.size_bytes[1]},
            "plan_sha256": self.plan_sha256,
            "source_fingerprint": self.source_fingerprint,
            "fingerprint": self.fingerprint,
            "accuracy": {"dense": self.accuracy[0], "pruned": self.accuracy[1]},
            "max_abs_error": self.max_abs_error,
            "precision": self.precision,
            "precision_report": None if self.judged is None else asdict(self.judged),
        }


def slice_onnx(
    model: OnnxModel,
    plan: PrunePlan,
    repair: Repair | None,
    output: Path | None,
    *,
    precision: Precision = FP32,
    judge: Judge | None = None,
    force: bool = False,
    progress: Progress,
) -> SliceResult:
    """Cut every planned layer of `model` (in place) and write it to `output`; without one, only check that it could be.

    Args:
        precision: of the file that is written, lowered once the cut is checked.
        judge: what accuracy is measured by; None measures nothing.

    Raises:
        AnatomyError: the plan is not for this model, a planned layer cannot be cut, or the result is not valid.
        VerifyError: the lower precision loses more accuracy than it may.
        MissingExtraError: another precision, but no onnxruntime.
    """
    model = model.for_layers(len(plan.layers))
    with progress.stage(f"check that the plan is for {model.path.name}"):
        source_fingerprint = model.check_fingerprint(plan.fingerprint)
        plan.check_model(source_fingerprint, model.widths)
        if plan.recorded_logits is not None:
            check_file_logits(model, plan.recorded_logits, progress)
        _check_repair_fits(model, repair)
    before = sum(file.stat().st_size for file in model.files())
    layers = tuple(
        LayerCut(place, layer.width, len(layer.keep), ffn.found_as)
        for place, layer, ffn in zip(model.places, plan.layers, model.ffns, strict=True)
    )
    fingerprint = after = judged = accuracy = accuracy_before = max_error = None
    if output is not None:
        refuse_own_files(model, output)
        with staged_file(output, force, part=f"{output.name}.data") as staged:
            if judge is not None:
                with progress.stage(f"accuracy of {model.path.name} on {len(judge.test)} texts"):
                    accuracy_before = judge.accuracy(model.path, str(model.path))
            if precision.converts:
                fingerprint, max_error, judged = _cut_and_convert(
                    model, plan, repair, staged, precision, judge, progress
                )
            else:
                fingerprint, max_error = _cut_and_write(model, plan, repair, staged, progress)
            if judged is not None:
                accuracy = judged.accuracy
            elif judge is not None:
                with progress.stage(f"accuracy of the cut model on {len(judge.test)} texts"):
                    accuracy = judge.accuracy(staged, "the cut model")
            after = sum(path.stat().st_size for path in staged.parent.iterdir())
    return SliceResult(
        output=output,
        layers=layers,
        size_bytes=(before, after),
        plan_sha256=plan.sha256,
        source_fingerprint=source_fingerprint,
        fingerprint=fingerprint,
        precision=precision.name,
        accuracy=(accuracy_before, accuracy),
        judged=judged,
        max_abs_error=max_error,
    )


def refuse_own_files(model: OnnxModel, output: Path) -> None:
    """Raise AnatomyError where writing `output` would replace what it is made from."""
    own = {path.resolve() for path in model.files()}
    if {output.resolve(), output.with_name(f"{output.name}.data").resolve()} & own:
        raise AnatomyError(f"output {output} would replace the model that is cut; next step: choose another --output")


def _check_repair_fits(model: OnnxModel, repair: Repair | None) -> None:
    if repair is None:
        return
    for index, (ffn, layer) in enumerate(zip(model.ffns, repair.layers, strict=True)):
        if layer.down_weight.shape[1:] != (ffn.hidden,) or layer.down_bias.shape != (ffn.hidden,):
            raise AnatomyError(
                f"layer {index}: repaired weights have {layer.down_weight.shape} and {layer.down_bias.shape}, this FFN "
                f"has {ffn.hidden} outputs; next step: use the repair that was made with this plan"
            )
        if ffn.has_scales:
            raise AnatomyError(
                f"layer {index}: beside its bias, this FFN holds stored values of one for each neuron, the repair was "
                "made without them; next step: pass the file that was exported from the checkpoint"
            )


def _cut_and_convert(
    model: OnnxModel,
    plan: PrunePlan,
    repair: Repair | None,
    staged: Path,
    precision: Precision,
    judge: Judge | None,
    progress: Progress,
) -> tuple[str, float | None, PrecisionReport | None]:
    """Cut in float32, then write that in another precision to `staged`.

    Returns:
        Of the float32 file the fingerprint and the largest error, and what the precision costs, where that is judged.

    Raises:
        AnatomyError: the file's weights are not float32. VerifyError: it loses more accuracy than it may.
    """
    if not model.is_float32:
        raise AnatomyError(
            f"{model.path}: its weights are not float32, --precision {precision.name} starts from such; "
            "next step: leave --precision out"
        )
    with tempfile.TemporaryDirectory(dir=staged.parent) as folder:
        cut = Path(folder) / "cut.onnx"
        fingerprint, max_error = _cut_and_write(model, plan, repair, cut, progress)
        with progress.stage(f"convert to {precision.name}"):
            calibration = judge.calibration_inputs() if judge is not None and precision.calibrated else ()
            conversion = convert_precision(cut, staged, precision, calibration)
            OnnxSession(staged, f"the {precision.name} file", hint="next step: leave --precision out")
        if note := target_cpu_note(conversion):
            progress.note(note)
        if judge is None:
            return fingerprint, max_error, None
        with progress.stage(f"compare {precision.name} with fp32 on {len(judge.validation) + len(judge.test)} texts"):
            if precision.name == "fp16":
                check_fp16_range(cut, staged, judge.range_inputs())
            report = judge.report(cut, staged, precision, conversion)
            report.raise_for_drop()
    return fingerprint, max_error, report


def _cut_and_write(
    model: OnnxModel, plan: PrunePlan, repair: Repair | None, staged: Path, progress: Progress
) -> tuple[str, float | None]:
    """Write the cut model to `staged`, its external data beside it.

    Returns:
        Its fingerprint, and the largest error against the model with the same neurons masked; None where that was not
        run, which is said.

    Raises:
        AnatomyError: it cannot be cut, or the result is not valid or computes something else.
    """
    masked, max_error, reason = None, None, ""
    with progress.stage("run it with the neurons masked"), damage_is_refused(model.path):
        try:
            masked = masked_run(model, plan, repair)
        except NotRunError as error:
            reason = str(error)
    editor = Editor(model.proto, model.graph, DataFile(staged.parent, f"{staged.name}.data"))
    with progress.stage("cut"), damage_is_refused(model.path):
        found = ffn_fingerprint(
            ffn.cut_(editor, np.array(layer.keep), None if repair is None else repair.layers[layer.layer])
            for layer, ffn in zip(plan.layers, model.ffns, strict=True)
        )
        exact = model.is_float32
        editor.finish_()
        _set_metadata(model, plan, found if exact else None)
        editor.save(staged, model.folder)
    with progress.stage("check the result"), damage_is_refused(model.path):
        _check_is_valid(model, progress)
        _check(OnnxModel(staged, model.proto).for_layers(len(plan.layers)), plan, found if exact else None)
        if masked is not None:
            max_error = masked.max_error(staged)
    if masked is None:
        progress.note(f"note: the cut file was not run beside the uncut one with its neurons masked: {reason}")
    return found, max_error


def _set_metadata(model: OnnxModel, plan: PrunePlan, fingerprint: str | None) -> None:
    """Keep what the file says of itself; say what is new in the words of an export."""
    new = {
        "anatomy.mode": "slice",
        "anatomy.plan_sha256": plan.sha256,
        "anatomy.source_fingerprint": plan.fingerprint,
        WIDTHS: ",".join(map(str, plan.kept_widths)),
        "anatomy.criterion": plan.criterion,
    }
    metadata = {**model.metadata, **new}
    metadata.pop(FINGERPRINT, None)
    if fingerprint is not None:
        metadata[FINGERPRINT] = fingerprint
    onnx.helper.set_model_props(model.proto, metadata)


def _check(written: OnnxModel, plan: PrunePlan, fingerprint: str | None) -> None:
    """Raise AnatomyError unless the FFNs of the result are the planned ones."""
    if written.widths != plan.kept_widths:
        raise AnatomyError(f"the cut model has FFNs of {written.widths}, the plan keeps {plan.kept_widths}")
    if fingerprint is not None and written.fingerprint() != fingerprint:
        raise AnatomyError("the cut model does not hold the weights that were cut; next step: report this")


def _check_is_valid(cut: OnnxModel, progress: Progress) -> None:
    """Say what is wrong with the cut graph and was so before the cut.

    Raises:
        AnatomyError: it is not valid ONNX whose shapes agree, and the uncut file is.
    """
    found = _invalid(cut.proto)
    if not found:
        return
    before = _invalid(read_model(cut.path))
    if not before:
        raise AnatomyError(f"the cut model is not valid ONNX ({found}), the uncut one is; next step: report this")
    progress.note(f"note: {cut.path} is not valid ONNX, before the cut as after ({before})")


def _invalid(model: onnx.ModelProto) -> str:
    """Why a model does not pass the checks of ONNX, shapes included; "" where it does."""
    try:
        onnx.checker.check_model(without_large_tensors(model), full_check=True)
    except Exception as error:
        return first_line(error)[:300]
    return ""
