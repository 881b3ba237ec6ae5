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
    def total(self) -> int:
        """Neurons that are strong for any probe, over all layers."""
        return sum(int(mask.any(axis=0).sum()) for mask in self.masks)

    @property
    def words(self) -> str:
        return f"similarity above {self.threshold:.3g}"


def strong_neurons(score: Score) -> Strong:
    """By the anatomy's threshold; where nothing exceeds it, by the quantile that the score names."""
    own = score.anatomy.strong_threshold
    masks = tuple(similarity > own for similarity in score.anatomy.neuron_similarity)
    if any(mask.any() for mask in masks) or score.quantile_threshold is None:
        return Strong(masks, own, substitute=False)
    lower = score.quantile_threshold
    return Strong(tuple(one > lower for one in score.anatomy.neuron_similarity), lower, substitute=True)
