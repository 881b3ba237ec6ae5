"""Cut the FFNs of an existing ONNX file by a plan, without torch: the same function as slicing the torch model."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from anatomy_export.errors import AnatomyError, first_line
from anatomy_export.exporter.fingerprint import ffn_fingerprint
from anatomy_export.exporter.onnx_edit import Editor
from anatomy_export.exporter.onnx_model import FINGERPRINT, OnnxModel, damage_is_refused
from anatomy_export.exporter.onnx_plan import probes_plan, weights_plan
from anatomy_export.exporter.onnx_tensors import DataFile, without_large_tensors
from anatomy_export.exporter.plan import PrunePlan, read_plan
from anatomy_export.exporter.precision import FP32, Precision, chosen_precision, convert_precision
from anatomy_export.exporter.repair import Repair, read_repair
from anatomy_export.files import staged_file, write_atomic
from anatomy_export.probes import load_probes
from anatomy_export.progress import Progress


@dataclass(frozen=True)
class SliceRequest:
    """What `anatomy slice-onnx` is asked for; a plan, or how to make one from the file.

    `tokenizer`, None for the tokenizer.json beside the model, `probes` and `strong_threshold` are of criterion anatomy.
    """

    model: Path
    output: Path | None = None
    plan: Path | None = None
    keep_ratio: float | None = None
    criterion: str = "magnitude"
    align: int = 16
    seed: int = 0
    tokenizer: Path | None = None
    probes: str | None = None
    strong_threshold: float = 0.35
    precision: str = "fp32"
    save_plan: Path | None = None
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class LayerCut:
    """One layer: neurons before and after, and which operators the FFN was found by."""

    layer: int
    width: int
    kept: int
    found_as: str


@dataclass(frozen=True)
class SliceResult:
    """What was cut. `size_bytes`: the file and its external data, before and after."""

    output: Path | None
    layers: tuple[LayerCut, ...]
    size_bytes: tuple[int, int | None]
    plan_sha256: str
    source_fingerprint: str
    fingerprint: str | None
    precision: str = "fp32"

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
            "precision": self.precision,
        }


def run_slice(request: SliceRequest, progress: Progress) -> SliceResult:
    """Open the model, read or make the plan, cut, write.

    Raises:
        AnatomyError: see `slice_onnx`.
    """
    with progress.stage(f"read {request.model.name}"):
        given = None if request.plan is None else read_plan(request.plan)
        repair = None if given is None or request.plan is None else read_repair(given, request.plan.parent)
        model = OnnxModel(request.model)
    plan = _own_plan(request, model, progress) if given is None else given
    if plan.removed == 0:
        progress.note("note: the plan keeps every neuron, so the result computes what the model did")
    precision = chosen_precision(request.precision)
    if precision.converts and request.output is not None:
        progress.note(
            f"note: what {precision.name} costs in accuracy is not measured here; next step: try it on your data"
        )
    result = slice_onnx(
        model, plan, repair, request.output, precision=precision, force=request.force, progress=progress
    )
    if request.save_plan is not None:
        write_atomic(request.save_plan, plan.to_json())
    return result


def _own_plan(request: SliceRequest, model: OnnxModel, progress: Progress) -> PrunePlan:
    ratio = 1.0 if request.keep_ratio is None else request.keep_ratio
    with progress.stage(f"rank neurons by {request.criterion}"):
        if request.criterion == "anatomy":
            return probes_plan(
                model,
                request.tokenizer or model.folder / "tokenizer.json",
                load_probes(request.probes),
                keep_ratio=ratio,
                align=request.align,
                strong_threshold=request.strong_threshold,
            )
        return weights_plan(
            model, criterion=request.criterion, keep_ratio=ratio, align=request.align, seed=request.seed
        )


def slice_onnx(
    model: OnnxModel,
    plan: PrunePlan,
    repair: Repair | None,
    output: Path | None,
    *,
    precision: Precision = FP32,
    force: bool = False,
    progress: Progress,
) -> SliceResult:
    """Cut every planned layer of `model` (in place) and write it to `output`; without one, only check that it could be.

    Args:
        precision: of the file that is written, lowered once the cut is checked.

    Raises:
        AnatomyError: the plan is not for this model, a planned layer cannot be cut, or the result is not valid.
        MissingExtraError: another precision, but no onnxruntime.
    """
    model.check_layers(len(plan.layers))
    with progress.stage(f"check that the plan is for {model.path.name}"):
        source_fingerprint = model.fingerprint()
        plan.check_model(source_fingerprint, model.widths)
        _check_repair_fits(model, repair)
    before = sum(file.stat().st_size for file in model.files())
    layers = tuple(
        LayerCut(layer.layer, layer.width, len(layer.keep), ffn.found_as)
        for layer, ffn in zip(plan.layers, model.ffns, strict=True)
    )
    fingerprint = after = None
    if output is not None:
        _refuse_own_files(model, output)
        with staged_file(output, force) as staged:
            if precision.converts:
                fingerprint = _cut_and_convert(model, plan, repair, staged, precision, progress)
            else:
                fingerprint = _cut_and_write(model, plan, repair, staged, progress)
            after = sum(path.stat().st_size for path in staged.parent.iterdir())
    return SliceResult(output, layers, (before, after), plan.sha256, source_fingerprint, fingerprint, precision.name)


def _refuse_own_files(model: OnnxModel, output: Path) -> None:
    """The output may not replace what it is made from."""
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


def _cut_and_convert(
    model: OnnxModel, plan: PrunePlan, repair: Repair | None, staged: Path, precision: Precision, progress: Progress
) -> str:
    """Cut in float32, then write that in another precision to `staged`; returns the fingerprint of the float32 weights.

    Raises:
        AnatomyError: the file's weights are not float32.
    """
    if not all(ffn.is_float32 for ffn in model.ffns):
        raise AnatomyError(
            f"{model.path}: its weights are not float32, --precision {precision.name} starts from such; "
            "next step: leave --precision out"
        )
    with tempfile.TemporaryDirectory(dir=staged.parent) as folder:
        cut = Path(folder) / "cut.onnx"
        fingerprint = _cut_and_write(model, plan, repair, cut, progress)
        with progress.stage(f"convert to {precision.name}"):
            convert_precision(cut, staged, precision)
            _check_opens(staged, precision)
    return fingerprint


def _check_opens(path: Path, precision: Precision) -> None:
    """Raise AnatomyError where ONNX Runtime does not take the converted file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise AnatomyError(
            f"ONNX Runtime refuses the {precision.name} file ({first_line(error)[:200]}); "
            "next step: leave --precision out"
        ) from error


