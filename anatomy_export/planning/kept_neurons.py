"""Which neurons each layer keeps: the widths that an allocation gives, and the best neurons by a criterion."""

from collections.abc import Sequence

import numpy as np

from anatomy_export.core.arguments import check_choice, check_share
from anatomy_export.core.errors import AnatomyError
from anatomy_export.criteria.measure import Measurement
from anatomy_export.criteria.registry import find_criterion
from anatomy_export.planning.allocation import (
    ALLOCATIONS,
    GLOBAL,
    SENSITIVITY,
    UNIFORM,
    global_widths,
    marginal_widths,
    uniform_widths,
)


def choose_widths(
    measurement: Measurement, criterion: str, *, keep_ratio: float, allocate: str = SENSITIVITY, align: int = 1
) -> list[int]:
    """Neurons that each layer keeps.

    Raises:
        AnatomyError: the ratio is not in (0, 1], the allocation does not exist, `align` is no multiple, or there is no
            room for every layer.
    """
    check_share("keep_ratio", keep_ratio)
    check_choice("allocation", allocate, ALLOCATIONS)
    scores = measurement.scores[criterion]
    widths = [len(layer) for layer in scores]
    total = max(len(widths), round(keep_ratio * sum(widths)))
    if allocate == UNIFORM:
        return uniform_widths(widths, keep_ratio, align)
    if allocate == GLOBAL:
        return global_widths(scores, total, comparable=find_criterion(criterion).comparable, align=align)
    if measurement.damage is None:
        raise ValueError("sensitivity needs a measurement with damage=True")
    return marginal_widths(measurement.damage, total, align)


def kept_neurons(scores: Sequence[np.ndarray], widths: Sequence[int]) -> list[np.ndarray]:
    """Per layer the sorted indices of the `widths[l]` best neurons by their `scores`, (n,); ties by index.

    Raises:
        AnatomyError: more neurons of a layer are protected (infinite scores) than may stay.
    """
    kept = []
    for layer, (values, width) in enumerate(zip(scores, widths, strict=True)):
        protected = int(np.isposinf(values).sum())
        if protected > width:
            raise AnatomyError(
                f"layer {layer}: {protected} strong neurons are protected but the budget leaves room for {width} of "
                f"{len(values)}; next step: keep more, or raise --strong-threshold"
            )
        kept.append(np.sort(np.lexsort((np.arange(len(values)), -values))[:width]))
    return kept
