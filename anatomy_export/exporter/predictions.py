"""What a torch classifier predicts, and how far a pruned one's predictions are from the dense one's."""

import numpy as np
import torch

from anatomy_export.models.checkpoint import Checkpoint

EVALUATION_BATCH = 64


@torch.inference_mode()
def class_probabilities(checkpoint: Checkpoint, model, texts: tuple[str, ...], max_length: int = 128) -> np.ndarray:
    """(len(texts), classes), in the order of `texts`."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    result = np.zeros((len(texts), model.config.num_labels))
    for start in range(0, len(order), EVALUATION_BATCH):
        index = order[start : start + EVALUATION_BATCH]
        inputs = checkpoint.tokenizer(
            [texts[one] for one in index], padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        result[index] = model(**inputs).logits.double().softmax(-1).numpy()
    return result


def compare_predictions(dense: np.ndarray, pruned: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy, agreement with the dense predictions and mean |Δ probability| of a class, as fractions.

    Args:
        dense, pruned: class probabilities, (texts, classes).
        labels: (texts,).
    """
    return {
        "accuracy": float((pruned.argmax(1) == labels).mean()),
        "agreement": float((dense.argmax(1) == pruned.argmax(1)).mean()),
        "probability_change": float(np.abs(dense - pruned).mean()),
    }


def expected_drop(dense: np.ndarray, pruned: np.ndarray) -> float:
    """How much less often the pruned model is right if the dense model's probabilities are true, a fraction ≥ 0.

    The mean over texts of p(dense class) − p(pruned class), both by the dense model. It varies less between samples
    than the difference of two accuracies, for labels do not enter.

    Args:
        dense, pruned: class probabilities, (texts, classes).
    """
    rows = np.arange(len(dense))
    return float((dense.max(1) - dense[rows, pruned.argmax(1)]).mean())
