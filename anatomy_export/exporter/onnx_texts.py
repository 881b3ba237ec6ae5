"""Text through an ONNX file of any origin: a tokenizer.json and ONNX Runtime on the CPU, without torch."""

import glob
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from anatomy_export.data import Examples
from anatomy_export.data.labels import class_names
from anatomy_export.errors import AnatomyError, MissingExtraError, first_line
from anatomy_export.exporter.precision import RANGE_TEXTS, Batch, Precision, PrecisionReport, precision_report

MAX_LENGTH = 128
CALIBRATION_TEXTS = 256
HINT = "next step: make a plan with anatomy-export and pass it as --plan"


class TextReader:
    """A tokenizer.json that reads one text at a time, cut to `max_length` tokens, without padding.

    Raises:
        AnatomyError: the file cannot be used. MissingExtraError: tokenizers is not installed.
    """

    def __init__(self, tokenizer: Path, max_length: int = MAX_LENGTH):
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtraError(str(error.name), "edge") from error
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        except Exception as error:
            raise AnatomyError(
                f"{tokenizer} cannot be used to read text ({first_line(error)[:200]}); "
                "next step: pass the model's tokenizer.json as --tokenizer"
            ) from error
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_length)

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer.encode(text).ids)

    def inputs(self, text: str) -> Batch:
        """Whatever a graph may ask for, each (1, tokens) int64."""
        one = self.tokenizer.encode(text)
        rows = {
            "input_ids": one.ids,
            "attention_mask": one.attention_mask,
            "token_type_ids": one.type_ids,
            "position_ids": range(len(one.ids)),
        }
        return {name: np.array([row], np.int64) for name, row in rows.items()}


class TextSession:
    """A graph in ONNX Runtime on the CPU; `folder` holds the external data of a graph that is given as bytes.

    Raises:
        AnatomyError: ONNX Runtime refuses the graph. MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, graph: Path | bytes, name: str, *, folder: Path | None = None, hint: str = HINT):
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(str(error.name), "edge") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        self.name, self.hint = name, hint
        try:
            self.session = onnxruntime.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise AnatomyError(f"{name}: ONNX Runtime refuses it ({first_line(error)[:200]}); {hint}") from error

    def run(self, outputs: Sequence[str], known: Batch) -> list[np.ndarray]:
        """The named outputs, for those of the inputs `known` that the graph asks for, as the integers it wants.

        Raises:
            AnatomyError: it asks for another input, or ONNX Runtime fails.
        """
        wanted = {value.name: value.type for value in self.session.get_inputs()}
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise AnatomyError(
                f"{self.name}: the graph asks for an input '{unknown[0]}' that text does not give; {self.hint}"
            )
        inputs = {
            name: known[name].astype(np.int32) if kind == "tensor(int32)" else known[name]
            for name, kind in wanted.items()
        }
        try:
            return self.session.run(list(outputs), inputs)
        except Exception as error:
            raise AnatomyError(
                f"{self.name}: ONNX Runtime failed on a text ({first_line(error)[:200]}); {self.hint}"
            ) from error


def logits_name(model: onnx.ModelProto) -> str:
    """The output that classifies: "logits", else the first."""
    outputs = [value.name for value in model.graph.output]
    return "logits" if "logits" in outputs else outputs[0]


def config_classes(config: Path) -> tuple[str, ...]:
    """The class names of a model by a transformers config.json; none where there is no such file."""
    try:
        return class_names(json.loads(config.read_text(encoding="utf-8")), str(config.parent))
    except FileNotFoundError:
        return ()
    except (AttributeError, TypeError, ValueError) as error:
        raise AnatomyError(f"{config} is damaged ({first_line(error)}); next step: restore or remove it") from error


@dataclass(frozen=True)
class Judge:
    """What a cut and another precision are judged by: labelled `test` texts; static ranges come from `calibration`."""

    reader: TextReader
    test: Examples
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
        return float((self._classes(graph, name) == np.array(self.test.labels)).mean())

    def calibration_inputs(self) -> list[Batch]:
        """Each text's inputs, without padding."""
        return [self.reader.inputs(text) for text in self.calibration]

    def range_inputs(self) -> list[Batch]:
        """Some texts' inputs, for `check_fp16_range`."""
        return [self.reader.inputs(text) for text in self.test.texts[:RANGE_TEXTS]]

    def report(self, fp32: Path, made: Path, precision: Precision, conversion: dict) -> PrecisionReport:
        """The file `made` against the file `fp32` that it was made from.

        Raises:
            AnatomyError: see `accuracy`.
        """
        return precision_report(
            precision,
            conversion,
            classes=self._classes(made, f"the {precision.name} file"),
            expected=self._classes(fp32, "the cut model"),
            labels=np.array(self.test.labels),
            size_bytes=_size_bytes(made),
            size_bytes_fp32=_size_bytes(fp32),
        )

    def _classes(self, graph: Path, name: str) -> np.ndarray:
        """(texts,) the class of each test text."""
        output = logits_name(onnx.load(graph, load_external_data=False))
        session = TextSession(graph, name, hint="next step: leave --data out")
        rows = [session.run([output], self.reader.inputs(text))[0] for text in self.test.texts]
        if any(row.ndim != 2 or len(row) != 1 for row in rows):
            raise AnatomyError(
                f"{name}: output '{output}' is {rows[0].shape}, expected logits (1, classes); {session.hint}"
            )
        count, largest = rows[0].shape[1], max(self.test.labels)
        if largest >= count:
            raise AnatomyError(
                f"label {largest} is out of range for {count} classes, numbered from 0; next step: check --label-column"
            )
        return np.concatenate(rows).argmax(-1)


def _size_bytes(path: Path) -> int:
    """External weights included."""
    return sum(one.stat().st_size for one in path.parent.glob(f"{glob.escape(path.name)}*"))
