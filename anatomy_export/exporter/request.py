"""What `anatomy export` is asked for, and what it tells at the end."""

from dataclasses import dataclass, field
from pathlib import Path

from anatomy_export.progress import Stage


@dataclass(frozen=True)
class ScoreOptions:
    """How neurons are chosen and what is left repaired; None takes the preset's value.

    The budget is `keep_ratio` or `flops_ratio` (shares), `max_accuracy_drop` (points), or without any of them the
    paper's thresholds. `seed` parts calibration text and draws the random criterion.
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
    max_accuracy_drop: float | None = None
    seed: int = 0
    align: int = 1
    probes: str | None = None

    @property
    def by_thresholds(self) -> bool:
        """Do the paper's thresholds decide how many neurons stay?"""
        return self.keep_ratio is None and self.flops_ratio is None and self.max_accuracy_drop is None

    @property
    def by_anatomy_alone(self) -> bool:
        """Is the paper's own way enough, which needs probes but no calibration text?"""
        plain = (self.criterion, self.allocate) == ("anatomy", "uniform")
        return plain and self.flops_ratio is None and self.max_accuracy_drop is None

    @property
    def calibrated(self) -> bool:
        """Is calibration text needed?"""
        return not self.by_anatomy_alone or self.compensate != "none"


@dataclass(frozen=True)
class DataOptions:
    """Which labelled text, and how much of it. Lengths are in tokens, counts in examples.

    `calibration_examples` None: 1,024 where neurons are measured or repaired on them, else 32 to verify on.
    """

    data: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    split_column: str | None = None
    max_length: int | None = None
    eval_examples: int | None = None
    calibration_examples: int | None = None


@dataclass(frozen=True)
class ExportRequest:
    """Everything that `anatomy export` was asked for. Without `compare_dense` no dense graph is made to compare with:
    accuracy and the dense file size are then None."""

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
    score: ScoreOptions = field(default_factory=ScoreOptions)
    data: DataOptions = field(default_factory=DataOptions)


@dataclass(frozen=True)
class ExportResult:
    """What a person or a script is told at the end: each measure dense → pruned, and where it went."""

    output: Path
    neurons: tuple[int, int]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    size_bytes: tuple[int | None, int]
    accuracy: tuple[float | None, float | None]
    max_abs_error: float
    operators: dict[str, int]
    stages: tuple[Stage, ...]

    def measures(self) -> dict[str, dict]:
        """`{"neurons": {"dense": …, "pruned": …}, …}`."""
        names = ("neurons", "parameters", "flops", "size_bytes", "accuracy")
        return {name: dict(zip(("dense", "pruned"), getattr(self, name), strict=True)) for name in names}

    def as_dict(self) -> dict:
        """The object that `--json` prints."""
        return {
            **self.measures(),
            "output": str(self.output),
            "max_abs_error": self.max_abs_error,
            "operators": self.operators,
            "stages": [
                {
                    "name": stage.name,
                    "seconds": round(stage.seconds, 3),
                    "peak_rss_bytes": stage.peak_rss_bytes,
                }
                for stage in self.stages
            ],
        }
