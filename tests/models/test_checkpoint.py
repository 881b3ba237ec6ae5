"""Checkpoints load strictly, or not at all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from conftest import Boom, saved_dense, tiny_checkpoint, tiny_config
from safetensors.torch import load_file, save_file

import anatomy_export
from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.checkpoint import WIDTHS_KEY, Checkpoint, load_checkpoint, save_checkpoint
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.models.prune import slice_neurons
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan


def test_dense_round_trip(family_name, tmp_path: Path):
    checkpoint = tiny_checkpoint(family_name)
    loaded = anatomy_export.load(saved_dense(checkpoint, tmp_path / "m"))
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name]), name


@pytest.fixture
def sliced_directory(tmp_path: Path) -> Path:
    checkpoint = tiny_checkpoint("bert")
    layers = tuple(LayerPlan(index, 24, tuple(range(index + 2))) for index in range(3))
    plan = PrunePlan(model_fingerprint(checkpoint.model), layers, "random")
    save_checkpoint(Checkpoint(slice_neurons(checkpoint.model, plan), checkpoint.tokenizer), tmp_path / "s")
    return tmp_path / "s"


def test_sliced_checkpoint_records_its_widths(sliced_directory: Path):
    assert json.loads((sliced_directory / "config.json").read_text())[WIDTHS_KEY] == [2, 3, 4]
    assert anatomy_export.load(sliced_directory).model.bert.encoder.layer[2].output.dense.in_features == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("classifier.bias"), "weights do not fit the recorded widths"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "weights do not fit the recorded widths"),
        (lambda tensors: tensors["classifier.bias"].fill_(float("nan")), "classifier.bias holds NaN"),
    ],
)
def test_sliced_reload_is_strict(sliced_directory: Path, change, message):
    tensors = load_file(sliced_directory / "model.safetensors")
    change(tensors)
    save_file(tensors, sliced_directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AnatomyError, match=message):
        load_checkpoint(str(sliced_directory))


@pytest.mark.parametrize("widths", [[2, 3], [2, 3, 25], [2, 0, 4], [2, "3", 4]])
def test_wrong_recorded_widths(sliced_directory: Path, widths):
    config = json.loads((sliced_directory / "config.json").read_text())
    (sliced_directory / "config.json").write_text(json.dumps({**config, WIDTHS_KEY: widths}))
    with pytest.raises(AnatomyError, match="config records"):
        load_checkpoint(str(sliced_directory))


def test_missing_and_empty_directories(tmp_path: Path):
    with pytest.raises(AnatomyError, match="no such directory"):
        load_checkpoint(str(tmp_path / "nothing"))
    with pytest.raises(AnatomyError, match="the directory is empty"):
        load_checkpoint(str(tmp_path))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(AnatomyError, match=r"has no config\.json, so it is no transformers checkpoint"):
        load_checkpoint(str(tmp_path))


def test_unsupported_family_lists_the_supported(tmp_path: Path):
    transformers.T5Config().save_pretrained(tmp_path)
    with pytest.raises(
        AnatomyError, match="'t5' is not supported; supported: bert, distilbert, electra, gpt2, roberta"
    ):
        load_checkpoint(str(tmp_path))


def test_random_head_is_refused_unless_allowed(tmp_path: Path):
    transformers.BertModel(tiny_config("bert")).save_pretrained(tmp_path)
    tiny_checkpoint("bert").tokenizer.save_pretrained(tmp_path)
    with pytest.raises(AnatomyError, match="no classification head in the checkpoint"):
        load_checkpoint(str(tmp_path))
    assert load_checkpoint(str(tmp_path), allow_random_head=True).model.classifier.weight.isfinite().all()


def test_missing_body_weights_are_refused(bert_directory: Path):
    tensors = load_file(bert_directory / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, bert_directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AnatomyError, match="tensors are missing or of another shape"):
        load_checkpoint(str(bert_directory), allow_random_head=True)


def test_truncated_safetensors(bert_directory: Path):
    file = bert_directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(AnatomyError, match="cannot be loaded"):
        load_checkpoint(str(bert_directory))


def test_nan_weights(bert_directory: Path):
    tensors = load_file(bert_directory / "model.safetensors")
    tensors["classifier.weight"][0, 0] = float("inf")
    save_file(tensors, bert_directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AnatomyError, match=r"tensor classifier\.weight holds NaN or infinity"):
        load_checkpoint(str(bert_directory))


def test_pickle_that_would_run_code_is_refused_and_not_run(bert_directory: Path, tmp_path: Path):
    (bert_directory / "model.safetensors").unlink()
    torch.save({"classifier.weight": Boom(str(tmp_path / "ran"))}, bert_directory / "pytorch_model.bin")
    with pytest.raises(AnatomyError, match="cannot be loaded"):
        load_checkpoint(str(bert_directory))
    assert not (tmp_path / "ran").exists()


def test_plain_bin_checkpoint_loads(bert_directory: Path):
    tensors = load_file(bert_directory / "model.safetensors")
    (bert_directory / "model.safetensors").unlink()
    torch.save(tensors, bert_directory / "pytorch_model.bin")
    loaded = load_checkpoint(str(bert_directory)).model.state_dict()
    assert torch.equal(loaded["classifier.weight"], tensors["classifier.weight"])


def test_hub_id_without_a_hub():
    with pytest.raises(AnatomyError, match="not a directory here, and the hub gave nothing"):
        load_checkpoint("someone/some-model")


def test_a_sliced_checkpoint_loads_by_hub_id(sliced_directory: Path, tmp_path: Path):
    """From the hub's own cache layout, offline, in a process whose cache that is."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--some--sliced"
    shutil.copytree(sliced_directory, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    code = (
        "import anatomy_export; from anatomy_export.models.checkpoint import weights_identity as identity; "
        "loaded = anatomy_export.load('some/sliced'); "
        "print(loaded.model.config.anatomy_ffn_widths, identity('some/sliced', loaded.model))"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[2, 3, 4] {{'revision': '{commit}'}}"


def test_a_missing_head_is_as_wide_as_asked_and_seeded(tmp_path: Path):
    transformers.BertModel(tiny_config("bert")).save_pretrained(tmp_path)
    tiny_checkpoint("bert").tokenizer.save_pretrained(tmp_path)
    heads = [
        load_checkpoint(str(tmp_path), allow_random_head=True, num_labels=5, seed=seed).model.classifier.weight
        for seed in (0, 0, 1)
    ]
    assert heads[0].shape == (5, 16)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_head_that_is_there_keeps_its_classes(bert_directory: Path):
    loaded = load_checkpoint(str(bert_directory), allow_random_head=True, num_labels=5)
    assert (loaded.model.config.num_labels, loaded.random_head) == (2, False)


def test_a_chunked_ffn_is_run_whole(bert_directory: Path):
    """A chunk size would refuse lengths that it does not divide, and show an FFN's hooks one chunk after another."""
    config = json.loads((bert_directory / "config.json").read_text())
    (bert_directory / "config.json").write_text(json.dumps({**config, "chunk_size_feed_forward": 2}))
    model = load_checkpoint(str(bert_directory)).model
    seen = []
    model_blocks(model)[0].down.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[2, 5, 3]])).logits
        expected = tiny_checkpoint("bert").model(input_ids=torch.tensor([[2, 5, 3]])).logits
    assert [tuple(shape) for shape in seen] == [(1, 3, 24)]
    torch.testing.assert_close(logits, expected)
