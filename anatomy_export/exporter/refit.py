"""Repair a pruned model layer by layer, each on the inputs that the repaired layers below it give.

A layer is fitted to what its own dense FFN would give on those inputs.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from anatomy_export.exporter.calibrate import (
    Batch,
    ffn_activation,
    first_calls,
    run_layer,
)
from anatomy_export.exporter.compensate import AUTO, NONE, RIDGES, Correction, fit_correction
from anatomy_export.exporter.gradients import Gradients
from anatomy_export.exporter.repair import LayerRepair, Repair
from anatomy_export.exporter.statistics import TOKEN_EXPONENT, token_weights
from anatomy_export.kernels.gram import GramAccumulator
from anatomy_export.models import FfnBlock, model_blocks

GUARD_TOKENS = 4096


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
        mode: what may be done, see `fit_correction`; "auto" also leaves the whole repair out where it does not help.
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
        for position, (batch, sensitivity) in enumerate(zip(batches, gradients.sensitivity, strict=True)):
            activation, calls[position] = ffn_activation(pruned, layer, calls[position])
            sums.add(batch, sensitivity[layer], activation)
        fit, held_out = sums.fit.moments(), sums.held_out.moments()
        correction = fit_correction(fit, held_out, len(kept), mode=mode, metric=gradients.metric[layer], ridges=ridges)
        repairs.append(_cut_(block, kept, correction))
        outcomes.append(
            LayerOutcome(layer, fit.count, correction.mode, correction.ridge, correction.error, correction.masked_error)
        )
        if layer < len(keep) - 1:
            calls = [run_layer(pruned, layer, call) for call in calls]
        after_layer(layer)
    done = Refit(Repair(tuple(repairs)), tuple(outcomes))
    return _unless_worse(model, pruned, batches, keep, done) if mode == AUTO else done


def _unless_worse(model, repaired, batches: Sequence[Batch], keep: Sequence[np.ndarray], done: Refit) -> Refit:
    """`done`, or no repair at all where the model that it gives is further from the dense one on held-out text.

    Layers are repaired on what damaged layers below them give; where little is left of those, each local optimum can
    lead further away from the dense model's logits.
    """
    plain = copy.deepcopy(model)
    untouched = []
    for block, one in zip(model_blocks(plain), keep, strict=True):
        kept = torch.as_tensor(np.asarray(one), device=block.down_weight.device)
        untouched.append(_cut_(block, kept, Correction.nothing(len(kept), block.down_bias)))
    errors = _logit_errors(model, (plain, repaired), batches)
    if errors[0] >= errors[1]:
        return done
    outcomes = [replace(one, mode=NONE, ridge=None, error=one.masked_error) for one in done.outcomes]
    return Refit(Repair(tuple(untouched)), tuple(outcomes))


@torch.no_grad()
def _logit_errors(dense, others: Sequence, batches: Sequence[Batch]) -> list[float]:
    """Squared distance of each model's logits from the dense model's, summed over held-out sentences."""
    errors = [0.0 for _ in others]
    for batch in batches[:: max(1, _held_out_tokens(batches) // GUARD_TOKENS)]:
        inputs = {name: values[batch.held_out] for name, values in batch.inputs.items()}
        if not len(inputs["input_ids"]):
            continue
        expected = dense(**inputs).logits
        for index, model in enumerate(others):
            errors[index] += float((model(**inputs).logits - expected).double().square().sum())
    return errors


def _held_out_tokens(batches: Sequence[Batch]) -> int:
    return sum(int(batch.inputs["attention_mask"][batch.held_out].sum()) for batch in batches)


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
