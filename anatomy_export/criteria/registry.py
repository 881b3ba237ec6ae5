"""The criteria that rank neurons; higher = keep. Each function names its source."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from anatomy_export.calibration.layer_statistics import LayerStatistics
from anatomy_export.core.errors import AnatomyError
from anatomy_export.criteria import obs, rankings
from anatomy_export.criteria.context import Context

__all__ = ["CRITERIA", "Context", "Criterion", "find_criterion"]


@dataclass(frozen=True)
class Criterion:
    """A ranking of one layer's neurons.

    Attributes:
        score: statistics and context give (n,), higher = keep.
        comparable: scores of different layers are in one unit; otherwise a global ranking standardises them first.
        needs_labels, needs_anatomy, needs_plain: what the statistics or the context must hold.
    """

    score: Callable[[LayerStatistics, Context], np.ndarray]
    comparable: bool = False
    needs_labels: bool = False
    needs_anatomy: bool = False
    needs_plain: bool = False


CRITERIA = {
    "anatomy": Criterion(rankings.anatomy, needs_anatomy=True),
    "anatomy-activation": Criterion(rankings.anatomy_activation, needs_anatomy=True),
    "random": Criterion(rankings.random, comparable=True),
    "magnitude": Criterion(rankings.magnitude),
    "activation": Criterion(rankings.activation),
    "fluctuation": Criterion(rankings.fluctuation),
    "fisher": Criterion(rankings.fisher, comparable=True, needs_labels=True),
    "obs": Criterion(obs.score, needs_plain=True),
    "obs-greedy": Criterion(obs.score_greedy, needs_plain=True),
    "obs-gradient": Criterion(obs.score_gradient, comparable=True),
}


def find_criterion(name: str) -> Criterion:
    """The criterion of that name.

    Raises:
        AnatomyError: there is none; lists those there are.
    """
    if name not in CRITERIA:
        raise AnatomyError(f"criterion '{name}' does not exist; choose of {', '.join(CRITERIA)}")
    return CRITERIA[name]
