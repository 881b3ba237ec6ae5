"""Is the requested execution provider really there? ONNX Runtime falls back to the CPU in silence; this finds out."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from anatomy_export.errors import ProviderError

PRODUCT_OPERATORS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "QLinearMatMul")
HOW_TO = {
    "CUDAExecutionProvider": "needs an NVIDIA driver and the CUDA and cuDNN that this onnxruntime-gpu was built for "
    "(1.31: CUDA 13, cuDNN 9): pip install 'anatomy-export[gpu]' and 'onnxruntime-gpu[cuda,cudnn]'",
    "TensorrtExecutionProvider": "needs an NVIDIA driver, CUDA and TensorRT beside onnxruntime-gpu: pip install "
    "'anatomy-export[gpu]' tensorrt",
}


def _next_step(provider: str) -> str:
    return f"next step: {HOW_TO.get(provider, 'install what the provider needs')}; or use --provider cpu"


def require_available(onnxruntime, provider: str) -> None:
    """Raise ProviderError where this build of ONNX Runtime does not have `provider` at all."""
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise ProviderError(
            f"{provider} is not in this onnxruntime {onnxruntime.__version__} (it has {', '.join(available)}); "
            + _next_step(provider)
        )


def require_started(session, provider: str) -> None:
    """Raise ProviderError where `provider` failed to initialise, so that ONNX Runtime left it out of the session."""
    started = session.get_providers()
    if provider not in started:
        raise ProviderError(
            f"{provider} is listed by onnxruntime but did not start on this machine (the session got "
            f"{', '.join(started)}); {_next_step(provider)}"
        )


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


def really_starts(onnxruntime, provider: str) -> str | None:
    """None where a one-node model runs on `provider`, else why it does not."""
    from anatomy_export.bench.engines import ort_options

    try:
        require_available(onnxruntime, provider)
        session = onnxruntime.InferenceSession(matmul_model(4, 4), ort_options(1), providers=[provider])
        require_started(session, provider)
        check_placement(session, provider, Path("a one-node model"))
        session.run(None, {"left": np.ones((2, 4), dtype=np.float32)})
    except Exception as error:
        return " ".join(str(error).split())[:300]
    return None
