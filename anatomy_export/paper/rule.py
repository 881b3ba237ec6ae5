"""The paper's rule: from an anatomy to the neurons that stay, by its thresholds or by a share of each layer."""

import hashlib
from math import ceil

import numpy as np

from anatomy_export.core.arguments import check_share, check_whole
from anatomy_export.core.errors import AnatomyError
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.thresholds import LayerThreshold, ThresholdSetup, layer_thresholds
from anatomy_export.plans.plan import LayerPlan, PrunePlan


def threshold_plan(
    anatomy: Anatomy, *, rule: str, setup: ThresholdSetup, probe_reduction: str = "mean", align: int = 1
) -> PrunePlan:
    """The paper's rule: prune below the layer's threshold; strong neurons stay.

    Raises:
        AnatomyError: a threshold would empty a layer, or an argument means nothing.
    """
    check_whole("align", align, 1)
    thresholds, similarity = _reduce(anatomy, rule, setup, probe_reduction)
    layers = []
    for index, (threshold, values) in enumerate(zip(thresholds, similarity, strict=True)):
        strong = anatomy.strong(index)
        pruned = threshold.prunes(values)
        pruned[strong] = False
        order = _ranking(threshold.measure(values), strong)
        count = _align_up(int((~pruned).sum()), align, len(values))
        if count == 0:
            raise AnatomyError(
                f"layer {index}: threshold {threshold.value:.6g} would remove all {len(values)} neurons; "
                "next step: lower --alpha or --beta, or take the layer out of --focus"
            )
        layers.append(_layer_plan(index, order[:count], threshold, strong, values, threshold.value))
    parameters = {**anatomy_parameters(anatomy, rule, setup, probe_reduction, align), "budget": "thresholds"}
    return _plan(anatomy, layers, parameters)


def ratio_plan(
    anatomy: Anatomy,
    *,
    rule: str,
    setup: ThresholdSetup,
    keep_ratio: float,
    probe_reduction: str = "mean",
    align: int = 1,
) -> PrunePlan:
    """Per layer the lowest-scoring neurons go until `keep_ratio` is left; strong neurons stay.

    The ranking is by |s|, and by s itself in one-sided layers.

    Raises:
        AnatomyError: `keep_ratio` is not in (0, 1], another argument means nothing, or more neurons of a layer are
            strong than may stay.
    """
    check_share("keep_ratio", keep_ratio)
    check_whole("align", align, 1)
    thresholds, similarity = _reduce(anatomy, rule, setup, probe_reduction)
    layers = []
    for index, (threshold, values) in enumerate(zip(thresholds, similarity, strict=True)):
        strong = anatomy.strong(index)
        width = len(values)
        count = _align_up(max(1, round(keep_ratio * width)), align, width)
        if len(strong) > count:
            raise AnatomyError(
                f"layer {index}: {len(strong)} strong neurons are protected but a keep ratio of {keep_ratio} leaves "
                f"room for {count} of {width}; next step: raise --keep-ratio or --strong-threshold"
            )
        order = _ranking(threshold.measure(values), strong)
        layers.append(_layer_plan(index, order[:count], threshold, strong, values, None))
    parameters = {
        **anatomy_parameters(anatomy, rule, setup, probe_reduction, align),
        "budget": "keep-ratio",
        "keep_ratio": keep_ratio,
    }
    return _plan(anatomy, layers, parameters)


def _reduce(anatomy: Anatomy, rule: str, setup: ThresholdSetup, how: str):
    layer_similarity, similarity = anatomy.reduced(how)
    return layer_thresholds(rule, layer_similarity, anatomy.num_layers, setup), similarity


def _ranking(scores: np.ndarray, strong: np.ndarray) -> np.ndarray:
    """Neurons from best to worst, (n,): the strong first, ties by index."""
    first = np.zeros(len(scores))
    first[strong] = 1
    return np.lexsort((np.arange(len(scores)), -scores, -first))


def _align_up(count: int, align: int, width: int) -> int:
    return min(width, ceil(count / align) * align)


def _layer_plan(index, keep, threshold: LayerThreshold, strong, values, value) -> LayerPlan:
    return LayerPlan(
        layer=index,
        width=len(values),
        keep=tuple(int(neuron) for neuron in np.sort(keep)),
        threshold=value,
        rule=threshold.rule,
        protected=tuple(int(neuron) for neuron in strong),
    )


def anatomy_parameters(anatomy: Anatomy, rule: str, setup: ThresholdSetup, probe_reduction: str, align: int) -> dict:
    """What a plan records of a ranking by anatomy."""
    return {
        "threshold_rule": rule,
        "alpha": setup.alpha,
        "beta": setup.beta,
        "focus": list(setup.focus),
        "strong_threshold": anatomy.strong_threshold,
        "probe_reduction": probe_reduction,
        "align": align,
    }


def _plan(anatomy: Anatomy, layers: list[LayerPlan], parameters: dict) -> PrunePlan:
    probes = hashlib.sha256("\n".join(anatomy.probes).encode()).hexdigest()
    return PrunePlan(
        anatomy.fingerprint,
        tuple(layers),
        "anatomy",
        parameters,
        calibration_fingerprint=probes,
        recorded_logits=anatomy.recorded_logits,
    )
