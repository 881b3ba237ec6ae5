"""Repair a pruned model layer by layer, each on the inputs that the repaired layers below it give.

A layer is fitted to what its own dense FFN would give on those inputs.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from anatomy_export.exporter.calibrate import (
    Batch,
    ffn_activation,
    first_calls,
    run_layer,
)
from anatomy_export.exporter.compensate import AUTO, RIDGES, Correction, fit_correction
from anatomy_export.exporter.gradients import Gradients
from anatomy_export.exporter.repair import LayerRepair, Repair
from anatomy_export.exporter.statistics import TOKEN_EXPONENT, token_weights
from anatomy_export.kernels.gram import GramAccumulator
from anatomy_export.models import FfnBlock, model_blocks


@dataclass(frozen=True)
class LayerOutcome:
    """What was done to a layer, see `Correction`; `tokens` it was fitted on (fewer than neurons: the ridge decides)."""

    layer: int
    tokens: int
    mode: str
    ridge: float | None
    error: float
    masked_error: float


@dataclass(frozen=True)
class Refit:
    """The repaired weights, and what was decided for each layer."""

    repair: Repair
    outcomes: tuple[LayerOutcome, ...]


def refit(
    model,
    batches: Sequence[Batch],
    gradients: Gradients,
    keep: Sequence[np.ndarray],
    *,
    mode: str = AUTO,
    exponent: float = TOKEN_EXPONENT,
    ridges: Sequence[float] = RIDGES,
    after_layer: Callable[[int], object] = lambda layer: None,
) -> Refit:
    """Repair what is left of every FFN; `model` is not changed.

    Args:
        gradients: of the margin on the dense model: the metric of the errors, and the tokens' weights.
        keep: per layer the sorted kept neurons, (k,).
        mode: what may be done, see `fit_correction`.
        exponent: of ‖g‖² in the token weights.
        ridges: λ tried, relative to the mean diagonal of the covariance.
        after_layer: called once a layer is done.
    """
    pruned = copy.deepcopy(model)
    calls = first_calls(pruned, batches)
    repairs, outcomes = [], []
    for layer, block in enumerate(model_blocks(pruned)):
        kept = torch.as_tensor(np.asarray(keep[layer]), device=block.down_weight.device)
        sums = _LayerSums(block, kept, layer == len(keep) - 1, exponent)
        for batch, sensitivity, call in zip(batches, gradients.sensitivity, calls, strict=True):
            sums.add(batch, sensitivity[layer], ffn_activation(pruned, layer, call))
        fit, held_out = sums.fit.moments(), sums.held_out.moments()
        correction = fit_correction(fit, held_out, len(kept), mode=mode, metric=gradients.metric[layer], ridges=ridges)
        repairs.append(_cut_(block, kept, correction))
        outcomes.append(
            LayerOutcome(layer, fit.count, correction.mode, correction.ridge, correction.error, correction.masked_error)
        )
        if layer < len(keep) - 1:
            calls = [run_layer(pruned, layer, call) for call in calls]
        after_layer(layer)
    return Refit(Repair(tuple(repairs)), tuple(outcomes))


class _LayerSums:
    """Moments of `[kept activations | error of the masked FFN]`, fitted and held-out sentences apart."""

    def __init__(self, block: FfnBlock, kept: torch.Tensor, last: bool, exponent: float):
        self.kept, self.last, self.exponent = kept, last, exponent
        self.fit, self.held_out = GramAccumulator(), GramAccumulator()
        gone = torch.ones(block.width, dtype=torch.bool, device=kept.device)
        gone[kept] = False
        self.gone, self.rows = gone.nonzero().squeeze(1), block.down_weight.detach()[gone]

    @torch.no_grad()
    def add(self, batch: Batch, sensitivity: torch.Tensor, activation: torch.Tensor) -> None:
        counts = batch.counts(self.last)
        weights = token_weights(batch, sensitivity, self.last, self.exponent)[counts]
        rows = activation[counts]
        joined = torch.cat([rows[:, self.kept], rows[:, self.gone] @ self.rows], dim=1)
        held_out = batch.held_out[:, None].expand_as(counts)[counts]
        for sums, chosen in ((self.fit, ~held_out), (self.held_out, held_out)):
            sums.add(joined[chosen], weights[chosen])


@torch.no_grad()
def _cut_(block: FfnBlock, kept: torch.Tensor, correction: Correction) -> LayerRepair:
    """Leave the kept neurons with their repaired W2 and b2 in the block."""
    down_weight = (block.down_weight[kept].double() + correction.weight).float()
    down_bias = (block.down_bias.double() + correction.bias).float()
    block.resize_(block.up_weight[kept], block.up_bias[kept], down_weight)
    block.down_bias.copy_(down_bias)
    return LayerRepair(down_weight.cpu().numpy().copy(), down_bias.cpu().numpy().copy())
