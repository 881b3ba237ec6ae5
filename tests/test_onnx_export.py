"""What the exported graph is made of."""

from pathlib import Path

import onnx
import pytest
from conftest import tiny_checkpoint

from anatomy_export.exporter.onnx_export import FUSED_ATTENTION, FUSED_GELU, export_onnx, operator_counts
from anatomy_export.exporter.plan import LayerPlan, PrunePlan
from anatomy_export.exporter.prune import slice_neurons
from anatomy_export.exporter.score import model_fingerprint
from anatomy_export.models.checkpoint import Checkpoint


def unequal(checkpoint: Checkpoint, layers: int, width: int) -> Checkpoint:
    plan = PrunePlan(
        model_fingerprint(checkpoint.model),
        tuple(LayerPlan(layer, width, tuple(range(layer + 3))) for layer in range(layers)),
        criterion="random",
    )
    return Checkpoint(slice_neurons(checkpoint.model, plan), checkpoint.tokenizer)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_twelve_layers_of_unequal_width_fuse_completely(family, tmp_path: Path):
    sliced = unequal(tiny_checkpoint(family, layers=12, hidden=32, heads=4, width=48), 12, 48)
    export_onnx(sliced, tmp_path / "model.onnx", metadata={"anatomy.mode": "slice"})
    counts = operator_counts(tmp_path / "model.onnx")
    assert sum(counts.get(name, 0) for name in FUSED_ATTENTION) == 12
    assert counts["SkipLayerNormalization"] == 24
    assert sum(counts.get(name, 0) for name in FUSED_GELU) == 12
    model = onnx.load(tmp_path / "model.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == {"anatomy.mode": "slice"}
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used


def test_without_fusion_only_standard_operators(family_name, tmp_path: Path):
    export_onnx(tiny_checkpoint(family_name), tmp_path / "model.onnx", fuse="none", metadata={})
    model = onnx.load(tmp_path / "model.onnx")
    assert {node.domain for node in model.graph.node} <= {""}
    onnx.checker.check_model(model, full_check=True)
    dims = [[dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]
    assert all(len(set(dim)) == 2 and all(dim) for dim in dims), dims
