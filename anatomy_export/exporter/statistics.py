"""What the criteria need to know of every layer of the dense model, from one pass over calibration text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from anatomy_export.exporter.calibrate import Batch, Gradients, LayerCall, first_calls, trace_layer
from anatomy_export.kernels.gram import GramAccumulator, Moments
from anatomy_export.models import model_blocks

TOKEN_EXPONENT = 0.5
LEAST_SENSITIVITY = 1e-6


@dataclass(frozen=True)
class LayerStatistics:
    """One layer of the dense model on the sentences that are fitted on, in float64.

    Attributes:
        layer: its index.
        down_weight: W2, (n, d).
        moments: of the activations (n,), tokens weighted by `token_weights`.
        mean_square: E[a²] over the tokens that count, (n,), unweighted.
        variance: of a over the same, (n,).
        metric: E over sentences of Σ over tokens of g gᵀ, (d, d), g the margin's gradient at the FFN output.
        fisher: (n,), see `Gradients`, of the loss; None without labels.
        plain: moments of the activations with all tokens alike; None where no criterion asked for them.
    """

    layer: int
    down_weight: torch.Tensor
    moments: Moments
    mean_square: torch.Tensor
    variance: torch.Tensor
    metric: torch.Tensor
    fisher: torch.Tensor | None = None
    plain: Moments | None = None


def token_weights(batch: Batch, sensitivity: torch.Tensor, last_layer: bool, exponent: float) -> torch.Tensor:
    """Weight (B, T) of each token: `(‖g‖²)^exponent` where it counts, never quite 0, else 0; `sensitivity` is ‖g‖²."""
    counts = batch.counts(last_layer)
    return torch.where(counts, sensitivity.clamp_min(LEAST_SENSITIVITY).pow(exponent), torch.zeros_like(sensitivity))


def dense_statistics(
    model,
    batches: Sequence[Batch],
    gradients: Gradients,
    loss_gradients: Gradients | None = None,
    *,
    exponent: float = TOKEN_EXPONENT,
    plain: bool = False,
) -> Iterator[LayerStatistics]:
    """The statistics layer by layer; only hidden states are kept between two of them.

    Args:
        gradients: of the logit margin.
        loss_gradients: of the loss, for `fisher`.
        exponent: of ‖g‖² in the token weights; 0 weighs all alike.
        plain: also collect the moments with all tokens alike.
    """
    blocks = model_blocks(model)
    calls = first_calls(model, batches)
    for layer, block in enumerate(blocks):
        weighted, alike, diagonal = GramAccumulator(), GramAccumulator(), _Diagonal(block.width)
        following: list[LayerCall] = []
        last = layer == len(blocks) - 1
        for batch, call, sensitivity in zip(batches, calls, gradients.sensitivity, strict=True):
            after, trace = trace_layer(model, layer, call)
            following.append(after)
            chosen = batch.counts(last) & ~batch.held_out[:, None]
            rows = trace.activation[chosen]
            weighted.add(rows, token_weights(batch, sensitivity[layer], last, exponent)[chosen])
            diagonal.add(rows)
            if plain:
                alike.add(rows)
        calls = following
        mean_square, variance = diagonal.result()
        yield LayerStatistics(
            layer=layer,
            down_weight=block.down_weight.detach().double(),
            moments=weighted.moments(),
            mean_square=mean_square,
            variance=variance,
            metric=gradients.metric[layer],
            fisher=None if loss_gradients is None else loss_gradients.fisher[layer],
            plain=alike.moments() if plain else None,
        )


class _Diagonal:
    """Running mean and mean square of every neuron, in float64."""

    def __init__(self, width: int):
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.squares = torch.zeros(width, dtype=torch.float64)

    def add(self, rows: torch.Tensor) -> None:
        self.count += len(rows)
        self.total += rows.sum(0, dtype=torch.float64)
        self.squares += rows.square().sum(0, dtype=torch.float64)

    def result(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean, mean_square = self.total / max(self.count, 1), self.squares / max(self.count, 1)
        return mean_square, (mean_square - mean.square()).clamp_min(0)
