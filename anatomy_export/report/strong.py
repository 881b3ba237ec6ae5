"""Which neurons a report shows as strong."""

from dataclasses import dataclass

import numpy as np

from anatomy_export.report.sources import Score


@dataclass(frozen=True)
class Strong:
    """Which neurons are shown as strong: one boolean (P, n) a layer, similarity above `threshold`.

    `substitute`: none exceeds the anatomy's own threshold, so that the most similar ones stand in.
    """

    masks: tuple[np.ndarray, ...]
    threshold: float
    substitute: bool

    @property
    def counts(self) -> list[int]:
        """Neurons of each layer that are strong for any probe."""
        return [int(mask.any(axis=0).sum()) for mask in self.masks]

    @property
    def total(self) -> int:
        """The same over all layers."""
        return sum(self.counts)

    @property
    def words(self) -> str:
        return f"similarity above {self.threshold:.3g}"


def strong_neurons(score: Score) -> Strong:
    """By the anatomy's threshold; where nothing exceeds it, by the quantile that the score names."""
    threshold, lower = score.anatomy.strong_threshold, score.summary.quantile_threshold
    strong = Strong(_masks(score, threshold), threshold, substitute=False)
    if strong.total or lower is None:
        return strong
    return Strong(_masks(score, lower), lower, substitute=True)


def _masks(score: Score, threshold: float) -> tuple[np.ndarray, ...]:
    return tuple(similarity > threshold for similarity in score.anatomy.neuron_similarity)
