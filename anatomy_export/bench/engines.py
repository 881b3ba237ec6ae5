"""The engines that a worker can time. Each turns inputs into a call that returns logits on the host.

Inputs are int64 arrays (batch, sequence) by name. With `copies` the call starts from host memory and ends there, on any
device; without, inputs are placed on the device beforehand and the result stays there. Either way the call returns only
when the device has finished.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from anatomy_export.bench.placement import check_placement, matmul_model, provider_session
from anatomy_export.core.errors import AnatomyError, MissingExtraError, ProviderError
from anatomy_export.evaluation.classifier_inputs import Inputs

Call = Callable[[], np.ndarray | None]
ROOFLINE_SHAPE = (1024, 768, 3072)
ORT_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


@dataclass(frozen=True)
class EngineSpec:
    """One engine on one model, and how it may use the machine. `model` is a bundle or an `.onnx` file."""

    engine: str
    model: str = ""
    provider: str = "cpu"
    threads: int = 1
    copies: bool = True
    cuda_graph: bool = False


class Engine(Protocol):
    """`facts`: what the engine says of itself (version, placement). `prepare`: inputs in, timed call out."""

    facts: dict

    def prepare(self, inputs: Inputs) -> Call: ...


def build_engine(spec: EngineSpec) -> Engine:
    """Load the engine that `spec` names.

    Raises:
        AnatomyError: it cannot load the model. ProviderError: the provider is not really there.
    """
    return _ENGINES[spec.engine](spec)


def onnx_file(model: str) -> Path:
    """The `.onnx` file of a bundle, or the file itself.

    Raises:
        AnatomyError: neither.
    """
    path = Path(model)
    file = path / "model.onnx" if path.is_dir() else path
    if not file.is_file():
        raise AnatomyError(f"{path}: neither a bundle nor an .onnx file; next step: make one with anatomy-export")
    return file


class OrtEngine:
    """ONNX Runtime. Its threads spin during a call and stop between calls."""

    def __init__(self, spec: EngineSpec):
        provider = ORT_PROVIDERS[spec.provider]
        file = onnx_file(spec.model)
        settings = _provider_settings(spec)
        self.session = provider_session(file, str(file), provider, threads=spec.threads, settings=settings)
        self.spec = spec
        self.graphs = 0
        self.facts = {
            "onnxruntime": _ort_version(),
            "placement": check_placement(self.session, provider, file),
        }

    def prepare(self, inputs: Inputs) -> Call:
        feed = {value.name: inputs[value.name] for value in self.session.get_inputs()}
        if self.spec.copies:
            return lambda: self.session.run(None, feed)[0]
        return self._bound(feed)

    def _bound(self, feed: Inputs) -> Call:
        import onnxruntime

        self.graphs += 1
        options = onnxruntime.RunOptions()
        if self.spec.cuda_graph:
            options.add_run_config_entry("gpu_graph_id", str(self.graphs))  # one captured graph for each input shape
        device = "cpu" if self.spec.provider == "cpu" else "cuda"
        binding = self.session.io_binding()
        for name, array in feed.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0))
        output = self.session.get_outputs()[0]
        batch = next(iter(feed.values())).shape[0]
        logits = np.zeros((batch, int(output.shape[1])), dtype=np.float32)
        binding.bind_ortvalue_output(output.name, onnxruntime.OrtValue.ortvalue_from_numpy(logits, device, 0))

        def call() -> None:
            self.session.run_with_iobinding(binding, options)
            binding.synchronize_outputs()

        return call


def _provider_settings(spec: EngineSpec) -> dict[str, str]:
    """Full float32 products, as torch computes them, instead of TF32; CUDA graphs where they were asked for."""
    if spec.provider == "cpu":
        return {}
    name = {"cuda": "enable_cuda_graph", "tensorrt": "trt_cuda_graph_enable"}[spec.provider]
    graphs = {name: "1"} if spec.cuda_graph else {}
    return {"use_tf32": "0", **graphs} if spec.provider == "cuda" else graphs


def _ort_version() -> str:
    import onnxruntime

    return onnxruntime.__version__


class TorchEngine:
    """PyTorch, eager: the checkpoint inside a bundle, as transformers runs it, under `torch.inference_mode`."""

    def __init__(self, spec: EngineSpec):
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("torch", "cpu") from error
        import transformers

        from anatomy_export.exporter.torch_to_onnx import graph_inputs
        from anatomy_export.models.checkpoint import checkpoint_of, load_checkpoint

        torch.set_num_threads(spec.threads)
        torch.set_num_interop_threads(1)
        require_cuda(torch, spec.provider)
        checkpoint = load_checkpoint(str(checkpoint_of(spec.model)))
        self.names = graph_inputs(checkpoint)
        self.device = "cpu" if spec.provider == "cpu" else "cuda"
        self.model = checkpoint.model.to(self.device)
        self.spec = spec
        self.torch = torch
        self.facts = {"torch": torch.__version__, "transformers": transformers.__version__}

    def prepare(self, inputs: Inputs) -> Call:
        host = {name: self.torch.from_numpy(inputs[name]) for name in self.names}
        placed = {name: tensor.to(self.device) for name, tensor in host.items()}

        def call() -> np.ndarray | None:
            with self.torch.inference_mode():
                if self.spec.copies:
                    moved = {name: tensor.to(self.device) for name, tensor in host.items()}
                    return self.model(**moved).logits.cpu().numpy()
                self.model(**placed)
                if self.device == "cuda":
                    self.torch.cuda.synchronize()
                return None

        return call


class TorchCompileEngine(TorchEngine):
    """PyTorch with `torch.compile`, a graph for every input shape; it compiles during the warm-ups."""

    def __init__(self, spec: EngineSpec):
        super().__init__(spec)
        self.torch._dynamo.config.recompile_limit = 1000
        self.model = self.torch.compile(self.model, dynamic=False)


class OpenVinoEngine:
    """OpenVINO on the CPU in float32, with its latency hint; left alone it computes in bfloat16 where the CPU can."""

    def __init__(self, spec: EngineSpec):
        self._load(str(onnx_file(spec.model)), spec)

    def _load(self, model: str | bytes, spec: EngineSpec) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino") from error
        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": spec.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            compiled = core.compile_model(core.read_model(model), "CPU", settings)
        except RuntimeError as error:
            raise AnatomyError(f"OpenVINO cannot load {spec.model}: {str(error)[:300]}") from error
        self.request = compiled.create_infer_request()
        self.names = [port.get_any_name() for port in compiled.inputs]
        self.facts = {
            "openvino": openvino.__version__,
            "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
            "precision": str(compiled.get_property("INFERENCE_PRECISION_HINT")),
        }

    def prepare(self, inputs: Inputs) -> Call:
        feed = {name: inputs[name] for name in self.names}
        return lambda: next(iter(self.request.infer(feed, share_inputs=True).values()))


class TorchRoofline:
    """A float32 matrix product of `ROOFLINE_SHAPE` (m, k, n) by PyTorch.

    The best rate of the roofline engines is what shares of the machine's peak are of.
    """

    def __init__(self, spec: EngineSpec):
        import torch

        torch.set_num_threads(spec.threads)
        require_cuda(torch, spec.provider)
        device = "cpu" if spec.provider == "cpu" else "cuda"
        rows, inner, columns = ROOFLINE_SHAPE
        left, right = torch.rand(rows, inner, device=device), torch.rand(inner, columns, device=device)
        self.facts = {"flops": 2 * rows * inner * columns, "torch": torch.__version__}

        def call() -> None:
            torch.mm(left, right)
            if device == "cuda":
                torch.cuda.synchronize()

        self.call = call

    def prepare(self, inputs: Inputs) -> Call:
        return self.call


class OrtRoofline:
    """The same product by ONNX Runtime, on a model of one MatMul with a constant right side."""

    def __init__(self, spec: EngineSpec):
        rows, inner, columns = ROOFLINE_SHAPE
        provider = ORT_PROVIDERS[spec.provider]
        self.session = provider_session(
            matmul_model(inner, columns), "a one-node model", provider, threads=spec.threads
        )
        check_placement(self.session, provider, Path("a one-node model"))
        self.left = np.random.default_rng(0).random((rows, inner), dtype=np.float32)
        self.facts = {"flops": 2 * rows * inner * columns, "onnxruntime": _ort_version()}

    def prepare(self, inputs: Inputs) -> Call:
        return lambda: self.session.run(None, {"left": self.left})[0]


class OpenVinoRoofline(OpenVinoEngine):
    """The same product by OpenVINO."""

    def __init__(self, spec: EngineSpec):
        rows, inner, columns = ROOFLINE_SHAPE
        self._load(matmul_model(inner, columns), spec)
        self.left = np.random.default_rng(0).random((rows, inner), dtype=np.float32)
        self.facts["flops"] = 2 * rows * inner * columns

    def prepare(self, inputs: Inputs) -> Call:
        return super().prepare({"left": self.left})


def require_engines(engines: Iterable[str]) -> None:
    """Raise MissingExtraError where the library of one of `engines` is not installed."""
    for engine in engines:
        package, extra = {"ort": ("onnxruntime", "cpu"), "openvino": ("openvino", "openvino")}.get(
            engine, ("torch", "cpu")
        )
        if not find_spec(package):
            raise MissingExtraError(package, extra)


def require_cuda(torch, provider: str) -> None:
    """Raise ProviderError where a CUDA provider was asked for and torch sees no CUDA device."""
    if provider != "cpu" and not torch.cuda.is_available():
        raise ProviderError(
            f"torch {torch.__version__} finds no CUDA device; next step: run where there is an NVIDIA GPU and a CUDA "
            "build of torch, or use --provider cpu"
        )


def fused_for(engine: str, provider: str) -> str:
    """The graph that an engine gets: "ort" fusions, or "none" for those that know standard operators only."""
    return "none" if engine == "openvino" or provider == "tensorrt" else "ort"


_ENGINES: dict[str, Callable[[EngineSpec], Engine]] = {
    "torch": TorchEngine,
    "torch-compile": TorchCompileEngine,
    "ort": OrtEngine,
    "openvino": OpenVinoEngine,
    "roofline-torch": TorchRoofline,
    "roofline-ort": OrtRoofline,
    "roofline-openvino": OpenVinoRoofline,
}
