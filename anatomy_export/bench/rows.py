"""The rows of `results` in a `bench.json`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from anatomy_export.bench.contestants import Contestant
from anatomy_export.bench.rounds import Samples
from anatomy_export.bench.stats import Ratio, Summary, closure_of

CLOSURE_VOID_WIDTH = 0.2


@dataclass(frozen=True)
class Timed:
    """What was timed, and its raw seconds; `seq_len` is None where batches differ in length, `median_s` theirs."""

    worker: str
    engine: str
    variant: str | None
    name: str
    keep_ratio: float | None
    batch: int
    seq_len: int | None
    median_s: float
    peak_rss_bytes: int | None
    times_s: list[float]


@dataclass(frozen=True)
class Gains:
    """Ratios of times: against the dense model, against PyTorch dense, and the closure by `removed_share` of its FLOPs.

    `closable`: the speed-up is that of removing this share, so that there is a closure.
    """

    speedup: Ratio | None
    torch_speedup: Ratio | None
    removed_share: float | None
    closable: bool

    def values(self) -> dict[str, Any]:
        """Medians and 95 % intervals; a void one is too wide to compare."""
        closure = closure_of(self.speedup, self.removed_share) if self.closable else None
        values: dict[str, Any] = {"removed_share": self.removed_share}
        for name, ratio in (("speedup", self.speedup), ("torch_speedup", self.torch_speedup), ("closure", closure)):
            values |= {name: ratio and ratio.median, f"{name}_interval": ratio and ratio.bounds}
        values["speedup_void"] = bool(self.speedup and self.speedup.void)
        values["closure_void"] = bool(closure and closure.wider_than(CLOSURE_VOID_WIDTH))
        return values


@dataclass(frozen=True)
class BenchRow:
    """A contestant on one input shape. `flops` are those that it really runs, `model` and `engine_facts` as they say.

    `roofline_share` is its rate ÷ the best matrix-product rate of the same rounds, of fp32 only.
    """

    timed: Timed
    gains: Gains
    summary: Summary
    precision: str
    io_binding: bool
    cuda_graph: bool
    sequences_per_s: float
    speedup_against: str
    speedup_against_precision: str
    flops: int | None
    roofline_share: float | None
    model: dict
    engine_facts: dict
    warmup_s: list[float]


@dataclass(frozen=True)
class PaperRow:
    """A contestant on the paper's job: `total_s` for the `examples` done.

    Bucketed rows have the share of texts of the same class as padded, and the largest difference of a logit.
    """

    timed: Timed
    gains: Gains
    layout: str
    texts: str
    total_s: float
    examples: int
    examples_per_s: float
    same_classes: float | None
    max_abs_difference: float | None


def timed(
    contestant: Contestant,
    samples: Samples,
    times_s: list[float],
    *,
    median_s: float,
    batch: int,
    seq_len: int | None,
    job: str = "",
) -> Timed:
    """A row's facts of a contestant; `job` is added to its name, `variant` is the mode where it has one."""
    variant = contestant.variant
    return Timed(
        worker=contestant.name + job,
        engine=contestant.spec.engine,
        variant=variant.mode or variant.name,
        name=variant.name,
        keep_ratio=variant.keep_ratio,
        batch=batch,
        seq_len=seq_len,
        median_s=median_s,
        peak_rss_bytes=samples.peak_rss_bytes.get(contestant.name),
        times_s=times_s,
    )


def as_results(rows: Sequence[BenchRow | PaperRow | None]) -> list[dict[str, Any]]:
    """The rows that there are, as they stand in the file: all fields on one level."""
    return [_flat(row) for row in rows if row]


def _flat(row) -> dict[str, Any]:
    if isinstance(row, Gains):
        return row.values()
    values: dict[str, Any] = {}
    for field in fields(row):
        value = getattr(row, field.name)
        values |= _flat(value) if is_dataclass(value) else {field.name: value}
    return values
