"""How the logits depend on what each FFN puts out: one forward and backward pass a batch over the dense model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from anatomy_export.errors import AnatomyError
from anatomy_export.exporter.calibrate import Batch
from anatomy_export.models import model_blocks

Objective = Callable[[torch.Tensor, Batch], torch.Tensor]


def margin(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Difference of the two largest logits (B, C), (B,)."""
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
    """One batch: per layer what the neurons sent, and per objective and layer its gradient at the FFN output.

    `activations[l]: (B, T, n)`, `gradients[o][l]: (B, T, d)`.
    """

    batch: Batch
    activations: tuple[torch.Tensor, ...]
    gradients: tuple[tuple[torch.Tensor, ...], ...]


def gradient_passes(
    model, batches: Sequence[Batch], objectives: Sequence[Objective] = (margin,)
) -> Iterator[BatchGradients]:
    """Run the model forward once a batch, and backward once an objective. No weight gets a gradient."""
    with _ffn_outputs(model) as (activations, zeros), _frozen(model):
        for batch in batches:
            activations.clear()
            zeros.clear()
            with torch.enable_grad():
                logits = model(**batch.inputs).logits
                totals = [objective(logits, batch).sum() for objective in objectives]
            gradients = tuple(
                torch.autograd.grad(total, zeros, retain_graph=index + 1 < len(totals))
                for index, total in enumerate(totals)
            )
            yield BatchGradients(batch, tuple(activations), gradients)


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

    handles = [block.down.register_forward_hook(add_zero) for block in model_blocks(model)]
    try:
        yield activations, zeros
    finally:
        for handle in handles:
            handle.remove()


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
class Gradients:
    """How the logit margin depends on the FFN outputs.

    Attributes:
        metric: per layer E over fitted sentences of Σ over tokens of g gᵀ, (d, d), float64, g the gradient.
        sensitivity: per batch ‖g‖² of every token, (L, B, T), float32; held-out sentences too.
    """

    metric: tuple[torch.Tensor, ...]
    sensitivity: tuple[torch.Tensor, ...]


class GradientSums:
    """`Gradients` in the making; the margin is the first objective."""

    def __init__(self, model) -> None:
        self._metric = [
            torch.zeros(2 * block.down_bias.shape, dtype=torch.float64, device=block.down_bias.device)
            for block in model_blocks(model)
        ]
        self._sensitivity: list[torch.Tensor] = []
        self._sentences = 0

    def add(self, one: BatchGradients) -> None:
        fit = ~one.batch.held_out
        self._sentences += int(fit.sum())
        for metric, gradient in zip(self._metric, one.gradients[0], strict=True):
            flat = gradient[fit].flatten(0, 1)
            metric += flat.T @ flat
        self._sensitivity.append(torch.stack([gradient.square().sum(-1) for gradient in one.gradients[0]]))

    def result(self) -> Gradients:
        scale = 1 / max(self._sentences, 1)
        return Gradients(tuple(one * scale for one in self._metric), tuple(self._sensitivity))


def measure_gradients(
    model, batches: Sequence[Batch], *, after_batch: Callable[[], object] = lambda: None
) -> Gradients:
    """The gradients alone, for a repair of neurons that were chosen otherwise."""
    sums = GradientSums(model)
    for one in gradient_passes(model, batches):
        sums.add(one)
        after_batch()
    return sums.result()
