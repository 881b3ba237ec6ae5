"""Which neurons a report shows as strong."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.report.sources import Score


@dataclass(frozen=True)
class Strong:
    """The neurons that are strong in `anatomy`, whose threshold is lowered where `substitute`: none exceeds its own."""

    anatomy: Anatomy
    substitute: bool

    @cached_property
    def masks(self) -> list[np.ndarray]:
        """Of each layer, which neurons are strong for a probe, (P, n)."""
        return [self.anatomy.strong_mask(layer) for layer in range(self.anatomy.num_layers)]

    @property
    def counts(self) -> list[int]:
        """Neurons of each layer that are strong for any probe."""
        return [int(mask.any(axis=0).sum()) for mask in self.masks]

    @property
    def words(self) -> str:
        return f"similarity above {self.anatomy.strong_threshold:.3g}"


def strong_neurons(score: Score) -> Strong:
    """By the anatomy's threshold; where nothing exceeds it, by the quantile that the score names."""
    strong, lower = Strong(score.anatomy, substitute=False), score.summary.quantile_threshold
    if any(strong.counts) or lower is None:
        return strong
    return Strong(replace(score.anatomy, strong_threshold=lower), substitute=True)
