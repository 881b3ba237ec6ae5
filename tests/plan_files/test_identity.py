"""A plan fits the model it was made for and no sibling of it: other weights anywhere, the same ones in the FFNs."""

import copy
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import refused, run, tiny_checkpoint
from onnx_graphs import ffn_model, weights
from rich.console import Console
from test_onnx_surgery import plan_of

import anatomy_export
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.json_files import checksum
from anatomy_export.core.progress import Progress
from anatomy_export.exporter.torch_to_onnx import export_onnx
from anatomy_export.jobs.slice_onnx import SliceRequest, run_slice
from anatomy_export.models.fingerprint import model_fingerprint, model_identity, model_logits
from anatomy_export.models.prune import mask_neurons_, slice_neurons
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.paper.study_setups import random_plan
from anatomy_export.plan_files.model_identity import LENGTHS, RecordedLogits, record_logits, spread_ids
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan, identity_plan, read_plan
from anatomy_export.planning.sweep import Pruned, PruneSpec, prune_each

PREDATES = "the plan records no logits"
PARTS = {
    "attention": ("attention.self.value.weight", "attention.v_lin.weight", "attn.c_attn.weight"),
    "attention output": ("attention.output.dense.bias", "attention.out_lin.bias", "attn.c_proj.bias"),
    "word embeddings": ("word_embeddings.weight", "wte.weight"),
    "positions": ("position_embeddings.weight", "wpe.weight"),
    "norm": ("output.LayerNorm.weight", "output_layer_norm.weight", "ln_2.weight"),
    "b2": ("0.output.dense.bias", "0.ffn.lin2.bias", "0.mlp.c_proj.bias"),
    "head": ("classifier.weight", "classifier.out_proj.weight", "score.weight"),
}


def sibling(model, part: str, amount: float = 0.2):
    """The same model but for some of its weights, of which none is the FFNs' W1, b1 or W2."""
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    changed = [parameter for name, parameter in other.named_parameters() if name.endswith(PARTS[part])]
    assert changed
    with torch.no_grad():
        for parameter in changed:
            parameter.add_(amount * torch.randn_like(parameter))
    assert model_fingerprint(other) == model_fingerprint(model)
    return other


def half_plan(model, **fields) -> PrunePlan:
    """Every second neuron of each layer, with the model's logits unless `fields` say otherwise."""
    identity = model_identity(model)
    layers = tuple(
        LayerPlan(block.layer, block.width, tuple(range(0, block.width, 2))) for block in model_blocks(model)
    )
    made = PrunePlan(identity.fingerprint, layers, "random", recorded_logits=identity.recorded_logits)
    return replace(made, **fields)


@pytest.mark.parametrize("part", PARTS)
def test_a_sibling_is_refused_in_torch(part, family_name):
    model = tiny_checkpoint(family_name).model
    other, plan = sibling(model, part), half_plan(model)
    before = copy.deepcopy(other.state_dict())
    for apply in (mask_neurons_, slice_neurons, anatomy_export.slice_neurons):
        with pytest.raises(
            AnatomyError, match=r"another model with the same FFN weights: for the recorded sequence of \d+ tokens"
        ):
            apply(other, plan)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())
    assert slice_neurons(model, plan).num_parameters() < model.num_parameters()


def test_logits_that_differ_by_a_hundredth_are_others():
    model = tiny_checkpoint("bert").model
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.classifier.bias[1] += 0.01
    with pytest.raises(AnatomyError, match=r"that model's output 1 is -?\d\.\d+, this one's is -?\d\.\d+ \(tolerance"):
        slice_neurons(other, half_plan(model))


def test_small_logits_are_told_apart_too():
    """An untrained head gives logits near zero, where an absolute tolerance would see no difference."""
    model = tiny_checkpoint("bert").model
    with torch.no_grad():
        model.classifier.weight.mul_(1e-3)
        model.classifier.bias.zero_()
    with pytest.raises(AnatomyError, match="another model with the same FFN weights"):
        slice_neurons(sibling(model, "attention"), half_plan(model))


