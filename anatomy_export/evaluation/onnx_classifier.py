"""Run an ONNX classifier through ONNX Runtime on text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.loading import Examples
from anatomy_export.evaluation.onnx_session import OnnxRuntimeError, open_session
from anatomy_export.models.text_lengths import padded_batches

EVALUATION_BATCH = 32


class OnnxClassifier:
    """An `.onnx` classifier on the CPU, with the tokenizer of its bundle."""

    def __init__(self, path: Path, tokenizer, max_length: int):
        self.session = open_session(path)
        self.input_names = [value.name for value in self.session.get_inputs()]
        self.tokenizer = tokenizer
        self.max_length = max_length

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Logits (batch, classes) for padded inputs, each (batch, sequence)."""
        arrays = {name: np.asarray(inputs[name], dtype=np.int64) for name in self.input_names}
        return self.session.run(["logits"], arrays)[0]

    def logits(self, texts: Sequence[str], batch_size: int = EVALUATION_BATCH) -> np.ndarray:
        """Logits (len(texts), classes) in the order of `texts`; see `padded_batches`, of at most `batch_size` texts."""
        batches = padded_batches(self.tokenizer, texts, self.max_length, most_texts=batch_size, tensors="np")
        order: list[int] = []
        rows = []
        for index, inputs in batches:
            order += index
            rows.append(self.run(inputs))
        ordered = np.concatenate(rows)
        result = np.empty_like(ordered)
        result[order] = ordered
        return result

    def accuracy(self, examples: Examples) -> float:
        """Share of `examples` classified right, as a fraction."""
        return float((self.logits(examples.texts).argmax(-1) == np.array(examples.labels)).mean())


def save_ort_format(source: Path, target: Path) -> None:
    """Write an `.onnx` file in ONNX Runtime's own format, optimized as far as holds on every machine.

    Raises:
        AnatomyError: ONNX Runtime refused.
    """
    try:
        open_session(source, level="ORT_ENABLE_EXTENDED", entries={"session.save_model_format": "ORT"}, save_to=target)
    except OnnxRuntimeError as error:
        raise AnatomyError(f"ONNX Runtime cannot write {target.name}: {error.reason}") from error
