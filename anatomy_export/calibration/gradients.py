"""What each layer of the dense model gives, and how the logits depend on it: one forward and backward pass a batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from anatomy_export.calibration.batches import Batch
from anatomy_export.calibration.replay import caught_sums
from anatomy_export.calibration.spill import SpilledTensors
from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.supported_families import model_blocks

Objective = Callable[[torch.Tensor, Batch], torch.Tensor]


def margin(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Difference of the two largest logits (B, C), (B,); of a single one (a regression head) that logit itself."""
    if logits.shape[-1] == 1:
        return logits[:, 0]
    best = logits.topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]


def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross entropy of each sentence, (B,).

    Raises:
        AnatomyError: the batch has no labels.
    """
    if batch.labels is None:
        raise AnatomyError("fisher needs labelled calibration text; next step: pass labelled --data")
    return torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")


@dataclass(frozen=True)
class BatchGradients:
    """One batch: per layer what the neurons sent and the sum of FFN output and residual stream, and per objective and
    layer the gradient at the FFN output.

    `logits: (B, C)`, `activations[l]: (B, T, n)`, `sums[l]: (B, T, d)`, `gradients[o][l]: (B, T, d)`.
    """

    batch: Batch
    logits: torch.Tensor
    activations: tuple[torch.Tensor, ...]
    sums: tuple[torch.Tensor, ...]
    gradients: tuple[tuple[torch.Tensor, ...], ...]


def gradient_passes(
    model, batches: Sequence[Batch], objectives: Sequence[Objective] = (margin,)
) -> Iterator[BatchGradients]:
    """Run the model forward once a batch, and backward once an objective. No weight gets a gradient.

    Nothing of a batch is held here while the next one runs; a caller that does not either needs the memory of one.
    """
    with _ffn_outputs(model) as (activations, zeros), caught_sums(model) as sums, _frozen(model):
        for batch in batches:
            with torch.enable_grad():
                logits = model(**batch.inputs).logits
                totals = [objective(logits, batch).sum() for objective in objectives]
            gradients = tuple(
                torch.autograd.grad(total, zeros, retain_graph=index + 1 < len(totals))
                for index, total in enumerate(totals)
            )
            passed = BatchGradients(batch, logits.detach(), tuple(activations), tuple(sums), gradients)
            for caught in (activations, zeros, sums):
                caught.clear()
            del logits, totals, gradients
            yield passed
            del passed


@contextmanager
def _ffn_outputs(model) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Inside: each forward pass leaves every layer's activation (B, T, n) and a zero added to its FFN's output, whose
    gradient is the output's."""
    activations: list[torch.Tensor] = []
    zeros: list[torch.Tensor] = []

    def add_zero(module, args, output):
        zero = torch.zeros_like(output, requires_grad=True)
        activations.append(args[0].detach())
        zeros.append(zero)
        return output + zero

    with ExitStack() as hooks:
        for block in model_blocks(model):
            hooks.enter_context(block.down.register_forward_hook(add_zero))
        yield activations, zeros


@contextmanager
def _frozen(model) -> Iterator[None]:
    """Inside: no parameter asks for a gradient, so the layers keep no inputs for it."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class DenseRun:
    """What repair needs to know of the dense model on the calibration text.

    Attributes:
        logits: per batch, (B, C).
        metric: per layer E over fitted sentences of Σ over tokens of g gᵀ, (d, d), float64, g the margin's gradient at
            the FFN output.
        sensitivity: per batch ‖g‖² of every token, (L, B, T), float32; held-out sentences too.
        sums: per batch and layer, batch by batch, the sum of FFN output and residual stream, (B, T, d); none where
            nothing is to be repaired.
    """

    logits: tuple[torch.Tensor, ...]
    metric: tuple[torch.Tensor, ...]
    sensitivity: tuple[torch.Tensor, ...]
    sums: SpilledTensors

    def layer_sum(self, batch: int, layer: int) -> torch.Tensor:
        """(B, T, d) of one batch, read back from disk."""
        return self.sums[batch * len(self.metric) + layer]


class DenseRunSums:
    """A `DenseRun` in the making; the margin is the first objective."""

    def __init__(self, model, *, keep_sums: bool) -> None:
        self._metric = [
            torch.zeros(2 * block.down_bias.shape, dtype=torch.float64, device=block.down_bias.device)
            for block in model_blocks(model)
        ]
        self._logits: list[torch.Tensor] = []
        self._sensitivity: list[torch.Tensor] = []
        self._sentences, self._keep_sums, self._sums = 0, keep_sums, SpilledTensors()

    def add(self, passed: BatchGradients) -> None:
        fit = ~passed.batch.held_out
        self._sentences += int(fit.sum())
        self._logits.append(passed.logits)
        for metric, gradient in zip(self._metric, passed.gradients[0], strict=True):
            flat = gradient[fit].flatten(0, 1)
            metric += flat.T @ flat
        self._sensitivity.append(torch.stack([gradient.square().sum(-1) for gradient in passed.gradients[0]]))
        for layer_sum in passed.sums if self._keep_sums else ():
            self._sums.append(layer_sum)

    def result(self) -> DenseRun:
        scale = 1 / max(self._sentences, 1)
        metric = tuple(metric * scale for metric in self._metric)
        return DenseRun(tuple(self._logits), metric, tuple(self._sensitivity), self._sums)


def run_dense(model, batches: Sequence[Batch], *, after_batch: Callable[[], object] = lambda: None) -> DenseRun:
    """The dense model's run alone, for a repair of neurons that were chosen otherwise."""
    sums = DenseRunSums(model, keep_sums=True)
    for passed in gradient_passes(model, batches):
        sums.add(passed)
        del passed
        after_batch()
    return sums.result()
