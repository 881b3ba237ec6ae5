"""`anatomy slice-onnx` as a job: open the model, read or make the plan, cut, judge, write. Without torch."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import require_free_file, staged_file
from anatomy_export.core.progress import Progress
from anatomy_export.data.data_options import DataOptions
from anatomy_export.data.loading import Dataset, Examples, load_dataset
from anatomy_export.data.probes import choose_probes, load_probes
from anatomy_export.evaluation.judge import CALIBRATION_TEXTS, Judge
from anatomy_export.evaluation.precision_gate import FP32, Precision
from anatomy_export.evaluation.text_reader import TextReader, beside, config_classes, text_form
from anatomy_export.plan_files.model_identity import UNRECORDED
from anatomy_export.plan_files.plan import PrunePlan, read_plan
from anatomy_export.plan_files.repair_file import read_repair
from anatomy_export.surgery.cut import SliceResult, slice_onnx
from anatomy_export.surgery.model import OnnxModel
from anatomy_export.surgery.plan_from_file import probes_plan, weights_plan


@dataclass(frozen=True)
class SliceRequest:
    """What `anatomy slice-onnx` is asked for; a plan, or how to make one from the file.

    `allow_uncut` cuts what can be, without a plan, although something else looks like an FFN. `probes` and
    `strong_threshold` are of criterion anatomy. `data` is the labelled text that accuracy is measured on. Both read
    text with `tokenizer`, None for the tokenizer.json beside the model. `limits_drop`: the limit of `precision` was
    asked for, and is not only the default.
    """

    model: Path
    output: Path | None = None
    plan: Path | None = None
    keep_ratio: float | None = None
    criterion: str = "magnitude"
    align: int = 16
    seed: int = 0
    probes: str | None = None
    strong_threshold: float = 0.35
    precision: Precision = FP32
    limits_drop: bool = False
    data: DataOptions = field(default_factory=DataOptions)
    tokenizer: Path | None = None
    save_plan: Path | None = None
    allow_uncut: bool = False
    force: bool = False
    dry_run: bool = False


def run_slice(request: SliceRequest, progress: Progress) -> SliceResult:
    """Open the model, read or make the plan, cut, write.

    Raises:
        AnatomyError: see `slice_onnx`.
    """
    if request.output is not None:
        require_free_file(request.output, request.force)
    with progress.stage(f"read {request.model.name}"):
        given = None if request.plan is None else read_plan(request.plan)
        repair = None if given is None or request.plan is None else read_repair(given, request.plan.parent)
        model = OnnxModel(request.model)
    _check_save_plan(request, model)
    reader = _reader(request, model)
    data = _data(request, model, progress)
    plan = _plan_of_file(request, model, reader, data, progress) if given is None else given
    if plan.removed == 0:
        progress.note("note: the plan keeps every neuron, so the result computes what the model did")
    judge = _judge(request, data, reader, progress)
    with _plan_beside(request, plan):
        result = slice_onnx(
            model,
            plan,
            repair,
            request.output,
            precision=request.precision,
            judge=judge,
            force=request.force,
            progress=progress,
        )
    if given is not None and given.recorded_logits is None:
        progress.note(UNRECORDED)
    if given is not None and (uncut := model.uncut()):
        progress.note(f"note: {uncut}")
    _note_bad_labels(judge, result.accuracy[0], progress)
    return result


def _note_bad_labels(judge: Judge | None, accuracy: float | None, progress: Progress) -> None:
    """Note an accuracy before the cut that whoever always names one class has too."""
    if judge is not None and accuracy is not None and accuracy <= judge.majority_share and accuracy < 1:
        progress.note(
            f"note: before the cut the model is right on {accuracy:.1%} of the test texts, no more than by always "
            f"naming one class ({judge.majority_share:.1%}); next step: check --label-column and the class names"
        )


@contextmanager
def _plan_beside(request: SliceRequest, plan: PrunePlan) -> Iterator[None]:
    """Write the plan where it is asked for, once the block is through; that it can be is seen before."""
    if request.save_plan is None:
        yield
        return
    with staged_file(request.save_plan, request.force) as staged:
        staged.write_text(plan.to_json(), encoding="utf-8")
        yield


def _check_save_plan(request: SliceRequest, model: OnnxModel) -> None:
    """Raise AnatomyError where the plan would replace a file: of the model that is cut, of the result, or any other."""
    path, output = request.save_plan, request.output
    if path is None:
        return
    model.refuse_output(path)
    if output is not None and path.resolve() in (output.resolve(), output.with_name(f"{output.name}.data").resolve()):
        raise AnatomyError(f"--save-plan and --output are the same file {path}; next step: choose another --save-plan")
    require_free_file(path, request.force)


def _reader(request: SliceRequest, model: OnnxModel) -> TextReader | None:
    """None where no text is read."""
    if request.data.data is None and (request.plan is not None or request.criterion != "anatomy"):
        return None
    tokenizer = request.tokenizer or beside(model.folder, "tokenizer.json")
    config = beside(model.folder, "config.json")
    return TextReader(tokenizer, text_form(model.proto.graph, config, tokenizer, request.data.max_length))


def _data(request: SliceRequest, model: OnnxModel, progress: Progress) -> Dataset | None:
    options = request.data
    if options.data is None:
        return None
    data = load_dataset(
        options.data,
        text_column=options.text_column,
        label_column=options.label_column,
        split_column=options.split_column,
        class_names=_classes(model),
    )
    for note in data.notes:
        progress.note(f"note: {note}")
    return data


def _judge(request: SliceRequest, data: Dataset | None, reader: TextReader | None, progress: Progress) -> Judge | None:
    """What accuracy is measured by; None without labelled text, which is said where it matters."""
    options = request.data
    if reader is None or data is None:
        if request.precision.converts and request.output is not None:
            progress.note(
                f"note: what {request.precision.name} costs in accuracy is not measured; "
                "next step: pass labelled text as --data"
            )
        return None
    if request.precision.calibrated and not len(data.train):
        raise AnatomyError(
            f"data {options.data}: no train texts, which static int8 takes its ranges from; "
            "next step: pass some, or use --int8 dynamic"
        )
    test = data.test.head(options.eval_examples)
    validation = _validation(request, data, test, progress)
    _note_cut_off(reader, {*test.texts, *validation.texts}, progress)
    return Judge(reader, test, validation, data.train.texts[:CALIBRATION_TEXTS])


def _validation(request: SliceRequest, data: Dataset, test: Examples, progress: Progress) -> Examples:
    """The texts on which it is decided whether another precision loses too much: those of test where there are none.

    Raises:
        AnatomyError: there are none, but a limit was asked for.
    """
    if len(data.validation) or not request.precision.converts:
        return data.validation
    if request.limits_drop:
        raise AnatomyError(
            f"data {data.name}: no validation texts, which --max-precision-drop is decided on; "
            "next step: pass some, or leave it out"
        )
    progress.note(f"note: no validation texts, so what {request.precision.name} loses is judged on test")
    return test


def _note_cut_off(reader: TextReader, texts: Collection[str], progress: Progress) -> None:
    count = reader.cut_off(texts)
    if count:
        progress.note(
            f"note: {count:,} of {len(texts):,} texts ({count / len(texts):.1%}) are longer than the "
            f"{reader.form.max_length} tokens that are read, and cut off there"
        )


def _plan_of_file(
    request: SliceRequest, model: OnnxModel, reader: TextReader | None, data: Dataset | None, progress: Progress
) -> PrunePlan:
    if not request.allow_uncut:
        model.refuse_uncut()
    if uncut := model.uncut():
        progress.note(f"note: {uncut}")
    if narrow := model.narrow():
        progress.note(f"note: {narrow}")
    ratio = 1.0 if request.keep_ratio is None else request.keep_ratio
    if reader is None or request.criterion != "anatomy":
        with progress.stage(f"rank neurons by {request.criterion}"):
            return weights_plan(
                model, criterion=request.criterion, keep_ratio=ratio, align=request.align, seed=request.seed
            )
    probes = choose_probes(load_probes(request.probes), _classes(model), data)
    if probes.note:
        progress.note(probes.note)
    with progress.stage("rank neurons by anatomy"):
        return probes_plan(
            model,
            reader,
            probes.texts,
            keep_ratio=ratio,
            align=request.align,
            strong_threshold=request.strong_threshold,
        )


def _classes(model: OnnxModel) -> tuple[str, ...]:
    return config_classes(beside(model.folder, "config.json"))
