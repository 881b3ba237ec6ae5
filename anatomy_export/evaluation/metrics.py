"""How often predictions are right, and how far those of a pruned model are from the dense one's."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

NORMAL_975 = 1.959964


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95 % interval of a share of `right` among `total` > 0 (Wilson, "Probable inference", JASA 1927)."""
    share, z2 = right / total, NORMAL_975**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    reach = NORMAL_975 / (1 + z2 / total) * sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def compare_predictions(dense: np.ndarray, pruned: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy, agreement with the dense predictions and mean |Δ probability| of a class, as fractions.

    Args:
        dense, pruned: class probabilities, (texts, classes).
        labels: (texts,).
    """
    return {
        "accuracy": float((pruned.argmax(1) == labels).mean()),
        "agreement": float((dense.argmax(1) == pruned.argmax(1)).mean()),
        "probability_change": float(np.abs(dense - pruned).mean()),
    }


def expected_drop(dense: np.ndarray, pruned: np.ndarray) -> float:
    """How much less often the pruned model is right if the dense model's probabilities are true, a fraction ≥ 0.

    It varies less between samples than the difference of two accuracies, for labels do not enter.

    Args:
        dense, pruned: class probabilities, (texts, classes).
    """
    return float(expected_losses(dense, pruned).mean())


def expected_losses(dense: np.ndarray, pruned: np.ndarray) -> np.ndarray:
    """Of each text p(dense class) − p(pruned class), both by the dense model: (texts,); see `expected_drop`."""
    return dense.max(1) - dense[np.arange(len(dense)), pruned.argmax(1)]


@dataclass(frozen=True)
class ValidationDrop:
    """What a pruned model loses on validation texts: accuracies and `expected_drop`, as fractions."""

    accuracy_dense: float
    accuracy_pruned: float
    expected_drop: float

    @property
    def measured_points(self) -> float:
        """Drop of accuracy in points; below 0 where the pruned model is right more often."""
        return 100 * (self.accuracy_dense - self.accuracy_pruned)

    @property
    def points(self) -> float:
        """The larger of the measured and the expected drop, in points."""
        return max(self.measured_points, 100 * self.expected_drop)


def validation_drop(dense: np.ndarray, pruned: np.ndarray, labels: np.ndarray) -> ValidationDrop:
    """As `compare_predictions` takes them."""
    before, after = (float((probabilities.argmax(1) == labels).mean()) for probabilities in (dense, pruned))
    return ValidationDrop(before, after, expected_drop(dense, pruned))
