"""Cut the FFNs of an existing ONNX file by a plan, without torch: the same function as slicing the torch model."""

import tempfile
from dataclasses import asdict, dataclass, replace
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
from anatomy_export.exporter.fp16 import check_fp16_range
from anatomy_export.exporter.precision import convert_precision
from anatomy_export.plan_files.model_identity import ffn_fingerprint
from anatomy_export.plan_files.plan import PrunePlan
from anatomy_export.plan_files.repair_file import Repair
from anatomy_export.surgery.edit import Editor
from anatomy_export.surgery.masked_run import MaskedRun, NotRunError, masked_run
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
    precision: str = FP32.name
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


@dataclass(frozen=True)
class _Cut:
    """A model, as many layers as the plan has, and what is to become of it."""

    model: OnnxModel
    plan: PrunePlan
    repair: Repair | None
    progress: Progress

    def checked(self) -> SliceResult:
        """What the cut will be.

        Raises:
            AnatomyError: plan or repair are not for this model.
        """
        model, plan = self.model, self.plan
        with self.progress.stage(f"check that the plan is for {model.path.name}"):
            fingerprint = model.check_fingerprint(plan.fingerprint)
            plan.check_model(fingerprint, model.widths)
            if plan.recorded_logits is not None:
                check_file_logits(model, plan.recorded_logits, self.progress)
            _check_repair_fits(model, self.repair)
        layers = tuple(
            LayerCut(place, layer.width, len(layer.keep), ffn.found_as)
            for place, layer, ffn in zip(model.places, plan.layers, model.ffns, strict=True)
        )
        size = sum(file.stat().st_size for file in model.files())
        return SliceResult(None, layers, (size, None), plan.sha256, fingerprint, None)

    def write(self, staged: Path) -> tuple[str, float | None]:
        """Write the cut model to `staged`, its external data beside it.

        Returns:
            Its fingerprint, and the largest error against the model with the same neurons masked; None where that was
            not run, which is said.

        Raises:
            AnatomyError: it cannot be cut, or the result is not valid or computes something else.
        """
        model, plan, repair, progress = self.model, self.plan, self.repair, self.progress
        masked, reason = self._masked_run()
        with progress.stage("cut"), damage_is_refused(model.path):
            editor = Editor(model.proto, model.graph, DataFile(staged.parent, f"{staged.name}.data"))
            fingerprint = ffn_fingerprint(
                ffn.cut_(editor, np.array(layer.keep), None if repair is None else repair.layers[layer.layer])
                for layer, ffn in zip(plan.layers, model.ffns, strict=True)
            )
            known = fingerprint if model.is_float32 else None
            editor.finish_()
            _set_metadata(model, plan, known)
            editor.save(staged, model.folder)
        with progress.stage("check the result"), damage_is_refused(model.path):
            _check_is_valid(model, progress)
            _check(OnnxModel(staged, model.proto).for_layers(len(plan.layers)), plan, known)
            max_error = None if masked is None else masked.max_error(staged)
        if masked is None:
            progress.note(f"note: the cut file was not run beside the uncut one with its neurons masked: {reason}")
        return fingerprint, max_error

    def _masked_run(self) -> tuple[MaskedRun | None, str]:
        """What the uncut model computes with its neurons masked; None where it does not run, and why."""
        with self.progress.stage("run it with the neurons masked"), damage_is_refused(self.model.path):
            try:
                return masked_run(self.model, self.plan, self.repair), ""
            except NotRunError as error:
                return None, str(error)


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
    cut = _Cut(model.for_layers(len(plan.layers)), plan, repair, progress)
    result = replace(cut.checked(), output=output, precision=precision.name)
    if output is None:
        return result
    model.refuse_output(output)
    with staged_file(output, force, part=f"{output.name}.data") as staged:
        return _write(cut, result, staged, precision, judge)


def _write(cut: _Cut, result: SliceResult, staged: Path, precision: Precision, judge: Judge | None) -> SliceResult:
    """Write the cut file to `staged`, in the precision asked for, and judge it; `result` with what that came to."""
    model, progress, judged = cut.model, cut.progress, None
    before = _accuracy(judge, model.path, model.path.name, str(model.path), progress)
    if precision.converts:
        fingerprint, max_error, judged = _cut_and_convert(cut, staged, precision, judge)
    else:
        fingerprint, max_error = cut.write(staged)
    after = judged.accuracy if judged else _accuracy(judge, staged, "the cut model", "the cut model", progress)
    size = sum(path.stat().st_size for path in staged.parent.iterdir())
    return replace(
        result,
        size_bytes=(result.size_bytes[0], size),
        fingerprint=fingerprint,
        accuracy=(before, after),
        judged=judged,
        max_abs_error=max_error,
    )


def _accuracy(judge: Judge | None, path: Path, what: str, name: str, progress: Progress) -> float | None:
    if judge is None:
        return None
    with progress.stage(f"accuracy of {what} on {len(judge.test)} texts"):
        return judge.accuracy(path, name)


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
    cut: _Cut, staged: Path, precision: Precision, judge: Judge | None
) -> tuple[str, float | None, PrecisionReport | None]:
    """Cut in float32, then write that in another precision to `staged`.

    Returns:
        Of the float32 file the fingerprint and the largest error, and what the precision costs, where that is judged.

    Raises:
        AnatomyError: the file's weights are not float32. VerifyError: it loses more accuracy than it may.
    """
    progress = cut.progress
    if not cut.model.is_float32:
        raise AnatomyError(
            f"{cut.model.path}: its weights are not float32, --precision {precision.name} starts from such; "
            "next step: leave --precision out"
        )
    with tempfile.TemporaryDirectory(dir=staged.parent) as folder:
        exact = Path(folder) / "cut.onnx"
        fingerprint, max_error = cut.write(exact)
        with progress.stage(f"convert to {precision.name}"):
            calibration = judge.calibration_inputs() if judge is not None and precision.calibrated else ()
            conversion = convert_precision(exact, staged, precision, calibration)
            OnnxSession(staged, f"the {precision.name} file", hint="next step: leave --precision out")
        if note := target_cpu_note(conversion):
            progress.note(note)
        if judge is None:
            return fingerprint, max_error, None
        with progress.stage(f"compare {precision.name} with fp32 on {len(judge.validation) + len(judge.test)} texts"):
            if precision.name == "fp16":
                check_fp16_range(exact, staged, judge.range_inputs())
            report = judge.report(exact, staged, precision, conversion)
            report.raise_for_drop()
    return fingerprint, max_error, report


def _set_metadata(model: OnnxModel, plan: PrunePlan, fingerprint: str | None) -> None:
    """Keep what the file says of itself; say what is new in the words of an export."""
    metadata = {
        **model.metadata,
        "anatomy.mode": "slice",
        "anatomy.plan_sha256": plan.sha256,
        "anatomy.source_fingerprint": plan.fingerprint,
        WIDTHS: ",".join(map(str, plan.kept_widths)),
        "anatomy.criterion": plan.criterion,
    }
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
    reason = _invalid(cut.proto)
    if not reason:
        return
    before = _invalid(read_model(cut.path))
    if not before:
        raise AnatomyError(f"the cut model is not valid ONNX ({reason}), the uncut one is; next step: report this")
    progress.note(f"note: {cut.path} is not valid ONNX, before the cut as after ({before})")


def _invalid(model: onnx.ModelProto) -> str:
    """Why a model does not pass the checks of ONNX, shapes included; "" where it does."""
    try:
        onnx.checker.check_model(without_large_tensors(model), full_check=True)
    except Exception as error:
        return first_line(error)[:300]
    return ""
