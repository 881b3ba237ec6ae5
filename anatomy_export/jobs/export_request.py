"""What `anatomy export` is asked for, and what it tells at the end."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from anatomy_export.core.progress import Stage
from anatomy_export.data.data_options import DataOptions
from anatomy_export.evaluation.precision_gate import Precision, PrecisionReport


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
            "stages": [{**asdict(stage), "seconds": round(stage.seconds, 3)} for stage in self.stages],
        }
