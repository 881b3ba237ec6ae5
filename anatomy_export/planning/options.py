"""How neurons are chosen: what can be asked for."""

from dataclasses import dataclass

from anatomy_export.core.arguments import check_choice, check_finite, check_share, check_whole
from anatomy_export.paper.anatomy import REDUCTIONS, STRONG_THRESHOLD
from anatomy_export.planning.allocation import ALLOCATIONS, UNIFORM
from anatomy_export.repair.repair_modes import MODES, NONE

BUDGETS = ("keep_ratio", "flops_ratio", "target_speedup", "max_accuracy_drop")

PAPERS_OWN = ("preset", "alpha", "beta", "focus")

OF_ANATOMY = ("strong_threshold", "probe_reduction", "probes")


@dataclass(frozen=True)
class PruneMethod:
    """How neurons are ranked (`criterion`), shared out over the layers (`allocate`), and what is left repaired."""

    criterion: str
    allocate: str
    compensate: str


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
    strong_threshold: float = STRONG_THRESHOLD
    probe_reduction: str = "mean"
    criterion: str = "anatomy"
    compensate: str = NONE
    allocate: str = UNIFORM
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
        check_choice("compensate", self.compensate, MODES)
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
    def method(self) -> PruneMethod:
        """Criterion, allocation and repair."""
        return PruneMethod(self.criterion, self.allocate, self.compensate)

    @property
    def by_thresholds(self) -> bool:
        """Do the paper's thresholds decide how many neurons stay?"""
        return all(getattr(self, name) is None for name in BUDGETS)

    @property
    def by_anatomy_alone(self) -> bool:
        """Is the paper's own way enough, which needs probes but no calibration text?"""
        plain = (self.criterion, self.allocate) == ("anatomy", UNIFORM)
        return plain and all(getattr(self, name) is None for name in BUDGETS if name != "keep_ratio")

    @property
    def calibrated(self) -> bool:
        """Is calibration text needed?"""
        return not self.by_anatomy_alone or self.compensate != NONE
