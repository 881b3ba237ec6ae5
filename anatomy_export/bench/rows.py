"""The rows of `results` in a `bench.json`."""

from dataclasses import dataclass, fields
from typing import Any

from anatomy_export.bench.contestants import Contestant
from anatomy_export.bench.stats import Ratio, Summary, closure_of

CLOSURE_VOID_WIDTH = 0.2


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


@dataclass(frozen=True, kw_only=True)
class Row:
    """A contestant's raw seconds; `seq_len` is None where batches differ in length, `median_s` is that of the times."""

    worker: str
    contestant: Contestant
    gains: Gains
    batch: int
    seq_len: int | None
    median_s: float
    peak_rss_bytes: int | None
    times_s: list[float]

    def values(self) -> dict[str, Any]:
        """The row as it stands in the file: all fields on one level."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            values |= value.values() if isinstance(value, Contestant | Gains | Summary) else {field.name: value}
        return values


@dataclass(frozen=True, kw_only=True)
class BenchRow(Row):
    """On one input shape. `flops` are those that really run, `model` and `engine_facts` are as they say of themselves.

    `roofline_share` is the rate ÷ the best matrix-product rate of the same rounds, of fp32 only.
    """

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


@dataclass(frozen=True, kw_only=True)
class PaperRow(Row):
    """On the paper's job: `total_s` for the `examples` done.

    Bucketed rows have the share of texts of the same class as padded, and the largest difference of a logit.
    """

    layout: str
    texts: str
    total_s: float
    examples: int
    examples_per_s: float
    same_classes: float | None
    max_abs_difference: float | None
