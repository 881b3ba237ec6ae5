"""One calibration pass: the dense model's run, the scores by each criterion, and each layer's predicted damage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anatomy_export.calibration.batches import Batch
from anatomy_export.calibration.gradients import DenseRun
from anatomy_export.calibration.layer_statistics import dense_statistics
from anatomy_export.criteria.obs import gradient_removal, removal_damage, removal_scores, score_gradient
from anatomy_export.criteria.registry import Context, find_criterion


@dataclass(frozen=True)
class Measurement:
    """What planning and repair need of the dense model.

    Attributes:
        dense: its run on the calibration text.
        scores: by criterion, per layer (n,): higher = keep.
        damage: per layer (n + 1,), predicted squared change of the margin once 0, 1, … n neurons are gone and the
            rest is refitted; None where it was not asked for.
        tokens: of each layer, how many count.
    """

    dense: DenseRun
    scores: dict[str, list[np.ndarray]]
    damage: tuple[np.ndarray, ...] | None
    tokens: tuple[int, ...]


def measure(
    model,
    batches: Sequence[Batch],
    criteria: Sequence[str],
    context: Context,
    *,
    repair: bool = True,
    damage: bool = True,
    tick: Callable[[], object] = lambda: None,
) -> Measurement:
    """Score every neuron by each criterion.

    Args:
        repair: keep what repair needs, on disk.
        damage: predict it, which takes a greedy removal of every layer's neurons.
        tick: called after each batch, then after each layer.

    Raises:
        AnatomyError: an unknown criterion, or one whose labels or anatomy are missing.
    """
    ranked_by = {name: find_criterion(name) for name in criteria}
    dense, layers = dense_statistics(
        model,
        batches,
        fisher=any(criterion.needs_labels for criterion in ranked_by.values()),
        plain=any(criterion.needs_plain for criterion in ranked_by.values()),
        keep_sums=repair,
        after_batch=tick,
    )
    scores: dict[str, list[np.ndarray]] = {name: [] for name in criteria}
    curves, tokens = [], []
    damage = damage or any(criterion.score is score_gradient for criterion in ranked_by.values())
    for layer in layers:
        tokens.append(layer.moments.count)
        removal = gradient_removal(layer, context) if damage else None
        if removal is not None:
            curves.append(removal_damage(removal))
        for name, criterion in ranked_by.items():
            if removal is not None and criterion.score is score_gradient:
                scores[name].append(removal_scores(removal))
            else:
                scores[name].append(criterion.score(layer, context))
        tick()
    return Measurement(dense, scores, tuple(curves) if damage else None, tuple(tokens))
