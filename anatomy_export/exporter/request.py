"""What `anatomy export` is asked for, and what it tells at the end."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from anatomy_export.exporter.allocate import GLOBAL, SENSITIVITY, UNIFORM
from anatomy_export.exporter.anatomy import REDUCTIONS
from anatomy_export.exporter.arguments import check_choice, check_finite, check_share, check_whole
from anatomy_export.exporter.precision import Precision, PrecisionReport
from anatomy_export.progress import Stage

BUDGETS = ("keep_ratio", "flops_ratio", "target_speedup", "max_accuracy_drop")
PAPERS_OWN = ("preset", "alpha", "beta", "focus")
OF_ANATOMY = ("strong_threshold", "probe_reduction", "probes")
ALLOCATIONS = (UNIFORM, GLOBAL, SENSITIVITY)
REPAIRS = ("none", "bias", "least-squares", "auto")


@dataclass(frozen=True)
class ScoreOptions:
    """How neurons are chosen and what is left repaired; None takes the preset's value.

    The budget is `keep_ratio` or `flops_ratio` (shares), `target_speedup` (of the whole model on `batch` inputs of
    `seq_len` tokens, None for 128 or what the model takes), `max_accuracy_drop` (points), or without any of them the
    paper's thresholds. `seed` parts calibration text and draws the random criterion.

    Raises:
        AnatomyError: a value that means nothing.
    """

    preset: str | None = None
    alpha: float | None = None
    beta: float | None = None
    focus: tuple[int, ...] | None = None
    strong_threshold: float = 0.35
    probe_reduction: str = "mean"
    criterion: str = "anatomy"
    compensate: str = "none"
    allocate: str = "uniform"
    keep_ratio: float | None = None
    flops_ratio: float | None = None
    target_speedup: float | None = None
    batch: int = 1
    seq_len: int | None = None
    max_accuracy_drop: float | None = None
    seed: int = 0
    align: int = 1
    probes: str | None = None

    def __post_init__(self) -> None:
        check_choice("probe_reduction", self.probe_reduction, REDUCTIONS)
        check_choice("allocate", self.allocate, ALLOCATIONS)
        check_choice("compensate", self.compensate, REPAIRS)
        check_finite("strong_threshold", self.strong_threshold)
        for name, least in (("align", 1), ("batch", 1), ("seq_len", 2), ("seed", 0)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        for name in ("alpha", "beta", "target_speedup", "max_accuracy_drop"):
            if getattr(self, name) is not None:
                check_finite(name, getattr(self, name))
        for name in ("keep_ratio", "flops_ratio"):
            if getattr(self, name) is not None:
                check_share(name, getattr(self, name))

    @property
    def by_thresholds(self) -> bool:
        """Do the paper's thresholds decide how many neurons stay?"""
        return all(getattr(self, name) is None for name in BUDGETS)

    @property
    def by_anatomy_alone(self) -> bool:
        """Is the paper's own way enough, which needs probes but no calibration text?"""
        plain = (self.criterion, self.allocate) == ("anatomy", "uniform")
        return plain and all(getattr(self, name) is None for name in BUDGETS if name != "keep_ratio")

    @property
    def calibrated(self) -> bool:
        """Is calibration text needed?"""
        return not self.by_anatomy_alone or self.compensate != "none"


PAPER = ScoreOptions()
UNCALIBRATED = ScoreOptions(keep_ratio=0.5)
UNMEASURED = ScoreOptions(criterion="obs-gradient", compensate="auto", allocate="sensitivity", keep_ratio=0.5)
DEFAULT = replace(UNMEASURED, keep_ratio=None, max_accuracy_drop=0.5)


def score_options(given: dict, *, calibrated: bool, measured: bool, align: int) -> ScoreOptions:
    """What was given, and for the rest the defaults (docs/adr/0003).

    Args:
        given: fields of `ScoreOptions` by name. One of the paper's own (preset, alpha, beta, focus) asks for its rule.
        calibrated: there is calibration text.
        measured: accuracy on validation can be measured.
        align: width multiple of this device, for all but the paper's rule.
    """
    if any(name in given for name in PAPERS_OWN):
        return replace(PAPER, **given)
    base = replace(UNCALIBRATED if not calibrated else DEFAULT if measured else UNMEASURED, align=align)
    if any(name in given for name in BUDGETS):
        base = replace(base, keep_ratio=None, max_accuracy_drop=None)
    return replace(base, **given)


@dataclass(frozen=True)
class DataOptions:
    """Which labelled text, and how much of it. Lengths are in tokens, counts in examples.

    `calibration_examples` None: 1,024, of at most 65,536 tokens in all, where neurons are measured or repaired on them,
    else 32 to verify on. `unlabelled` text is calibrated on, and nothing else. `allow_bad_labels` goes on with labels
    that the dense model's classes do not fit.
    """

    data: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    split_column: str | None = None
    max_length: int | None = None
    eval_examples: int | None = None
    calibration_examples: int | None = None
    unlabelled: bool = False
    allow_bad_labels: bool = False


@dataclass(frozen=True)
class ExportRequest:
    """Everything that `anatomy export` was asked for.

    `score` holds those `ScoreOptions` that were given, by name; `score_options` fills in the rest. Without
    `compare_dense` no dense graph is made to compare with: accuracy and the dense file size are then None.
    """

    model: str
    mode: str = "slice"
    output: Path | None = None
    force: bool = False
    plan: Path | None = None
    fuse: str = "ort"
    exporter: str = "dynamo"
    with_checkpoint: bool = False
    allow_random_head: bool = False
    compare_dense: bool = True
    ort_format: bool = False
    precision: Precision = field(default_factory=Precision)
    score: dict = field(default_factory=dict)
    data: DataOptions = field(default_factory=DataOptions)


@dataclass(frozen=True)
class ExportResult:
    """What a person or a script is told at the end: each measure dense → pruned, and where it went.

    `flops` are of one text of `flops_tokens` tokens, the mean of the data where there is any. Size, accuracy and
    operators of the pruned model are those of the file that ships; `precision` says how that came from the fp32 file,
    which `max_abs_error` is of.
    """

    output: Path
    neurons: tuple[int, int]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    flops_tokens: int
    size_bytes: tuple[int | None, int]
    accuracy: tuple[float | None, float | None]
    max_abs_error: float
    operators: dict[str, int]
    stages: tuple[Stage, ...]
    precision: PrecisionReport | None = None

    def measures(self) -> dict[str, dict]:
        """`{"neurons": {"dense": …, "pruned": …}, …}`."""
        names = ("neurons", "parameters", "flops", "size_bytes", "accuracy")
        return {name: dict(zip(("dense", "pruned"), getattr(self, name), strict=True)) for name in names}

    def as_dict(self) -> dict:
        """The object that `--json` prints."""
        return {
            **self.measures(),
            "output": str(self.output),
            "flops_tokens": self.flops_tokens,
            "max_abs_error": self.max_abs_error,
            "operators": self.operators,
            "precision": None if self.precision is None else asdict(self.precision),
            "stages": [
                {
                    "name": stage.name,
                    "seconds": round(stage.seconds, 3),
                    "peak_rss_bytes": stage.peak_rss_bytes,
                }
                for stage in self.stages
            ],
        }
