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

from anatomy_export.calibration.batches import Batch
from anatomy_export.calibration.gradients import DenseRun
from anatomy_export.calibration.layer_statistics import token_weights
from anatomy_export.calibration.replay import FfnRun, LayerCall, first_calls, run_ffn, run_head, run_layer
from anatomy_export.evaluation.metrics import expected_losses
from anatomy_export.kernels.gram import GramAccumulator
from anatomy_export.models.supported_families import FfnBlock, model_blocks
from anatomy_export.plan_files.repair_file import LayerRepair, Repair
from anatomy_export.repair.least_squares import RIDGES, Correction, fit_correction
from anatomy_export.repair.repair_modes import AUTO, NONE

FITTED_TO = "the dense model's states"
HELD_BYTES = 2**28
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
    ridges: Sequence[float] = RIDGES,
    after_layer: Callable[[], object] = lambda: None,
) -> Refit:
    """Repair what is left of every FFN; `model` is not changed: a copy shares the weights that stay as they are.

    Args:
        dense: the dense model's run on `batches`: what to fit to, the metric of the errors, and the tokens' weights.
        keep: per layer the sorted kept neurons, (k,).
        mode: what may be done, see `fit_correction`; "auto" also leaves the whole repair out where it does not help.
        ridges: λ tried, relative to the mean diagonal of the covariance.
        after_layer: called once a layer is done.

    Raises:
        AnatomyError: activations are not finite, or a layer's forward pass does not reach its FFN.
    """
    pruned = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    calls = first_calls(pruned, batches)
    repairs, outcomes = [], []
    for layer, block in enumerate(model_blocks(pruned)):
        kept = torch.as_tensor(np.asarray(keep[layer]), device=block.down_weight.device)
        block.resize_(block.up_weight[kept], block.up_bias[kept], block.down_weight[kept])
        sums, held = _LayerSums(last=layer == len(keep) - 1), 0
        for position, (batch, sensitivity) in enumerate(zip(batches, dense.sensitivity, strict=True)):
            run, half_way = run_ffn(pruned, layer, calls[position])
            sums.add(batch, sensitivity[layer], run, dense.layer_sum(position, layer))
            held += run.activation.nbytes
            calls[position] = half_way if held <= HELD_BYTES else replace(half_way, activation=None)
            del run, half_way
        fit, held_out = sums.fit.moments(), sums.held_out.moments()
        correction = fit_correction(fit, held_out, len(kept), mode=mode, metric=dense.metric[layer], ridges=ridges)
        repairs.append(_repair_(block, correction))
        outcomes.append(
            LayerOutcome(layer, fit.count, correction.mode, correction.ridge, correction.error, correction.masked_error)
        )
        for position, call in enumerate(calls):
            calls[position] = run_layer(pruned, layer, call)
        after_layer()
    result = Refit(Repair(tuple(repairs)), tuple(outcomes))
    return _unless_worse(model, pruned, calls, batches, dense, keep, result) if mode == AUTO else result


def _unless_worse(
    model,
    repaired,
    calls: Sequence[LayerCall],
    batches: Sequence[Batch],
    dense: DenseRun,
    keep: Sequence[np.ndarray],
    result: Refit,
) -> Refit:
    """`result`, or no repair at all where the model that it gives is expected to be right less often on held-out text,
    by more than `GUARD_ERRORS` standard errors. `calls` went through all its layers; its repair is undone here.

    Where little is left of the layers, each local optimum can lead further away from the dense model's classes.
    """
    chosen = _guarding(batches)
    held_out = {position: batches[position].held_out for position in chosen}
    expected = _probabilities([dense.logits[position][held_out[position]] for position in chosen])
    with_repair = [
        run_head(repaired, batches[position].inputs, calls[position])[held_out[position]] for position in chosen
    ]
    untouched = []
    for block, dense_block, neurons in zip(model_blocks(repaired), model_blocks(model), keep, strict=True):
        kept = torch.as_tensor(np.asarray(neurons), device=dense_block.down_weight.device)
        untouched.append(_set_down_(block, dense_block.down_weight[kept], dense_block.down_bias))
    without = [_held_out_logits(repaired, batches[position]) for position in chosen]
    losses = [expected_losses(expected, _probabilities(logits)) for logits in (without, with_repair)]
    if _no_worse(losses[1] - losses[0]):
        return result
    outcomes = [replace(outcome, mode=NONE, ridge=None, error=outcome.masked_error) for outcome in result.outcomes]
    return Refit(Repair(tuple(untouched)), tuple(outcomes), left_out=True)


def _no_worse(losses: np.ndarray) -> bool:
    """Whether the mean of what each sentence loses is within the noise of nothing."""
    return len(losses) < 2 or losses.mean() <= GUARD_ERRORS * losses.std(ddof=1) / math.sqrt(len(losses))


def _guarding(batches: Sequence[Batch]) -> list[int]:
    """Batches whose held-out text is enough to judge by, spread over all lengths."""
    chosen = [position for position, batch in enumerate(batches) if batch.held_out.any()]
    sentences = sum(int(batches[position].held_out.sum()) for position in chosen)
    return chosen[:: max(1, min(_held_out_tokens(batches) // GUARD_TOKENS, sentences // GUARD_SENTENCES))]


@torch.no_grad()
def _held_out_logits(model, batch: Batch) -> torch.Tensor:
    return model(**{name: values[batch.held_out] for name, values in batch.inputs.items()}).logits


def _probabilities(logits: Sequence[torch.Tensor]) -> np.ndarray:
    return torch.cat(list(logits)).double().softmax(-1).cpu().numpy()


def _held_out_tokens(batches: Sequence[Batch]) -> int:
    return sum(int(batch.inputs["attention_mask"][batch.held_out].sum()) for batch in batches)


class _LayerSums:
    """Moments of `[kept activations | what the layer's sum lacks]`, fitted and held-out sentences apart."""

    def __init__(self, *, last: bool):
        self.last = last
        self.fit, self.held_out = GramAccumulator(), GramAccumulator()

    @torch.no_grad()
    def add(self, batch: Batch, sensitivity: torch.Tensor, run: FfnRun, dense_sum: torch.Tensor) -> None:
        counts = batch.counts(self.last)
        weights = token_weights(batch, sensitivity, self.last)
        lacking = dense_sum - run.layer_sum
        for sums, sentences in ((self.fit, ~batch.held_out), (self.held_out, batch.held_out)):
            chosen = counts & sentences[:, None]
            sums.add(torch.cat([run.activation[chosen], lacking[chosen]], dim=1), weights[chosen])


def _repair_(block: FfnBlock, correction: Correction) -> LayerRepair:
    """Correct W2 and b2 of a block that has its kept neurons only."""
    weight = (block.down_weight.double() + correction.weight).float()
    return _set_down_(block, weight, (block.down_bias.double() + correction.bias).float())


@torch.no_grad()
def _set_down_(block: FfnBlock, weight: torch.Tensor, bias: torch.Tensor) -> LayerRepair:
    """Give a block W2 (k, d) and b2 (d,)."""
    block.resize_(block.up_weight, block.up_bias, weight)
    block.down.bias = torch.nn.Parameter(bias)
    return LayerRepair(weight.detach().cpu().numpy().copy(), bias.detach().cpu().numpy().copy())
