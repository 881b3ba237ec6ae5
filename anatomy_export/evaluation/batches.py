"""Texts as batches, and their logits in the order of the texts, whatever computes them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from anatomy_export.evaluation.classifier_inputs import Forward, Inputs, as_inputs

MOST_BATCH_TOKENS = 2**14
Batch = tuple[list[int], Inputs]
"""Where each text of a batch stands among all of them, and its inputs."""


def padded_batches(tokenizer, texts: Sequence[str], max_length: int, most_texts: int) -> Iterator[Batch]:
    """Texts in padded batches of like length, each cut off at `max_length` tokens, by a transformers tokenizer.

    A batch has at most `most_texts` texts and `MOST_BATCH_TOKENS` tokens, padding included, or one text.
    """
    lengths = [len(ids) for ids in tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]]
    for index in _by_length(lengths, most_texts):
        batch = [texts[position] for position in index]
        encoded = tokenizer(batch, padding=True, truncation=True, max_length=max_length, return_tensors="np")
        yield index, as_inputs(encoded)


def _by_length(lengths: Sequence[int], most_texts: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda position: lengths[position]):
        if batch and (len(batch) == most_texts or (len(batch) + 1) * lengths[position] > MOST_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def single_batches(tokenizer, texts: Sequence[str], max_length: int) -> list[Inputs]:
    """Each text alone, (1, tokens), cut off at `max_length` tokens and not padded."""
    return [as_inputs(tokenizer([text], truncation=True, max_length=max_length)) for text in texts]


def text_logits(forward: Forward, batches: Iterable[Batch]) -> np.ndarray:
    """Logits (texts, classes) in the order of the texts; rows past a batch's texts are passed over."""
    order: list[int] = []
    rows = []
    for index, inputs in batches:
        order += index
        rows.append(forward(inputs)[: len(index)])
    logits = np.concatenate(rows)
    result = np.empty_like(logits)
    result[order] = logits
    return result