def _cut_and_write(model: OnnxModel, plan: PrunePlan, repair: Repair | None, staged: Path, progress: Progress) -> str:
    """Write the cut model to `staged`, its external data beside it; returns its fingerprint."""
    editor = Editor(model.proto, model.graph, DataFile(staged.parent, f"{staged.name}.data"))
    with progress.stage("cut"), damage_is_refused(model.path):
        found = ffn_fingerprint(
            ffn.cut_(editor, np.array(layer.keep), None if repair is None else repair.layers[layer.layer])
            for layer, ffn in zip(plan.layers, model.ffns, strict=True)
        )
        exact = all(ffn.is_float32 for ffn in model.ffns)
        editor.finish_()
        _set_metadata(model, plan, found if exact else None)
        editor.save(staged, model.folder)
    with progress.stage("check the result"), damage_is_refused(model.path):
        _check(OnnxModel(staged, model.proto), plan, found if exact else None)
    return found


def _set_metadata(model: OnnxModel, plan: PrunePlan, fingerprint: str | None) -> None:
    """Keep what the file says of itself; say what is new in the words of an export."""
    new = {
        "anatomy.mode": "slice",
        "anatomy.plan_sha256": plan.sha256,
        "anatomy.source_fingerprint": plan.fingerprint,
        "anatomy.widths": ",".join(map(str, plan.kept_widths)),
        "anatomy.criterion": plan.criterion,
    }
    metadata = {**model.metadata, **new}
    metadata.pop(FINGERPRINT, None)
    if fingerprint is not None:
        metadata[FINGERPRINT] = fingerprint
    onnx.helper.set_model_props(model.proto, metadata)


def _check(written: OnnxModel, plan: PrunePlan, fingerprint: str | None) -> None:
    """Raise AnatomyError unless the result is valid ONNX whose shapes agree and whose FFNs are the planned ones."""
    small = without_large_tensors(written.proto)
    try:
        onnx.checker.check_model(small, full_check=True)
    except Exception as error:
        raise AnatomyError(
            f"the cut model is not valid ONNX ({first_line(error)[:300]}); next step: does the uncut one pass "
            "onnx.checker.check_model with full_check?"
        ) from error
    if written.widths != plan.kept_widths:
        raise AnatomyError(f"the cut model has FFNs of {written.widths}, the plan keeps {plan.kept_widths}")
    if fingerprint is not None and written.fingerprint() != fingerprint:
        raise AnatomyError("the cut model does not hold the weights that were cut; next step: report this")
