"""A torch classifier run on text."""

from collections.abc import Sequence

import numpy as np
import torch

from anatomy_export.data.loading import Examples
from anatomy_export.evaluation.batches import Batch, padded_batches, single_batches, text_logits
from anatomy_export.evaluation.classifier_inputs import Forward, Inputs
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.plan_files.model_identity import softmax

EVALUATION_BATCH = 64
EncodedTexts = list[Batch]


def torch_forward(model) -> Forward:
    """Logits (batch, classes) of a torch classifier as a function of NumPy inputs."""

    def forward(batch: Inputs) -> np.ndarray:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits.numpy()

    return forward


def encode_texts(checkpoint: Checkpoint, texts: Sequence[str], max_length: int = 128) -> EncodedTexts:
    """Tokenise once what is then run through several models."""
    return list(padded_batches(checkpoint.tokenizer, texts, max_length, EVALUATION_BATCH))


def encoded_probabilities(model, encoded: EncodedTexts) -> np.ndarray:
    """Class probabilities (texts, classes), in the order of the texts."""
    return softmax(text_logits(torch_forward(model), encoded).astype(np.float64))


def class_probabilities(checkpoint: Checkpoint, model, texts: Sequence[str], max_length: int = 128) -> np.ndarray:
    """(len(texts), classes), in the order of `texts`."""
    return encoded_probabilities(model, encode_texts(checkpoint, texts, max_length))


def torch_accuracy(checkpoint: Checkpoint, examples: Examples, max_length: int) -> float:
    """Share of `examples` that the torch model classifies right, as a fraction."""
    probabilities = class_probabilities(checkpoint, checkpoint.model, examples.texts, max_length)
    return float((probabilities.argmax(-1) == np.array(examples.labels)).mean())


def predict_classes(checkpoint: Checkpoint, texts: Sequence[str], max_length: int) -> list[int]:
    """The model's class of each text, one text at a time."""
    forward = torch_forward(checkpoint.model)
    return [int(forward(inputs)[0].argmax()) for inputs in single_batches(checkpoint.tokenizer, texts, max_length)]
