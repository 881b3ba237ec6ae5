"""The other exporter: optimum's TorchScript export put through ONNX Runtime's own transformer optimizer."""

import copy
import tempfile
from pathlib import Path

import onnx_ir as ir

from anatomy_export.core.errors import AnatomyError, MissingExtraError
from anatomy_export.exporter.quiet import quiet
from anatomy_export.models.checkpoint import Checkpoint


def export_with_optimum(checkpoint: Checkpoint, *, fuse: str) -> ir.Model:
    """Export through optimum; with `fuse="ort"` ONNX Runtime's optimizer fuses attention, layer norm and GELU."""
    try:
        from optimum.exporters.onnx import export
        from optimum.exporters.tasks import TasksManager
    except ImportError as error:
        raise MissingExtraError("optimum-onnx", "optimum") from error
    model = copy.deepcopy(checkpoint.model)
    model.set_attn_implementation("eager")
    constructor = TasksManager.get_exporter_config_constructor(
        "onnx", model, task="text-classification", library_name="transformers"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            with quiet():
                export(model, constructor(model.config), path, opset=17)
                if fuse == "ort":
                    path = _fuse(path, checkpoint)
        except Exception as error:
            raise AnatomyError(f"optimum export failed: {type(error).__name__}: {str(error)[:300]}") from error
        loaded = ir.load(path)
        for value in loaded.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
        return loaded


def _fuse(path: Path, checkpoint: Checkpoint) -> Path:
    from onnxruntime.transformers.optimizer import optimize_model

    config = checkpoint.model.config
    optimized = optimize_model(
        str(path),
        model_type="gpt2" if config.model_type == "gpt2" else "bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=0,
        use_gpu=False,
    )
    target = path.with_name("fused.onnx")
    optimized.save_model_to_file(str(target))
    return target
