"""What a torch classifier predicts, and how far a pruned one's predictions are from the dense one's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from anatomy_export.data.loading import Examples
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.text_lengths import padded_batches

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as padded batches of like length: of each its inputs by name, and where its rows stand among the texts."""

    batches: tuple[tuple[np.ndarray, dict[str, torch.Tensor]], ...]
    count: int


def encode_texts(checkpoint: Checkpoint, texts: Sequence[str], max_length: int = 128) -> EncodedTexts:
    """Tokenise once what is then run through several models."""
    batches = padded_batches(checkpoint.tokenizer, texts, max_length, most_texts=EVALUATION_BATCH, tensors="pt")
    return EncodedTexts(tuple((np.array(index), dict(inputs)) for index, inputs in batches), len(texts))


@torch.inference_mode()
def encoded_probabilities(model, encoded: EncodedTexts) -> np.ndarray:
    """Class probabilities (texts, classes), in the order of the texts."""
    result = np.zeros((encoded.count, model.config.num_labels))
    for index, inputs in encoded.batches:
        result[index] = model(**inputs).logits.double().softmax(-1).numpy()
    return result


def class_probabilities(checkpoint: Checkpoint, model, texts: tuple[str, ...], max_length: int = 128) -> np.ndarray:
    """(len(texts), classes), in the order of `texts`."""
    return encoded_probabilities(model, encode_texts(checkpoint, texts, max_length))


def torch_accuracy(checkpoint: Checkpoint, examples: Examples, max_length: int) -> float:
    """Share of `examples` that the torch model classifies right, as a fraction."""
    right = 0
    order = sorted(range(len(examples)), key=lambda index: len(examples.texts[index]))
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            inputs = checkpoint.tokenizer(
                [examples.texts[index] for index in batch],
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            )
            predicted = checkpoint.model(**inputs).logits.argmax(-1).tolist()
            right += sum(guess == examples.labels[index] for guess, index in zip(predicted, batch, strict=True))
    return right / len(examples)
