"""What a report is made of: one frozen value for each result of the toolkit."""

from dataclasses import dataclass
from pathlib import Path

from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.plans.plan import PrunePlan


@dataclass(frozen=True)
class Score:
    """An anatomy and the model it is of; `tasks` has one entry a probe, None where its task is not known.

    `quantile_threshold` is the similarity above which the `quantile_share` most similar neurons lie.
    """

    label: str
    path: Path
    anatomy: Anatomy
    model: str
    family: str
    rule: str
    widths: tuple[int, ...]
    tasks: tuple[str | None, ...]
    jaccard_chance: float | None
    quantile_threshold: float | None
    quantile_share: float | None
    kind: str = "score"


@dataclass(frozen=True)
class Seconds:
    """For `examples` texts; `dense_ratio` is the dense model's time ÷ this one's."""

    median_s: float
    interval_s: tuple[float, float] | None
    examples: int
    engine: str
    device: str
    dense_ratio: float | None
    dense_ratio_interval: tuple[float, float] | None

    def beside(self, dense: "Seconds | None") -> tuple[float, float, float]:
        """Seconds with their interval, from the ratio to the dense model where that is known.

        Setups are timed in groups, at different times, and the dense model with each: the ratio can be compared.
        """
        if dense is None or self.dense_ratio is None:
            low, high = self.interval_s or (self.median_s, self.median_s)
            return self.median_s, low, high
        low, high = self.dense_ratio_interval or (self.dense_ratio, self.dense_ratio)
        return dense.median_s / self.dense_ratio, dense.median_s / high, dense.median_s / low


@dataclass(frozen=True)
class Setup:
    """One way to prune, measured. Accuracies, shares and agreement are fractions; `refused` says why there are none."""

    name: str
    kind: str
    alpha: float | None
    beta: float | None
    focus: tuple[int, ...]
    seed: int | None
    matches: str | None
    share: float | None
    thresholds: tuple[tuple[float, str], ...] | None
    removed_per_layer: tuple[int, ...] = ()
    removed: int = 0
    removed_share: float = 0.0
    accuracy: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)
    agreement: float = 0.0
    mean_abs_delta: float = 0.0
    seconds: Seconds | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Study:
    """A score and the paper's experiment on the same model. `dense_seconds` is None where it was not timed."""

    score: Score
    settings: dict
    environment: dict | None
    partial: bool
    dense_accuracy: float
    dense_interval: tuple[float, float]
    examples: int
    dense_seconds: Seconds | None
    setups: tuple[Setup, ...]
    kind: str = "study"

    @property
    def label(self) -> str:
        return self.score.label

    @property
    def path(self) -> Path:
        return self.score.path

    def measured(self, kind: str) -> list[Setup]:
        """Setups of one kind that have figures, by neurons removed."""
        own = [one for one in self.setups if one.kind == kind and one.refused is None]
        return sorted(own, key=lambda one: (one.removed, one.name))


@dataclass(frozen=True)
class Comparison:
    """The largest difference of a logit between two computations of a batch of `shape`."""

    name: str
    shape: tuple[int, int]
    max_abs_error: float
    tolerance: float


@dataclass(frozen=True)
class Bundle:
    """An exported model: `result` is by quantity the dense and the pruned value (None: not measured)."""

    label: str
    path: Path
    name: str
    mode: str
    result: dict[str, tuple[float | None, float | None]]
    comparisons: tuple[Comparison, ...]
    plan: PrunePlan
    kind: str = "bundle"


@dataclass(frozen=True)
class Bench:
    """A `bench.json`."""

    label: str
    path: Path
    body: dict
    kind: str = "bench"


@dataclass(frozen=True)
class Pareto:
    """A `pareto.json`."""

    label: str
    path: Path
    body: dict
    kind: str = "pareto"


Source = Score | Study | Bundle | Bench | Pareto
