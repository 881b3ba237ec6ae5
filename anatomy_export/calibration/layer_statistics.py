"""What the criteria need to know of every layer of the dense model, all from one pass over calibration text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from anatomy_export.calibration.batches import Batch
from anatomy_export.calibration.gradients import BatchGradients, DenseRun, DenseRunSums, gradient_passes, loss, margin
from anatomy_export.kernels.gram import GramAccumulator, Moments
from anatomy_export.models.supported_families import FfnBlock, model_blocks

TOKEN_EXPONENT = 0.5
LEAST_SENSITIVITY = 1e-30
BLOCK_ROWS = 1024  # few: all layers' sums are alive at once


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
        fisher: (n,), E over sentences of (Σ over tokens of a ∂loss/∂a)²; None where no criterion asked for it.
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


def token_weights(
    batch: Batch, sensitivity: torch.Tensor, last_layer: bool, exponent: float = TOKEN_EXPONENT
) -> torch.Tensor:
    """Weight (B, T) of each token: `(‖g‖²)^exponent` where it counts, never quite 0, else 0; `sensitivity` is ‖g‖²."""
    counts = batch.counts(last_layer)
    return torch.where(counts, sensitivity.clamp_min(LEAST_SENSITIVITY).pow(exponent), torch.zeros_like(sensitivity))


def dense_statistics(
    model,
    batches: Sequence[Batch],
    *,
    fisher: bool = False,
    plain: bool = False,
    keep_sums: bool = True,
    after_batch: Callable[[], object] = lambda: None,
) -> tuple[DenseRun, Iterator[LayerStatistics]]:
    """The run itself, and the statistics layer by layer; each layer's sums are freed once they were taken.

    Args:
        fisher: also collect the loss's Fisher information; the batches need labels.
        plain: also collect the moments with all tokens alike.
        keep_sums: keep what each layer gave, for repair.
        after_batch: called once a batch is done.

    Raises:
        AnatomyError: `fisher`, but the batches have no labels.
    """
    blocks, run = model_blocks(model), DenseRunSums(model, keep_sums=keep_sums)
    last = len(blocks) - 1
    layers = [
        _LayerSums(index, block, last=index == last, fisher=fisher, plain=plain) for index, block in enumerate(blocks)
    ]
    for passed in gradient_passes(model, batches, (margin, loss) if fisher else (margin,)):
        run.add(passed)
        for layer in layers:
            layer.add(passed)
        del passed
        after_batch()
    dense = run.result()
    return dense, _results(layers, dense)


def _results(layers: "list[_LayerSums]", dense: DenseRun) -> Iterator[LayerStatistics]:
    for metric in dense.metric:
        yield layers.pop(0).result(metric)


class _LayerSums:
    """The sums behind one layer's statistics."""

    def __init__(self, layer: int, block: FfnBlock, *, last: bool, fisher: bool, plain: bool):
        self.layer, self.block, self.last = layer, block, last
        self.weighted = GramAccumulator(BLOCK_ROWS)
        self.plain = GramAccumulator(BLOCK_ROWS) if plain else None
        self.count, self.sentences = 0, 0
        zeros = torch.zeros(block.width, dtype=torch.float64, device=block.down_weight.device)
        self.total, self.squares = zeros, zeros.clone()
        self.fisher = zeros.clone() if fisher else None

    @torch.no_grad()
    def add(self, passed: BatchGradients) -> None:
        batch, activation = passed.batch, passed.activations[self.layer]
        fit = ~batch.held_out
        chosen = batch.counts(self.last) & fit[:, None]
        rows = activation[chosen]
        sensitivity = passed.gradients[0][self.layer].square().sum(-1)
        self.weighted.add(rows, token_weights(batch, sensitivity, self.last)[chosen])
        if self.plain is not None:
            self.plain.add(rows)
        self.count += len(rows)
        self.total += rows.sum(0, dtype=torch.float64)
        self.squares += rows.square().sum(0, dtype=torch.float64)
        if self.fisher is not None:
            self.sentences += int(fit.sum())
            neuron = (activation[fit] * (passed.gradients[1][self.layer][fit] @ self.block.down_weight.T)).sum(1)
            self.fisher += neuron.double().square().sum(0)

    def result(self, metric: torch.Tensor) -> LayerStatistics:
        mean, mean_square = self.total / max(self.count, 1), self.squares / max(self.count, 1)
        return LayerStatistics(
            layer=self.layer,
            down_weight=self.block.down_weight.detach().double(),
            moments=self.weighted.moments(),
            mean_square=mean_square,
            variance=(mean_square - mean.square()).clamp_min(0),
            metric=metric,
            fisher=None if self.fisher is None else self.fisher / max(self.sentences, 1),
            plain=None if self.plain is None else self.plain.moments(),
        )
