"""Is the requested execution provider really there? ONNX Runtime falls back to the CPU in silence; this finds out."""

import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

from anatomy_export.core.errors import MissingExtraError, ProviderError
from anatomy_export.evaluation.onnx_session import CPU, open_session

PRODUCT_OPERATORS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "QLinearMatMul")
HOW_TO = {
    "CUDAExecutionProvider": "needs an NVIDIA driver and the CUDA and cuDNN that this onnxruntime-gpu was built for "
    "(1.31: CUDA 13, cuDNN 9): pip install '.[gpu]' in this toolkit's clone, and 'onnxruntime-gpu[cuda,cudnn]'",
    "TensorrtExecutionProvider": "needs an NVIDIA driver, CUDA and TensorRT beside onnxruntime-gpu: pip install "
    "'.[gpu]' tensorrt in this toolkit's clone",
}


def _next_step(provider: str) -> str:
    return f"next step: {HOW_TO.get(provider, 'install what the provider needs')}; or use --provider cpu"


def provider_session(
    model: Path | bytes, name: str, provider: str, *, threads: int, settings: dict[str, str] | None = None
):
    """An ONNX Runtime session that really has `provider`; its threads spin during a call and stop between calls.

    Args:
        model: path of an `.onnx` file, or its bytes; `name` is what errors call it.
        provider: as ONNX Runtime names it; `settings` are its options.

    Raises:
        ProviderError: this build has no such provider, or it did not start. AnatomyError: the model cannot be loaded.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu" if provider == CPU else "gpu") from error
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise ProviderError(
            f"{provider} is not in this onnxruntime {onnxruntime.__version__} (it has {', '.join(available)}); "
            + _next_step(provider)
        )
    entries = {"session.force_spinning_stop": "1", "session.record_ep_graph_assignment_info": "1"}
    with _native_messages() as messages:
        if provider != CPU and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        session = open_session(
            model, name, threads=threads, provider=provider, provider_options=settings, entries=entries
        )
    started = session.get_providers()
    if provider not in started:
        causes = re.findall(r"with error: (.+)", "".join(messages))
        cause = f": {causes[0].strip()}" if causes else ""
        raise ProviderError(
            f"{provider} is listed by onnxruntime {onnxruntime.__version__} but did not start on this machine{cause} "
            f"(the session got {', '.join(started)}); {_next_step(provider)}"
        )
    return session


@contextmanager
def _native_messages() -> Iterator[list[str]]:
    """Catch what native code writes to the process's standard output and error; the list is filled at the end."""
    messages: list[str] = []
    kept = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    with tempfile.TemporaryFile() as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor, _ in kept:
            os.dup2(file.fileno(), descriptor)
        try:
            yield messages
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for descriptor, saved in kept:
                os.dup2(saved, descriptor)
                os.close(saved)
            file.seek(0)
            messages.append(file.read().decode(errors="replace"))


def check_placement(session, provider: str, file: Path) -> dict[str, dict[str, int]]:
    """Where each node really runs: `{provider: {operator: nodes}}`; empty where ONNX Runtime cannot tell (before 1.31).

    Raises:
        ProviderError: a matrix product runs elsewhere than on `provider`, or none is known to run there.
    """
    counts = node_placement(session)
    if counts is None:
        if provider != "CPUExecutionProvider":
            raise ProviderError(
                f"this onnxruntime cannot say where {file} runs node by node; next step: onnxruntime-gpu 1.31 or later"
            )
        return {}
    elsewhere = {
        other: sum(operators[name] for name in PRODUCT_OPERATORS if name in operators)
        for other, operators in counts.items()
        if other != provider
    }
    here = sum(counts.get(provider, {}).get(name, 0) for name in PRODUCT_OPERATORS)
    if sum(elsewhere.values()) or not here:
        where = (
            ", ".join(f"{count} on {other}" for other, count in elsewhere.items() if count) or "none known elsewhere"
        )
        raise ProviderError(
            f"{file}: only {here} of its matrix products run on {provider} ({where}); {_next_step(provider)}"
        )
    return counts


def node_placement(session) -> dict[str, dict[str, int]] | None:
    """Nodes by provider and operator; None where the session was not made to record them or cannot tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    counts: dict[str, Counter] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        counts.setdefault(subgraph.ep_name, Counter()).update(node.op_type for node in subgraph.get_nodes())
    return {provider: dict(counter) for provider, counter in counts.items()}


def matmul_model(inner: int, columns: int) -> bytes:
    """A serialized ONNX model of one node: `left` (rows, inner) times a constant (inner, columns), float32."""
    right = np.random.default_rng(1).random((inner, columns), dtype=np.float32)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", onnx.TensorProto.FLOAT, ["rows", inner])],
        [helper.make_tensor_value_info("product", onnx.TensorProto.FLOAT, ["rows", columns])],
        [onnx.numpy_helper.from_array(right, "right")],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
