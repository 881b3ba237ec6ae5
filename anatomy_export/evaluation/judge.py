"""What a cut of an ONNX file, and another precision of it, are judged by: labelled text, without torch."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.onnx_tensors import file_bytes
from anatomy_export.data.loading import Examples
from anatomy_export.evaluation.batches import text_logits
from anatomy_export.evaluation.classifier_inputs import Inputs
from anatomy_export.evaluation.onnx_session import OnnxSession
from anatomy_export.evaluation.precision_gate import (
    RANGE_TEXTS,
    Precision,
    PrecisionReport,
    precision_gate,
    precision_report,
)
from anatomy_export.evaluation.text_reader import TextReader

CALIBRATION_TEXTS = 256


@dataclass(frozen=True)
class Judge:
    """What a cut and another precision are judged by: accuracy is that on the labelled texts `test`; whether another
    precision loses too much is decided on `validation`. Static ranges come from `calibration`."""

    reader: TextReader
    test: Examples
    validation: Examples
    calibration: tuple[str, ...]

    @property
    def majority_share(self) -> float:
        """Share of the test texts that are of the most frequent class."""
        return max(Counter(self.test.labels).values()) / len(self.test)

    def accuracy(self, graph: Path, name: str) -> float:
        """Share of the test texts that the file `graph`, called `name` in errors, classifies right.

        Raises:
            AnatomyError: it does not run on text, has no logits, or fewer classes than the labels.
        """
        return float((self._classes(graph, name, self.test) == np.array(self.test.labels)).mean())

    def calibration_inputs(self) -> list[Inputs]:
        """Each text's inputs."""
        return [self.reader.inputs(text) for text in self.calibration]

    def range_inputs(self) -> list[Inputs]:
        """Some texts' inputs, for `check_fp16_range`."""
        return [self.reader.inputs(text) for text in self.validation.texts[:RANGE_TEXTS]]

    def report(self, fp32: Path, made: Path, precision: Precision, conversion: dict) -> PrecisionReport:
        """The file `made` against the file `fp32` that it was made from: on the test texts, with what the validation
        texts decide.

        Raises:
            AnatomyError: see `accuracy`.
        """
        named = ((made, f"the {precision.name} file"), (fp32, "the cut model"))
        judged, expected = (self._classes(graph, name, self.validation) for graph, name in named)
        classes, expected_classes = (self._classes(graph, name, self.test) for graph, name in named)
        return precision_report(
            precision,
            conversion,
            classes=classes,
            expected=expected_classes,
            labels=np.array(self.test.labels),
            size_bytes=file_bytes(made),
            size_bytes_fp32=file_bytes(fp32),
            gate=precision_gate(precision, classes=judged, expected=expected, labels=np.array(self.validation.labels)),
        )

    def _classes(self, graph: Path, name: str, examples: Examples) -> np.ndarray:
        """(texts,) the class of each text."""
        session = OnnxSession(graph, name, hint="next step: leave --data out")
        logits = text_logits(session.logits, self.reader.batches(examples.texts))
        largest, classes = max(examples.labels), logits.shape[1]
        if largest >= classes:
            raise AnatomyError(
                f"label {largest} is out of range for {classes} classes, numbered from 0; next step: check "
                "--label-column"
            )
        return logits.argmax(-1)