def test_what_float32_does_elsewhere_is_within_the_tolerance(family_name):
    model = tiny_checkpoint(family_name).model
    recorded = model_identity(model).recorded_logits
    recorded.check(model_logits(copy.deepcopy(model).double(), recorded.input_ids))


def test_dropout_and_the_mode_do_not_matter():
    model = tiny_checkpoint("bert").model
    plan = half_plan(model.train())
    assert model.training
    assert slice_neurons(model, plan).training
    assert half_plan(model.eval()).recorded_logits == plan.recorded_logits


def test_another_vocabulary_is_refused_before_it_is_indexed():
    model = tiny_checkpoint("bert").model
    recorded = RecordedLogits(((1, 2, 25),), ((0.0, 0.0),))
    with pytest.raises(AnatomyError, match="records token id 25 and 3 tokens, this one has 25 tokens and takes 66"):
        slice_neurons(model, half_plan(model, recorded_logits=recorded))


def test_another_number_of_classes_is_refused():
    model = tiny_checkpoint("bert").model
    recorded = replace(half_plan(model).recorded_logits, logits=((0.0, 0.0, 0.0),) * 4)
    with pytest.raises(AnatomyError, match=r"gives 3 logits a text, this one gives \(2,\)"):
        slice_neurons(model, half_plan(model, recorded_logits=recorded))


def test_logits_that_are_not_finite_are_not_recorded():
    with pytest.raises(AnatomyError, match=r"not finite, as for token ids \[5, 6\]"):
        record_logits([[5, 6]], np.array([[np.nan, 0]]))


@pytest.mark.parametrize(("size", "pad", "positions"), [(30522, 0, 512), (25, 3, 66), (25, None, 8), (2, 0, 4)])
def test_recorded_ids_are_spread_over_the_vocabulary(size, pad, positions):
    sequences = spread_ids(size, pad, positions)
    assert [len(ids) for ids in sequences] == sorted({min(length, positions) for length in LENGTHS})
    ids = [one for sequence in sequences for one in sequence]
    usable = set(range(size)) - {pad}
    assert set(ids) <= usable
    assert len(set(ids)) == min(len(ids), len(usable))
    assert max(ids) - min(ids) >= 0.9 * (max(usable) - min(usable))


def test_every_way_to_a_plan_records_the_logits():
    checkpoint = tiny_checkpoint("bert")
    recorded = model_identity(checkpoint.model).recorded_logits
    anatomy = score_anatomy(checkpoint, ["the film is good"], strong_threshold=0.9, max_length=64)
    assert anatomy.recorded_logits == recorded
    half = anatomy_export.plan(checkpoint.model, anatomy, keep_ratio=0.5)
    by_thresholds = anatomy_export.plan(checkpoint.model, anatomy, alpha=0.1)
    at_random = random_plan(anatomy, 9, seed=0)
    assert [plan.recorded_logits for plan in (half, by_thresholds, at_random)] == [recorded] * 3


def test_a_way_of_the_frontier_records_them(data_file: Path):
    from anatomy_export.data.loading import load_dataset

    checkpoint = tiny_checkpoint("bert")
    train = load_dataset(str(data_file)).train
    spec = PruneSpec("magnitude", "uniform", "none", 0.5)
    [pruned] = prune_each(checkpoint, train, [spec], seed=0, examples=16, max_length=64)
    assert isinstance(pruned, Pruned)
    assert pruned.plan.recorded_logits == model_identity(checkpoint.model).recorded_logits


def test_the_file_holds_them(tmp_path: Path):
    plan = half_plan(tiny_checkpoint("bert").model)
    (tmp_path / "plan.json").write_text(plan.to_json())
    read = read_plan(tmp_path / "plan.json")
    assert (read, read.recorded_logits, read.sha256) == (plan, plan.recorded_logits, plan.sha256)


def test_a_plan_without_them_reads_and_writes_as_before(tmp_path: Path):
    """The checksums of bundles from before they were recorded still hold."""
    plan = identity_plan("f" * 64, [2, 3])
    assert plan.sha256 == "d29f3259fdb7248b3ccaf162452fb22c1cd39d57bfdd754c8308238051129bce"
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert read_plan(tmp_path / "plan.json").recorded_logits is None


