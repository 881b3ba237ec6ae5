"""What the exported graph is made of."""

from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import transformers
from conftest import saved_dense, tiny_checkpoint, tiny_tokenizer

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.comparison import verification_batches
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier
from anatomy_export.evaluation.torch_classifier import torch_forward
from anatomy_export.exporter import torch_to_onnx as onnx_export
from anatomy_export.exporter.torch_to_onnx import FUSED_ATTENTION, FUSED_GELU, export_onnx, operator_counts
from anatomy_export.jobs.export import run_export
from anatomy_export.jobs.export_request import ExportRequest
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.models.prune import slice_neurons
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan


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
    assert str(Path(onnx_export.__file__).parent).encode() not in (tmp_path / "model.onnx").read_bytes()
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used


def with_token_types(checkpoint: Checkpoint, directory: Path) -> Checkpoint:
    """Saved with a tokenizer that gives token type ids, whatever the family, and loaded again."""
    saved_dense(Checkpoint(checkpoint.model, tiny_tokenizer("bert")), directory)
    return load_checkpoint(str(directory))


def check_without_token_types(original: Checkpoint, folder: Path) -> dict[str, int]:
    loaded = with_token_types(original, folder / "m")
    export_onnx(loaded, folder / "model.onnx", metadata={})
    session = OnnxClassifier(folder / "model.onnx", loaded.tokenizer, 16)
    assert list(session.session.input_types) == ["input_ids", "attention_mask"]
    for batch in verification_batches(loaded.tokenizer, ["the film is good", "awful"], 16):
        types = {"token_type_ids": batch["input_ids"] * 0} if original.model.config.model_type == "gpt2" else {}
        assert session.run(batch) == pytest.approx(torch_forward(original.model)({**batch, **types}), abs=1e-4)
    save_checkpoint(loaded, folder / "again")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "again")
    assert "token_type_ids" not in tokenizer(["the film is good"], padding=True)
    return operator_counts(folder / "model.onnx")


def test_gpt2_fuses_completely_with_a_tokenizer_that_gives_token_types(tmp_path: Path):
    counts = check_without_token_types(tiny_checkpoint("gpt2", layers=12, hidden=32, heads=4, width=48), tmp_path)
    assert sum(counts.get(name, 0) for name in FUSED_ATTENTION) == 12
    assert counts["SkipLayerNormalization"] == 24
    assert sum(counts.get(name, 0) for name in FUSED_GELU) == 12


@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_other_families_ignore_token_types_too(family, tmp_path: Path):
    check_without_token_types(tiny_checkpoint(family), tmp_path)


def test_gpt2_with_a_tokenizer_that_pads_on_the_left(tmp_path: Path):
    checkpoint = tiny_checkpoint("gpt2")
    checkpoint.tokenizer.padding_side = "left"
    export_onnx(checkpoint, tmp_path / "model.onnx", metadata={})
    session = OnnxClassifier(tmp_path / "model.onnx", checkpoint.tokenizer, 16)
    for batch in verification_batches(checkpoint.tokenizer, ["the film is good", "awful"], 16):
        assert session.run(batch) == pytest.approx(torch_forward(checkpoint.model)(batch), abs=1e-4)
    assert (batch["input_ids"][0, 0], batch["attention_mask"][0, 0]) == (0, 0)


def test_without_fusion_only_standard_operators(family_name, tmp_path: Path):
    export_onnx(tiny_checkpoint(family_name), tmp_path / "model.onnx", fuse="none", metadata={})
    model = onnx.load(tmp_path / "model.onnx")
    assert {node.domain for node in model.graph.node} <= {""}
    onnx.checker.check_model(model, full_check=True)
    dims = [[dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]
    assert all(len(set(dim)) == 2 and all(dim) for dim in dims), dims


def test_large_weights_go_beside_the_file(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(onnx_export, "EXTERNAL_DATA_BYTES", 1000)
    checkpoint = tiny_checkpoint("bert")
    export_onnx(checkpoint, tmp_path / "model.onnx", metadata={})
    assert (tmp_path / "model.onnx.data").stat().st_size > 10_000
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        (tmp_path / name).rename(moved / name)
    batch = verification_batches(checkpoint.tokenizer, ["the film is good"], 16)[0]
    found = OnnxClassifier(moved / "model.onnx", checkpoint.tokenizer, 16).run(batch)
    assert found == pytest.approx(torch_forward(checkpoint.model)(batch), abs=1e-5)


@pytest.mark.skipif(find_spec("optimum") is None, reason="needs the optimum extra (make test-optimum)")
@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("fuse", ["ort", "none"])
def test_optimum_exports_the_same_function(family, fuse, tmp_path: Path):
    checkpoint = tiny_checkpoint(family)
    export_onnx(checkpoint, tmp_path / "model.onnx", exporter="optimum", fuse=fuse, metadata={})
    classifier = OnnxClassifier(tmp_path / "model.onnx", checkpoint.tokenizer, 16)
    for batch in verification_batches(checkpoint.tokenizer, ["the film is good", "awful"], 16):
        assert classifier.run(batch) == pytest.approx(torch_forward(checkpoint.model)(batch), abs=1e-4)


@pytest.mark.skipif(find_spec("optimum") is not None, reason="the optimum extra is installed")
def test_a_missing_extra_is_one_line_that_names_it(tmp_path: Path):
    with pytest.raises(AnatomyError, match=r"optimum-onnx is not installed; .*\.\[optimum\]"):
        export_onnx(tiny_checkpoint("bert"), tmp_path / "model.onnx", exporter="optimum", metadata={})
    with pytest.raises(AnatomyError, match="optimum-onnx is not installed"):
        run_export(ExportRequest("no-such-model", exporter="optimum", output=tmp_path / "o"), Progress())
    assert not list(tmp_path.iterdir())
