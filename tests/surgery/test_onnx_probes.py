"""The anatomy read from an ONNX graph is the torch model's, and so is the plan; what hides the token is refused."""

import json

import numpy as np
import onnx
import pytest
from conftest import run, tiny_checkpoint
from onnx_graphs import ffn_model
from test_onnx_surgery_exports import EXPORTERS

from anatomy_export.evaluation.text_reader import TextForm, TextReader
from anatomy_export.paper.rule import ratio_plan
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.paper.thresholds import preset_setup
from anatomy_export.plan_files.plan import read_plan
from anatomy_export.surgery.model import OnnxModel
from anatomy_export.surgery.probes import anatomy_of_graph

PROBES = ("the film is good", "a very bad story and awful acting but never a plot")
RULES = {"bert": "bert", "distilbert": "bert", "gpt2": "gpt2"}
CASES = [("bert", "own, fused"), ("distilbert", "torchscript 17"), ("gpt2", "own, not fused")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """By family: a tiny model, and the folder of its file with a tokenizer.json beside it."""
    made = {}
    for family, exporter in CASES:
        checkpoint = tiny_checkpoint(family)
        folder = tmp_path_factory.mktemp(family)
        EXPORTERS[exporter](checkpoint, folder / "model.onnx")
        checkpoint.tokenizer.save_pretrained(folder)
        made[family] = (checkpoint, folder)
    return made


@pytest.mark.parametrize("family", RULES)
def test_the_graphs_anatomy_is_that_of_torch(family, exported):
    checkpoint, folder = exported[family]
    found, rule = anatomy_of_graph(
        OnnxModel(folder / "model.onnx"), TextReader(folder / "tokenizer.json"), PROBES, strong_threshold=0.35
    )
    expected = score_anatomy(checkpoint, PROBES, max_length=128)
    assert rule == RULES[family]
    assert found.fingerprint == expected.fingerprint
    for own, torch_own in zip(found.neuron_similarity, expected.neuron_similarity, strict=True):
        np.testing.assert_allclose(own, torch_own, atol=2e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_padding_of_a_fixed_shape_changes_nothing(family, exported, tmp_path):
    """Three equal rows of 16 tokens; the last of a text's own tokens is no longer the row's last."""
    checkpoint, folder = exported[family]
    model = onnx.load(folder / "model.onnx")
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, (3, 16), strict=True):
            dim.dim_value = size
    onnx.save(model, tmp_path / "fixed.onnx")
    reader = TextReader(folder / "tokenizer.json", TextForm(16, batch=3, tokens=16, pad_token="[PAD]"))
    assert reader.inputs(PROBES[0])["input_ids"].shape == (3, 16)
    found, rule = anatomy_of_graph(OnnxModel(tmp_path / "fixed.onnx"), reader, PROBES, strong_threshold=0.35)
    assert rule == RULES[family]
    for own, torch_own in zip(
        found.neuron_similarity, score_anatomy(checkpoint, PROBES, max_length=128).neuron_similarity, strict=True
    ):
        np.testing.assert_allclose(own, torch_own, atol=2e-5)


@pytest.mark.parametrize("family", RULES)
def test_the_plan_is_that_of_torch(family, exported, tmp_path):
    checkpoint, folder = exported[family]
    (tmp_path / "probes.txt").write_text("\n".join(PROBES))
    arguments = ["slice-onnx", folder / "model.onnx", "--keep-ratio", "0.5", "--criterion", "anatomy", "--align", "1"]
    arguments += ["--strong-threshold", "0.7", "--probes", tmp_path / "probes.txt"]
    result = run(*arguments, "-o", tmp_path / "cut.onnx", "--save-plan", tmp_path / "plan.json", "--json")
    assert result.exit_code == 0, result.stderr
    rule, anatomy = RULES[family], score_anatomy(checkpoint, PROBES, strong_threshold=0.7, max_length=128)
    expected = ratio_plan(anatomy, rule=rule, setup=preset_setup(f"{rule}-1", rule, 3), keep_ratio=0.5)
    assert read_plan(tmp_path / "plan.json") == expected
    assert json.loads(result.stdout)["neurons"] == {"dense": 72, "pruned": 36}


def refusal(folder, model, *arguments) -> str:
    result = run(
        "slice-onnx", model, "--keep-ratio", "0.5", "--criterion", "anatomy", "-o", folder / "cut.onnx", *arguments
    )
    assert result.exit_code == 1
    assert not (folder / "cut.onnx").exists()
    return result.stderr


def test_a_missing_tokenizer_is_refused(exported, tmp_path):
    _, folder = exported["bert"]
    message = refusal(tmp_path, folder / "model.onnx", "--tokenizer", tmp_path / "none.json")
    assert "none.json cannot be used to read text" in message
    assert "pass the model's tokenizer.json as --tokenizer" in message


def test_a_graph_without_a_norm_is_refused(exported, tmp_path):
    _, folder = exported["bert"]
    onnx.save(ffn_model(), tmp_path / "m.onnx")
    message = refusal(tmp_path, tmp_path / "m.onnx", "--tokenizer", folder / "tokenizer.json")
    assert "no layer norm as one operator follows the last FFN" in message


def test_a_classifier_of_all_tokens_is_refused(exported, tmp_path):
    """The mean over the tokens decides: none of them is the one that the classifier reads."""
    _, folder = exported["distilbert"]
    model = onnx.load(folder / "model.onnx")
    state = next(node for node in reversed(model.graph.node) if node.op_type == "LayerNormalization").output[0]
    model.graph.node.append(onnx.helper.make_node("ReduceMean", [state], ["mean"], axes=[1], keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "mean.onnx")
    message = refusal(tmp_path, tmp_path / "mean.onnx", "--tokenizer", folder / "tokenizer.json")
    assert "the logits of this graph depend on" in message
    assert "use --criterion magnitude" in message


@pytest.mark.parametrize("option", [("--probes", "p"), ("--strong-threshold", "0.3")])
def test_options_of_anatomy_stand_beside_it_only(option, tmp_path):
    result = run("slice-onnx", "m.onnx", "--keep-ratio", "0.5", "-o", tmp_path / "o", *option)
    assert result.exit_code == 2
    assert f"{option[0]} means something beside --criterion anatomy" in result.stderr
