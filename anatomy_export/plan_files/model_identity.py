"""Which model a plan is for: the fingerprint of its FFN weights, and its logits for a few sequences of token ids.

The logits depend on all that the output depends on, attention, embeddings, head and b2 included, and they are the same
from torch and from any exporter's float32 ONNX file.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd, isfinite
from typing import Annotated

import numpy as np
from msgspec import Meta

from anatomy_export.core.errors import AnatomyError

LENGTHS = (3, 16, 64, 128)
GOLDEN_RATIO = 0.618034
DIGITS = 7
ROWS = 512
TOLERANCE = 1e-4
LEAST_TOLERANCE = 1e-9
HINT = "next step: make a plan for this model, or pass the model that the plan was made for"
UNRECORDED = (
    "note: the plan records no logits (it predates them, or was made from an ONNX file alone), so only the FFN weights "
    "are compared, not what else the output depends on"
)


@dataclass(frozen=True)
class RecordedLogits:
    """A model's logits for a few sequences, each run alone without padding and with token types 0.

    `input_ids`: the token ids of each sequence. `logits`: (sequences, classes), to seven digits.
    """

    input_ids: tuple[Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(min_length=1)], ...]
    logits: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.logits}
        if len(self.logits) != len(self.input_ids) or len(widths) != 1 or 0 in widths:
            raise ValueError("logits are not one row of as many numbers for each sequence")
        if not all(isfinite(logit) for row in self.logits for logit in row):
            raise ValueError("a logit is not finite")

    def check(self, logits: np.ndarray, sequences: Sequence[int] | None = None, *, probabilities: bool = False) -> None:
        """Raise AnatomyError unless a model's logits are the recorded ones.

        The tolerance is `TOLERANCE` of the largest recorded logit: float32 differs from one program to another by a
        hundredth of that, an approximated GELU by more.

        Args:
            logits: (sequences, classes).
            sequences: which of the recorded ones these are; None for all.
            probabilities: what is passed as `logits` is their softmax.
        """
        recorded = softmax(np.array(self.logits)) if probabilities else np.array(self.logits)
        rows = list(range(len(recorded)) if sequences is None else sequences)
        expected = recorded[rows]
        if logits.shape != expected.shape:
            raise self.other_output(logits.shape[1:])
        tolerance = max(TOLERANCE * float(np.abs(recorded).max()), LEAST_TOLERANCE)
        difference = np.nan_to_num(np.abs(logits - expected), nan=np.inf)
        if difference.max() <= tolerance:
            return
        row, label = np.unravel_index(difference.argmax(), difference.shape)
        raise AnatomyError(
            "plan was made for another model with the same FFN weights: for the recorded sequence of "
            f"{len(self.input_ids[rows[row]])} tokens that model's output {label} is {expected[row, label]:.6g}, this "
            f"one's is {logits[row, label]:.6g} (tolerance {tolerance:.1e}); {HINT}"
        )

    def other_output(self, shape: Sequence[int]) -> AnatomyError:
        """The error for a model whose output for a text has this shape."""
        return AnatomyError(
            f"plan was made for a model that gives {len(self.logits[0])} logits a text, this one gives {tuple(shape)}; "
            f"{HINT}"
        )


@dataclass(frozen=True)
class ModelIdentity:
    """What a plan records of its model: the fingerprint of the FFN weights, and logits."""

    fingerprint: str
    recorded_logits: RecordedLogits


def record_logits(input_ids: Sequence[Sequence[int]], logits: np.ndarray) -> RecordedLogits:
    """What `logits` (sequences, classes) of those sequences are recorded as.

    Raises:
        AnatomyError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise AnatomyError(
            f"the model gives logits that are not finite, as for token ids {list(input_ids[0])}; "
            "next step: check its weights"
        )
    rounded = tuple(tuple(float(f"{logit:.{DIGITS}g}") for logit in row) for row in logits)
    return RecordedLogits(tuple(tuple(ids) for ids in input_ids), rounded)


def spread_ids(vocab_size: int, pad_token_id: int | None, max_positions: int) -> list[list[int]]:
    """Sequences of `LENGTHS` tokens, at most `max_positions`: ids spread over the vocabulary, the padding id left out.

    No id comes twice before all have come once.
    """
    usable = [index for index in range(vocab_size) if index != pad_token_id]
    step = max(1, round(GOLDEN_RATIO * len(usable)))
    while gcd(step, len(usable)) != 1:
        step += 1
    lengths = sorted({min(length, max_positions) for length in LENGTHS})
    starts = np.cumsum([1, *lengths])
    return [
        [usable[(start + offset) * step % len(usable)] for offset in range(length)]
        for start, length in zip(starts.tolist(), lengths, strict=False)
    ]


def ffn_fingerprint(blocks: Iterable[Iterable[np.ndarray]]) -> str:
    """SHA-256 over every layer's W1 (n, d), b1 (n,), W2 (n, d) as little-endian float32, in that order.

    Arrays are asked for one by one, and converted in groups of rows.
    """
    digest = hashlib.sha256()
    for arrays in blocks:
        for array in arrays:
            for start in range(0, len(array), ROWS):
                digest.update(np.ascontiguousarray(array[start : start + ROWS], dtype="<f4").data)
    return digest.hexdigest()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (…, classes) of logits."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)
