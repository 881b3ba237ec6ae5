"""Run a classifier layer by layer over calibration text; between layers only hidden states are kept.

The first layer's call is caught by a hook, then each layer module is called on the stored hidden states with the
arguments that the model itself passed. What the FFN does is read by hooks. Padding counts nowhere,
and in the last layer only the token that the classifier reads counts: no other reaches the logits.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.loading import Examples
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.families import family_of, model_blocks, model_layers

BATCH_TOKENS = 768
HELD_OUT = 0.25
DEFAULT_EXAMPLES, DEFAULT_TOKENS = 1024, 2**16


@dataclass(frozen=True)
class Batch:
    """`B` tokenized sentences of like length `T`.

    Attributes:
        inputs: what the model is called with, each (B, T).
        index: (B,) position of each sentence in the calibration text.
        target: (B,) position of the token that the classifier reads.
        held_out: (B,) sentences that are not fitted on, only checked against.
        labels: (B,) or None.
    """

    inputs: dict[str, torch.Tensor]
    index: torch.Tensor
    target: torch.Tensor
    held_out: torch.Tensor
    labels: torch.Tensor | None

    def counts(self, last_layer: bool) -> torch.Tensor:
        """(B, T) bool: the tokens that count in a layer."""
        real = self.inputs["attention_mask"].bool()
        if not last_layer:
            return real
        return torch.arange(real.shape[1], device=real.device)[None] == self.target[:, None]


def on_calibration_device(checkpoint: Checkpoint) -> Checkpoint:
    """A copy on CUDA where there is one, for the passes over calibration text and their sums; else the checkpoint."""
    if not torch.cuda.is_available():
        return checkpoint
    return replace(checkpoint, model=copy.deepcopy(checkpoint.model).to("cuda"))


def calibration_sample(
    checkpoint: Checkpoint, train: Examples, count: int | None, *, seed: int, max_length: int = 128
) -> Examples:
    """`count` seeded examples of `train`, or all of them.

    None: `DEFAULT_EXAMPLES`, or as many as hold `DEFAULT_TOKENS` tokens where that is fewer.
    """
    chosen = np.random.default_rng(seed).permutation(len(train))[: count or DEFAULT_EXAMPLES]
    sample = train.take(chosen.tolist())
    if count is not None or not len(sample):
        return sample
    encoded = checkpoint.tokenizer(list(sample.texts), truncation=True, max_length=max_length)["input_ids"]
    fitting = int((np.cumsum([len(ids) for ids in encoded]) <= DEFAULT_TOKENS).sum())
    return sample.take(list(range(max(2, fitting)))) if fitting < len(sample) else sample


def calibration_batches(
    checkpoint: Checkpoint,
    texts: Sequence[str],
    labels: Sequence[int] | None = None,
    *,
    max_length: int = 128,
    seed: int = 0,
    held_out: float = HELD_OUT,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Batch]:
    """Tokenize, sort by length and cut into batches of about `batch_tokens`, on the model's device; a seeded share is
    held out.

    Raises:
        AnatomyError: fewer than two texts.
    """
    if len(texts) < 2:
        raise AnatomyError(f"calibration needs at least 2 texts, got {len(texts)}; next step: pass more with --data")
    aside = np.zeros(len(texts), dtype=bool)
    count = min(len(texts) - 1, max(1, round(held_out * len(texts))))
    aside[np.random.default_rng(seed).permutation(len(texts))[:count]] = True
    encoded = checkpoint.tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    order = sorted(range(len(texts)), key=lambda index: (len(encoded[index]), index))
    batches, start = [], 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * len(encoded[order[stop]]) <= batch_tokens:
            stop += 1
        batches.append(_make_batch(checkpoint, texts, labels, order[start:stop], aside, max_length))
        start = stop
    return batches


def _make_batch(checkpoint, texts, labels, index: list[int], aside: np.ndarray, max_length: int) -> Batch:
    chosen = [texts[one] for one in index]
    config, device = checkpoint.model.config, checkpoint.model.device
    encoded = checkpoint.tokenizer(chosen, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    inputs = {name: values.to(device) for name, values in encoded.items()}
    return Batch(
        inputs=inputs,
        index=torch.tensor(index),
        target=family_of(config).target(inputs["input_ids"], config.pad_token_id),
        held_out=torch.from_numpy(aside[index]).to(device),
        labels=None if labels is None else torch.tensor([labels[one] for one in index], device=device),
    )


def _attention(model, layer: int) -> torch.nn.Module:
    """The layer's largest part that holds nothing of the FFN."""
    block = model_blocks(model)[layer]
    apart = [
        child for child in model_layers(model)[layer].children() if not {block.up, block.down} & set(child.modules())
    ]
    return max(apart, key=lambda child: sum(parameter.numel() for parameter in child.parameters()))


def _first_only(output: torch.Tensor | tuple) -> torch.Tensor | tuple:
    """The output without attention weights, which nothing here reads."""
    return (output[0], *[None] * (len(output) - 1)) if isinstance(output, tuple) else output


@contextmanager
def _forward(module: torch.nn.Module, function: Callable) -> Iterator[None]:
    """Inside: the module does `function` instead of its own forward pass."""
    module.forward = function
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _attention_given(model, layer: int, output: torch.Tensor | tuple | None) -> Iterator[None]:
    """Inside: the layer's attention gives `output` without being run; None: it is run."""
    if output is None:
        yield
        return
    with _forward(_attention(model, layer), lambda *args, **keywords: output):
        yield


@contextmanager
def _activation_given(model, layer: int, activation: torch.Tensor | None) -> Iterator[None]:
    """Inside: the layer's down-projection reads `activation`, and the up-projection is not run; None: it is."""
    if activation is None:
        yield
        return
    block = model_blocks(model)[layer]
    project = block.down.forward
    with (
        _forward(block.up, lambda hidden: hidden[..., :0]),
        _forward(block.down, lambda nothing: project(activation)),
    ):
        yield
