"""An ONNX classifier with the tokenizer of its checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anatomy_export.data.loading import Examples
from anatomy_export.evaluation.batches import padded_batches, text_logits
from anatomy_export.evaluation.classifier_inputs import Inputs
from anatomy_export.evaluation.onnx_session import OnnxSession

EVALUATION_BATCH = 32


class OnnxClassifier:
    """An `.onnx` classifier on the CPU, with the transformers tokenizer of its bundle."""

    def __init__(self, path: Path, tokenizer, max_length: int):
        self.session = OnnxSession(path, extra="cpu")
        self.tokenizer = tokenizer
        self.max_length = max_length

    def run(self, inputs: Inputs) -> np.ndarray:
        """Logits (batch, classes) for padded inputs, each (batch, tokens)."""
        return self.session.logits(inputs)

    def logits(self, texts: Sequence[str], batch_size: int = EVALUATION_BATCH) -> np.ndarray:
        """Logits (len(texts), classes) in the order of `texts`; see `padded_batches`, of at most `batch_size` texts."""
        return text_logits(self.run, padded_batches(self.tokenizer, texts, self.max_length, batch_size))

    def accuracy(self, examples: Examples) -> float:
        """Share of `examples` classified right, as a fraction."""
        return float((self.logits(examples.texts).argmax(-1) == np.array(examples.labels)).mean())