@pytest.mark.parametrize(
    "recorded",
    [
        {"input_ids": [[1, 2]]},
        {"input_ids": [[1, -2]], "logits": [[0.5, 1]]},
        {"input_ids": [[1, 2.5]], "logits": [[0.5, 1]]},
        {"input_ids": [[]], "logits": [[0.5, 1]]},
        {"input_ids": [[1, 2]], "logits": [[0.5, float("inf")]]},
        {"input_ids": [[1, 2]], "logits": [[0.5], [1]]},
        {"input_ids": [[1], [2]], "logits": [[0.5], [1, 2]]},
        [1, 2],
    ],
)
def test_a_damaged_record_is_refused(recorded, tmp_path: Path):
    body = json.loads(identity_plan("f" * 64, [2, 3]).to_json()) | {"recorded_logits": recorded}
    del body["checksum"]
    (tmp_path / "plan.json").write_text(json.dumps({**body, "checksum": checksum(body)}))
    with pytest.raises(AnatomyError, match=r"of the wrong kind: \$\.recorded_logits|Infinity is no JSON number"):
        read_plan(tmp_path / "plan.json")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A dense tiny BERT as ONNX; not to be changed."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(tiny_checkpoint("bert"), path, fuse="none", metadata={})
    return path


def cut(model: Path, plan: PrunePlan, folder: Path) -> list[str]:
    """Cut the file; the notes that were made."""
    (folder / "plan.json").write_text(plan.to_json())
    progress = Progress(Console(file=io.StringIO()))
    run_slice(SliceRequest(model, folder / "out.onnx", folder / "plan.json"), progress)
    return progress.notes


@pytest.mark.parametrize("part", PARTS)
def test_a_sibling_is_refused_as_onnx(part, exported, tmp_path: Path):
    plan = half_plan(sibling(tiny_checkpoint("bert").model, part))
    (tmp_path / "plan.json").write_text(plan.to_json())
    result = run("slice-onnx", exported, "--plan", tmp_path / "plan.json", "-o", tmp_path / "out.onnx")
    refused(result, tmp_path / "out.onnx", 1, "plan was made for another model with the same FFN weights")


def test_the_models_own_file_is_cut_without_a_word(exported, tmp_path: Path):
    assert cut(exported, half_plan(tiny_checkpoint("bert").model), tmp_path) == []
    assert (tmp_path / "out.onnx").is_file()


def test_an_old_plan_cuts_a_file_with_a_note(exported, tmp_path: Path):
    [note] = cut(exported, half_plan(tiny_checkpoint("bert").model, recorded_logits=None), tmp_path)
    assert note.startswith(f"note: {PREDATES}") and "only the FFN weights are compared" in note


def test_an_old_plan_exports_a_model_with_a_note(bert_directory: Path, tmp_path: Path):
    model = tiny_checkpoint("bert").model
    (tmp_path / "plan.json").write_text(half_plan(model, recorded_logits=None).to_json())
    arguments = ["export", "--model", bert_directory, "--plan", tmp_path / "plan.json", "--fuse", "none"]
    result = run(*arguments, "--output", tmp_path / "o")
    assert result.exit_code == 0, result.stderr
    assert PREDATES in result.stderr
    assert "recorded_logits" not in json.loads((tmp_path / "o" / "plan.json").read_text())
    assert run("verify", tmp_path / "o").exit_code == 0


def test_a_plan_of_a_sibling_exports_nothing(bert_directory: Path, tmp_path: Path):
    plan = half_plan(sibling(tiny_checkpoint("bert").model, "head"))
    (tmp_path / "plan.json").write_text(plan.to_json())
    result = run("export", "--model", bert_directory, "--plan", tmp_path / "plan.json", "--output", tmp_path / "o")
    refused(result, tmp_path / "o", 1, "plan was made for another model with the same FFN weights")


