"""Calibration text of a model: a seeded sample of train, tokenized into batches where the model is run.

Padding counts nowhere, and in the last layer only the token that the classifier reads counts: no other reaches the
logits.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.loading import Examples
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.supported_families import family_of, model_blocks

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


@dataclass(frozen=True)
class Calibration:
    """The dense model and the text that it is measured on.

    Attributes:
        checkpoint: the dense model, on the CPU.
        worker: the dense model where the batches are: on CUDA where there is one.
        sample: the calibration text.
        batches: the same, tokenized.
        seed: that the sample was drawn by.
    """

    checkpoint: Checkpoint
    worker: torch.nn.Module
    sample: Examples
    batches: list[Batch]
    seed: int

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the calibration texts."""
        return hashlib.sha256("\n".join(self.sample.texts).encode()).hexdigest()

    @property
    def widths(self) -> list[int]:
        """FFN neurons of each dense layer."""
        return [block.width for block in model_blocks(self.checkpoint.model)]

    @property
    def mean_tokens(self) -> int:
        """Tokens of a text on average, without padding."""
        return round(sum(int(batch.inputs["attention_mask"].sum()) for batch in self.batches) / len(self.sample))


def calibrate(checkpoint: Checkpoint, train: Examples, count: int | None, *, seed: int, max_length: int) -> Calibration:
    """Sample, tokenize, and put the model where it is run; `count` as in `calibration_sample`.

    Raises:
        AnatomyError: fewer than two texts.
    """
    sample = calibration_sample(checkpoint, train, count, seed=seed, max_length=max_length)
    worker = checkpoint
    if torch.cuda.is_available():
        worker = replace(checkpoint, model=copy.deepcopy(checkpoint.model).to("cuda"))
    batches = calibration_batches(worker, sample.texts, sample.labels or None, max_length=max_length, seed=seed)
    return Calibration(checkpoint, worker.model, sample, batches, seed)


def calibration_sample(
    checkpoint: Checkpoint, train: Examples, count: int | None, *, seed: int, max_length: int
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
    max_length: int,
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
    config, device = checkpoint.model.config, checkpoint.model.device
    chosen = [texts[position] for position in index]
    encoded = checkpoint.tokenizer(chosen, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    inputs = {name: values.to(device) for name, values in encoded.items()}
    return Batch(
        inputs=inputs,
        index=torch.tensor(index),
        target=family_of(config).target(inputs["input_ids"], config.pad_token_id),
        held_out=torch.from_numpy(aside[index]).to(device),
        labels=None if labels is None else torch.tensor([labels[position] for position in index], device=device),
    )
