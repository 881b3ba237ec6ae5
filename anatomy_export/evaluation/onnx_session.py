"""The one place that opens ONNX Runtime sessions, and runs an ONNX file on inputs; without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anatomy_export.core.errors import AnatomyError, MissingExtraError, first_line
from anatomy_export.core.platform import usable_cores
from anatomy_export.evaluation.classifier_inputs import Inputs

CPU = "CPUExecutionProvider"
SILENT = 4
REASON_SHOWN = 200
HINT = "next step: check that it is a whole ONNX model of operators that this onnxruntime has"
MAKE_A_PLAN = "next step: make a plan with anatomy-export and pass it as --plan"


class OnnxRuntimeError(AnatomyError):
    """ONNX Runtime cannot load or run a graph; `reason` is the first line of what it said."""

    def __init__(self, name: str, what: str, error: Exception, hint: str):
        self.reason = first_line(error)[:REASON_SHOWN]
        super().__init__(f"{name}: ONNX Runtime {what} ({self.reason}); {hint}")


def runtime_reason(error: Exception) -> str:
    """What ONNX Runtime said, or the first line of another error."""
    return error.reason if isinstance(error, OnnxRuntimeError) else first_line(error)[:REASON_SHOWN]


def open_session(
    graph: Path | bytes,
    name: str = "",
    *,
    hint: str = HINT,
    weights: Mapping[str, Any] | None = None,
    level: str | None = None,
    entries: Mapping[str, str] | None = None,
    save_to: Path | None = None,
    threads: int | None = None,
    provider: str = CPU,
    provider_options: Mapping[str, str] | None = None,
    extra: str = "edge",
):
    """An `onnxruntime.InferenceSession` that writes nothing to the terminal.

    Args:
        graph: path of an `.onnx` or `.ort` file, or a serialized model. `name` is what errors call it, else the path's.
        weights: `OrtValue`s by name, which a model given as bytes lacks.
        level: a member of `GraphOptimizationLevel` by name; None for all optimizations.
        entries: session configuration entries.
        save_to: where the optimized model is written.
        threads: for one operator; None for the physical cores that a quota of CPU time lets run.
        extra: what installs onnxruntime.

    Raises:
        OnnxRuntimeError: ONNX Runtime refuses the graph. MissingExtraError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(str(error.name), extra) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = usable_cores() if threads is None else threads
    if level is not None:
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    if weights:
        options.add_external_initializers(list(weights), list(weights.values()))
    model = graph if isinstance(graph, bytes) else str(graph)
    try:
        return onnxruntime.InferenceSession(model, options, providers=[(provider, dict(provider_options or {}))])
    except Exception as error:
        raise OnnxRuntimeError(name or Path(str(graph)).name, "cannot load it", error, hint) from error


class OnnxSession:
    """A graph in ONNX Runtime on the CPU; see `open_session`."""

    def __init__(self, graph: Path | bytes, name: str = "", *, hint: str = HINT, **options: Any):
        self.name, self.hint = name or Path(str(graph)).name, hint
        self.session = open_session(graph, self.name, hint=hint, **options)
        self.input_types = {value.name: value.type for value in self.session.get_inputs()}
        outputs = [value.name for value in self.session.get_outputs()]
        self.logits_output = "logits" if "logits" in outputs else outputs[0]

    def logits(self, inputs: Inputs) -> np.ndarray:
        """Logits (batch, classes): of the output "logits", else of the first.

        Raises:
            AnatomyError: see `run`; or that output has another shape.
        """
        [logits] = self.run([self.logits_output], inputs)
        batch = len(inputs["input_ids"])
        if logits.ndim != 2 or len(logits) != batch:
            raise AnatomyError(
                f"{self.name}: output '{self.logits_output}' is {logits.shape}, expected logits ({batch}, classes); "
                f"{self.hint}"
            )
        return logits

    def run(self, outputs: Sequence[str], known: Inputs) -> list[np.ndarray]:
        """The named outputs, for those of the inputs `known` that the graph asks for, as the integers it wants.

        Raises:
            AnatomyError: it asks for another input, or ONNX Runtime fails.
        """
        unknown = [name for name in self.input_types if name not in known]
        if unknown:
            raise AnatomyError(
                f"{self.name}: the graph asks for an input '{unknown[0]}' that text does not give; {self.hint}"
            )
        inputs = {
            name: known[name].astype(np.int32) if kind == "tensor(int32)" else known[name]
            for name, kind in self.input_types.items()
        }
        try:
            return self.session.run(list(outputs), inputs)
        except Exception as error:
            raise OnnxRuntimeError(self.name, "failed on a text", error, self.hint) from error


def save_ort_format(source: Path, target: Path) -> None:
    """Write an `.onnx` file in ONNX Runtime's own format, optimized as far as holds on every machine.

    Raises:
        AnatomyError: ONNX Runtime refused.
    """
    try:
        open_session(source, level="ORT_ENABLE_EXTENDED", entries={"session.save_model_format": "ORT"}, save_to=target)
    except OnnxRuntimeError as error:
        raise AnatomyError(f"ONNX Runtime cannot write {target.name}: {error.reason}") from error
