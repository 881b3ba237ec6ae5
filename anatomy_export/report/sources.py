"""What a report is made of: one frozen value for each result of the toolkit, with the names that its JSON has.

Fields that a file may lack have a default. Accuracies, shares and agreement are fractions.
"""

from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.plan_files.plan import PrunePlan

Whole = Annotated[int, Meta(ge=0)]
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Environment:
    """The machine and the software that something was measured with."""

    cpu: str = "unknown CPU"
    threads: int | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Of what was asked for, the model: as it was named, by the SHA-256 of its weights; None where nobody knows."""

    model: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A directory, and what it is called; `source` is the kind of result in it."""

    source: ClassVar[str]
    label: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Measurement(Source):
    """What was measured on a machine; `partial`: it was interrupted."""

    partial: bool = False
    settings: Settings = Settings()
    environment: Environment | None = None


@dataclass(frozen=True)
class Probe:
    """A probe's text; `task` is None where it is not known."""

    text: str
    task: str | None = None


@dataclass(frozen=True)
class Summary:
    """`quantile_threshold` is the similarity above which the `quantile_share` most similar neurons lie."""

    jaccard_chance: float | None = None
    quantile_threshold: float | None = None
    quantile_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Score(Source):
    """An anatomy and the model it is of."""

    source = "score"
    anatomy: Anatomy
    model: str
    family: str
    rule: Literal["bert", "gpt2"]
    widths: Annotated[tuple[Whole, ...], Meta(min_length=1)]
    probes: Annotated[tuple[Probe, ...], Meta(min_length=1)]
    summary: Summary


@dataclass(frozen=True)
class Seconds:
    """For `examples` texts; `dense_ratio` is the dense model's time ÷ this one's."""

    median_s: float
    interval_s: Bounds | None
    examples: Whole
    engine: str
    device: str | None = None
    dense_ratio: float | None = None
    dense_ratio_interval: Bounds | None = None

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
class Threshold:
    """The similarity above which neurons of a layer go, and which rule gave it."""

    value: float
    rule: str


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One way to prune, as it was asked for; `refused` says why there are no figures."""

    name: str
    kind: Literal["anatomy", "random"]
    alpha: float | None = None
    beta: float | None = None
    focus: tuple[Whole, ...] | None = None
    seed: Whole | None = None
    matches: str | None = None
    share: float | None = None
    refused: str | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredSetup(Setup):
    """A setup with its figures."""

    thresholds: tuple[Threshold, ...] | None = None
    removed_per_layer: tuple[Whole, ...]
    removed: Whole
    removed_share: float
    accuracy: float
    interval: Bounds
    agreement: float
    seconds: Seconds | None = None


@dataclass(frozen=True)
class Dense:
    """The dense model on `examples` test texts; `seconds` where it was timed."""

    accuracy: float
    interval: Bounds
    examples: Whole
    seconds: Seconds | None = None


@dataclass(frozen=True, kw_only=True)
class Study(Measurement):
    """A score and the paper's experiment on the same model."""

    source = "study"
    score: Score
    dense: Dense
    setups: tuple[Setup, ...]

    def measured(self, kind: str) -> list[MeasuredSetup]:
        """Setups of one kind that have figures, by neurons removed."""
        setups = [setup for setup in self.setups if isinstance(setup, MeasuredSetup) and setup.kind == kind]
        return sorted(setups, key=lambda setup: (setup.removed, setup.name))

    def rivals(self, setup: Setup) -> list[MeasuredSetup]:
        """The random draws of as many neurons as a setup removes."""
        return [other for other in self.measured("random") if other.matches == setup.name]


@dataclass(frozen=True)
class Comparison:
    """The largest difference of a logit between two computations of a batch of `shape`."""

    name: str
    shape: tuple[Whole, Whole]
    max_abs_error: float
    tolerance: float


@dataclass(frozen=True)
class Quantity:
    """A value of the dense and of the pruned model; None: not measured."""

    dense: float | None = None
    pruned: float | None = None


@dataclass(frozen=True, kw_only=True)
class Bundle(Source):
    """An exported model; `result` is by quantity."""

    source = "bundle"
    name: str
    mode: str
    result: dict[str, Quantity]
    comparisons: tuple[Comparison, ...]
    plan: PrunePlan


@dataclass(frozen=True)
class BenchRow:
    """An engine on a variant: one call on an input shape, or the paper's job on some texts in one layout."""

    engine: str
    variant: str
    name: str
    median_s: float
    keep_ratio: float | None = None
    speedup: float | None = None
    io_binding: bool = False
    cuda_graph: bool = False
    batch: int | None = None
    seq_len: int | None = None
    texts: str | None = None
    layout: str | None = None
    total_s: float = nan

    @property
    def setting(self) -> str:
        """The engine, and how it was used."""
        return self.engine + " bound" * self.io_binding + " graph" * self.cuda_graph

    @property
    def removed(self) -> float:
        """Per cent of the neurons."""
        return 100 * (1 - (1.0 if self.keep_ratio is None else self.keep_ratio))


@dataclass(frozen=True, kw_only=True)
class Bench(Measurement):
    """A `bench.json`, of either measurement."""

    source = "bench"
    kind: Literal["bench", "paper"]
    results: tuple[BenchRow, ...]

    def __post_init__(self) -> None:
        if self.is_job and any(isnan(row.total_s) for row in self.results):
            raise ValueError("total_s is missing in a row of the paper's job")

    @property
    def is_job(self) -> bool:
        """Is it of the paper's job?"""
        return self.kind == "paper"

    def time(self, row: BenchRow) -> tuple[float, str]:
        """Number and unit: of the whole job, or the median of a call."""
        return (row.total_s, "s") if self.is_job else (1e3 * row.median_s, "ms")

    def input(self, row: BenchRow) -> str:
        """What a row is comparable in."""
        return f"{row.texts}, {row.layout}" if self.is_job else f"batch {row.batch}, {row.seq_len} tokens"


@dataclass(frozen=True)
class Way:
    """One way to prune, its size and its measured speed."""

    removed: float
    speedup: float
    accuracy: float
    criterion: str | None = None
    compensate: str | None = None


@dataclass(frozen=True)
class Shape:
    """Of the inputs that speeds are of."""

    batch: Whole
    seq_len: Whole


@dataclass(frozen=True, kw_only=True)
class Pareto(Measurement):
    """A `pareto.json`: ways by name, the names of those that no other beats; `tried` counts refused ways too."""

    source = "pareto"
    latency: Shape
    results: dict[str, Way]
    tried: int
    non_dominated: tuple[str, ...] = ()