def with_fixed_shape(path: Path, target: Path, length: int) -> Path:
    model = onnx.load(path)
    for value in model.graph.input:
        for axis, size in enumerate((1, length)):
            value.type.tensor_type.shape.dim[axis].dim_value = size
    onnx.save(model, target)
    return target


def test_a_fixed_length_takes_the_sequence_of_that_length(exported, tmp_path: Path):
    model = tiny_checkpoint("bert").model
    fixed = with_fixed_shape(exported, tmp_path / "fixed.onnx", LENGTHS[1])
    assert cut(fixed, half_plan(model), tmp_path) == []
    (tmp_path / "out.onnx").unlink()
    with pytest.raises(AnatomyError, match=f"for the recorded sequence of {LENGTHS[1]} tokens"):
        cut(fixed, half_plan(sibling(model, "attention")), tmp_path)


def test_a_fixed_length_that_is_not_recorded_is_noted(exported, tmp_path: Path):
    fixed = with_fixed_shape(exported, tmp_path / "fixed.onnx", 9)
    [note] = cut(fixed, half_plan(tiny_checkpoint("bert").model), tmp_path)
    assert note.startswith("note: the plan's recorded sequences cannot be run (")
    assert "so only its FFN weights are compared with the plan's" in note


def test_a_graph_that_takes_no_token_ids_is_noted(tmp_path: Path):
    onnx.save(ffn_model(), tmp_path / "in.onnx")
    recorded = RecordedLogits(((1, 2),), ((0.5, 1.0),))
    [note] = cut(tmp_path / "in.onnx", replace(plan_of(weights()), recorded_logits=recorded), tmp_path)
    assert "asks for an input 'x' that text does not give" in note


def test_without_onnxruntime_it_is_noted(exported, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    identity, masked = cut(exported, half_plan(tiny_checkpoint("bert").model), tmp_path)
    assert identity.startswith("note: onnxruntime is not installed, so only its FFN weights are compared")
    assert masked.startswith("note: the cut file was not run beside the uncut one with its neurons masked: onnxruntime")


def append_to_output(path: Path, target: Path, operator: str, **attributes) -> Path:
    """The graph with one more node after its logits, under their name."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["raw" if name == "logits" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node(operator, ["raw"], ["logits"], **attributes))
    onnx.save(model, target)
    return target


def test_a_file_that_gives_probabilities(exported, tmp_path: Path):
    model = tiny_checkpoint("bert").model
    softmaxed = append_to_output(exported, tmp_path / "softmaxed.onnx", "Softmax", axis=-1)
    assert cut(softmaxed, half_plan(model), tmp_path) == []
    (tmp_path / "out.onnx").unlink()
    with pytest.raises(AnatomyError, match="another model with the same FFN weights"):
        cut(softmaxed, half_plan(sibling(model, "head")), tmp_path)


def test_a_file_with_another_output_is_another_model(exported, tmp_path: Path):
    doubled = onnx.load(exported)
    for node in doubled.graph.node:
        node.output[:] = ["raw" if name == "logits" else name for name in node.output]
    doubled.graph.node.append(onnx.helper.make_node("Concat", ["raw", "raw"], ["logits"], axis=1))
    del doubled.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(doubled, tmp_path / "doubled.onnx")
    with pytest.raises(AnatomyError, match=r"gives 2 logits a text, this one gives \(4,\)"):
        cut(tmp_path / "doubled.onnx", half_plan(tiny_checkpoint("bert").model), tmp_path)


def test_a_file_of_half_precision_is_compared_by_its_fingerprint(exported, tmp_path: Path):
    from anatomy_export.evaluation.precision_gate import Precision
    from anatomy_export.exporter.precision import convert_precision

    model = tiny_checkpoint("bert").model
    convert_precision(exported, tmp_path / "half.onnx", Precision("fp16"), ())
    half = onnx.load(tmp_path / "half.onnx")
    onnx.helper.set_model_props(half, {"anatomy.fingerprint": model_fingerprint(model)})
    onnx.save(half, tmp_path / "half.onnx")
    [note] = cut(tmp_path / "half.onnx", half_plan(model), tmp_path)
    assert note.startswith("note: half.onnx is not float32, so only its FFN weights are compared")
