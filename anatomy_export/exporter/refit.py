"""Repair a pruned model layer by layer, each on the inputs that the repaired layers below it give.

A layer is fitted to what the dense model has at that place, so that it also makes up, as far as its neurons can, for
what the layers below it left wrong (as GPTAQ does for quantized layers, arXiv 2504.02692).
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from anatomy_export.exporter.calibrate import Batch, FfnRun, first_calls, run_ffn, run_layer
from anatomy_export.exporter.compensate import AUTO, NONE, RIDGES, Correction, fit_correction
from anatomy_export.exporter.dense_run import DenseRun
from anatomy_export.exporter.predictions import expected_losses
from anatomy_export.exporter.repair import LayerRepair, Repair
from anatomy_export.exporter.statistics import TOKEN_EXPONENT, token_weights
from anatomy_export.kernels.gram import GramAccumulator
from anatomy_export.models import FfnBlock, model_blocks

FITTED_TO = "the dense model's states"
GUARD_TOKENS = 4096
GUARD_SENTENCES, GUARD_ERRORS = 100, 2


@dataclass(frozen=True)
class LayerOutcome:
    """What was done to a layer, see `Correction`; `tokens` it was fitted on (fewer than neurons: the ridge decides).

    The errors are those of the layer's sum with the residual stream, what lower layers left wrong included.
    """

    layer: int
    tokens: int
    mode: str
    ridge: float | None
    error: float
    masked_error: float


@dataclass(frozen=True)
class Refit:
    """The repaired weights, and what was decided for each layer; `left_out` where it did more harm than good."""

    repair: Repair
    outcomes: tuple[LayerOutcome, ...]
    left_out: bool = False


def refit(
    model,
    batches: Sequence[Batch],
    dense: DenseRun,
    keep: Sequence[np.ndarray],
    *,
    mode: str = AUTO,
    exponent: float = TOKEN_EXPONENT,
    ridges: Sequence[float] = RIDGES,
    after_layer: Callable[[int], object] = lambda layer: None,
) -> Refit:
    """Repair what is left of every FFN; `model` is not changed.

    Args:
        dense: the dense model's run on `batches`: what to fit to, the metric of the errors, and the tokens' weights.
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
        block.resize_(block.up_weight[kept], block.up_bias[kept], block.down_weight[kept])
        sums = _LayerSums(layer == len(keep) - 1, exponent)
        for position, (batch, sensitivity) in enumerate(zip(batches, dense.sensitivity, strict=True)):
            run, calls[position] = run_ffn(pruned, layer, calls[position])
            sums.add(batch, sensitivity[layer], run, dense.layer_sum(position, layer))
        fit, held_out = sums.fit.moments(), sums.held_out.moments()
        correction = fit_correction(fit, held_out, len(kept), mode=mode, metric=dense.metric[layer], ridges=ridges)
        repairs.append(_repair_(block, correction))
        outcomes.append(
            LayerOutcome(layer, fit.count, correction.mode, correction.ridge, correction.error, correction.masked_error)
        )
        if layer < len(keep) - 1:
            calls = [run_layer(pruned, layer, call) for call in calls]
        after_layer(layer)
    done = Refit(Repair(tuple(repairs)), tuple(outcomes))
    return _unless_worse(model, pruned, batches, dense, keep, done) if mode == AUTO else done


def _unless_worse(
    model, repaired, batches: Sequence[Batch], dense: DenseRun, keep: Sequence[np.ndarray], done: Refit
) -> Refit:
    """`done`, or no repair at all where the model that it gives is expected to be right less often on held-out text, by
    more than `GUARD_ERRORS` standard errors.

    Where little is left of the layers, each local optimum can lead further away from the dense model's classes.
    """
    plain = copy.deepcopy(model)
    untouched = []
    for block, one in zip(model_blocks(plain), keep, strict=True):
        kept = torch.as_tensor(np.asarray(one), device=block.down_weight.device)
        block.resize_(block.up_weight[kept], block.up_bias[kept], block.down_weight[kept])
        untouched.append(_repair_(block, Correction.nothing(len(kept), block.down_bias)))
    losses = _held_out_losses((plain, repaired), batches, dense)
    worse = losses[1] - losses[0]
    if len(worse) < 2 or worse.mean() <= GUARD_ERRORS * worse.std(ddof=1) / math.sqrt(len(worse)):
        return done
    outcomes = [replace(one, mode=NONE, ridge=None, error=one.masked_error) for one in done.outcomes]
    return Refit(Repair(tuple(untouched)), tuple(outcomes), left_out=True)


@torch.no_grad()
def _held_out_losses(models: Sequence, batches: Sequence[Batch], dense: DenseRun) -> list[np.ndarray]:
    """Each model's expected loss of accuracy by held-out sentence, (sentences,)."""
    chosen = [(batch, logits) for batch, logits in zip(batches, dense.logits, strict=True) if batch.held_out.any()]
    sentences = sum(int(batch.held_out.sum()) for batch, _ in chosen)
    step = max(1, min(_held_out_tokens(batches) // GUARD_TOKENS, sentences // GUARD_SENTENCES))
    expected = _probabilities([logits[batch.held_out] for batch, logits in chosen[::step]])
    losses = []
    for model in models:
        own = [
            model(**{name: values[batch.held_out] for name, values in batch.inputs.items()}).logits
            for batch, _ in chosen[::step]
        ]
        losses.append(expected_losses(expected, _probabilities(own)))
    return losses


def _probabilities(logits: Sequence[torch.Tensor]) -> np.ndarray:
    return torch.cat(list(logits)).double().softmax(-1).cpu().numpy()


def _held_out_tokens(batches: Sequence[Batch]) -> int:
    return sum(int(batch.inputs["attention_mask"][batch.held_out].sum()) for batch in batches)


class _LayerSums:
    """Moments of `[kept activations | what the layer's sum lacks]`, fitted and held-out sentences apart."""

    def __init__(self, last: bool, exponent: float):
        self.last, self.exponent = last, exponent
        self.fit, self.held_out = GramAccumulator(), GramAccumulator()

    @torch.no_grad()
    def add(self, batch: Batch, sensitivity: torch.Tensor, run: FfnRun, dense_sum: torch.Tensor) -> None:
        counts = batch.counts(self.last)
        weights = token_weights(batch, sensitivity, self.last, self.exponent)[counts]
        joined = torch.cat([run.activation[counts], (dense_sum - run.layer_sum)[counts]], dim=1)
        held_out = batch.held_out[:, None].expand_as(counts)[counts]
        for sums, chosen in ((self.fit, ~held_out), (self.held_out, held_out)):
            sums.add(joined[chosen], weights[chosen])


@torch.no_grad()
def _repair_(block: FfnBlock, correction: Correction) -> LayerRepair:
    """Correct W2 and b2 of a block that has its kept neurons only."""
    down_weight = (block.down_weight.double() + correction.weight).float()
    down_bias = (block.down_bias.double() + correction.bias).float()
    block.resize_(block.up_weight, block.up_bias, down_weight)
    block.down_bias.copy_(down_bias)
    return LayerRepair(down_weight.cpu().numpy().copy(), down_bias.cpu().numpy().copy())
