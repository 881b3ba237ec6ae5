"""Before it is written, the cut file is run against the uncut one with the same neurons masked."""

import functools
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import run
from onnx_graphs import HIDDEN, SPELLINGS, Builder, ffn_model, plain, weights
from test_onnx_surgery import masked, plan_of, quiet, repair_of

from anatomy_export.jobs.slice_onnx import SliceRequest, run_slice
from anatomy_export.surgery import masked_run as onnx_masked
from anatomy_export.surgery import weights_apart as onnx_apart
from anatomy_export.surgery.edit import Editor
from anatomy_export.surgery.masked_run import masked_run
from anatomy_export.surgery.model import OnnxModel

RATIO = ("--keep-ratio", "0.5", "--align", "1")


def saved(folder, model: onnx.ModelProto, **options) -> Path:
    onnx.save(model, folder / "m.onnx", **options)
    return folder / "m.onnx"


@functools.cache
def centre() -> np.ndarray:
    """(classes,) the mean logits of random tokens: subtracted, so that not all texts are of one class."""
    ids = np.random.default_rng(0).integers(0, 25, (60, 5))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids * 0}
    model = onnxruntime.InferenceSession(classifier(np.zeros(HIDDEN, np.float32)).SerializeToString())
    return model.run(None, inputs)[0].mean(0)


def classifier(subtracted: np.ndarray | None = None) -> onnx.ModelProto:
    """Token ids of 30 words, a mask and types; two FFNs; logits of the mean over the tokens."""
    subtracted = centre() if subtracted is None else subtracted
    b = Builder()
    table = np.random.default_rng(5).normal(0, 4, (30, HIDDEN)).astype(np.float32)
    words, kinds = (b.node("Gather", b.tensor(name, table[:rows]), ids)
                    for name, rows, ids in (("words", 30, "input_ids"), ("kinds", 2, "token_type_ids")))  # fmt: skip
    seen = b.node(
        "Unsqueeze", b.node("Cast", "attention_mask", to=onnx.TensorProto.FLOAT), b.tensor("2", np.array([2]))
    )
    x = b.node("Mul", b.node("Add", words, kinds), seen)
    for index, layer in enumerate(weights()):
        x = plain(b, x, layer, index)
    axis = b.tensor("1", np.array([1]))
    total, count = (b.node("ReduceSum", value, axis, keepdims=0) for value in (b.node("Mul", x, seen), seen))
    mean = b.node("Div", total, count)
    logits = b.node("MatMul", mean, b.tensor("classifier", table[:HIDDEN]))
    logits = b.node("Sub", logits, b.tensor("centre", subtracted))
    model = b.model(logits)
    del model.graph.input[:], model.graph.value_info[:], model.graph.output[:]
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "tokens"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, ["batch", "classes"]))
    return model


@pytest.mark.parametrize("inline_bytes", [0, 1024], ids=["apart", "inline"])
@pytest.mark.parametrize("repaired", [False, True], ids=["plain", "repaired"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_masked_run_is_that_of_masked_weights(spelling, repaired, inline_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_apart, "INLINE_BYTES", inline_bytes)  # of real models every matrix is larger
    layers, repair = weights(), repair_of() if repaired else None
    run_of = masked_run(OnnxModel(saved(tmp_path, ffn_model(spelling))), plan_of(layers), repair)
    expected = onnx_masked._session(ffn_model(spelling, masked(layers, repair=repair)).SerializeToString())
    assert len(run_of.inputs) == 3 and run_of.tolerance == 1e-4
    for batch, computed in zip(run_of.inputs, run_of.outputs, strict=True):
        for name, value in onnx_masked._outputs(expected, batch, list(computed)).items():
            np.testing.assert_allclose(computed[name], value, atol=1e-4)


@pytest.mark.parametrize("external", [False, True])
def test_a_classifier_of_tokens_is_run(external, tmp_path):
    path = saved(tmp_path, classifier(), save_as_external_data=external, size_threshold=100)
    done = run_slice(SliceRequest(path, tmp_path / "out" / "o.onnx", keep_ratio=0.5, align=1), quiet())
    assert done.max_abs_error is not None and done.max_abs_error < 1e-5
    assert done.as_dict()["max_abs_error"] == done.max_abs_error


@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_weight_that_nothing_reads_does_not_hinder_the_run(ir_version, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_apart, "INLINE_BYTES", 0)
    model = ffn_model("plain", ir_version=ir_version, opset=13)
    unread = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "unread")
    model.graph.initializer.append(unread)
    if ir_version == 3:
        model.graph.input.append(onnx.helper.make_tensor_value_info("unread", unread.data_type, unread.dims))
    assert len(masked_run(OnnxModel(saved(tmp_path, model)), plan_of(weights()), repair_of()).inputs) == 3


def broken(monkeypatch) -> None:
    """A cut that leaves a bias of another value than it had: no weight by which the model is known."""
    finish = Editor.finish_

    def finish_(self):
        finish(self)
        tensor = next(tensor for tensor in self.graph.proto.initializer if tensor.name == "b2_0")
        tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) + 0.01).tobytes()

    monkeypatch.setattr(Editor, "finish_", finish_)


def test_another_function_is_an_error_and_nothing_is_written(tmp_path, monkeypatch):
    broken(monkeypatch)
    result = run("slice-onnx", saved(tmp_path, classifier()), *RATIO, "-o", tmp_path / "o.onnx")
    assert result.exit_code == 1
    assert "the cut file is not the model with the same neurons masked: its output 'v" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


NOT_RUN = {
    "no onnxruntime": (lambda patch: patch.setitem(sys.modules, "onnxruntime", None), "onnxruntime is not installed"),
    "too large": (lambda patch: patch.setattr(onnx_masked, "LARGEST_PROTOBUF", 9), "its weights take more than 2 GB"),
    "custom operator": (lambda patch: None, "ONNX Runtime refuses the uncut one"),
    "huge input": (
        lambda patch: patch.setattr(onnx_masked, "MOST_NUMBERS", 9),
        "the uncut one does not run on inputs made up for it (input 'x' has the shape [1, 3, 6])",
    ),
    "classes only": (lambda patch: None, "none of its outputs holds numbers with a fraction"),
}


@pytest.mark.parametrize("case", NOT_RUN)
def test_what_is_not_run_is_said(case, tmp_path, monkeypatch):
    prepare, message = NOT_RUN[case]
    prepare(monkeypatch)
    model = ffn_model()
    if case == "classes only":
        model.graph.node.append(onnx.helper.make_node("ArgMax", [model.graph.output[0].name], ["class"], axis=-1))
        model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("class", onnx.TensorProto.INT64, [1, 1, 1]))
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        for name in ("batch", "tokens", "one"):
            model.graph.output[0].type.tensor_type.shape.dim.add(dim_param=name)
    if case == "custom operator":
        model.graph.node.append(onnx.helper.make_node("Own", ["x"], ["own"], domain="own"))
        model.graph.output.append(onnx.helper.make_tensor_value_info("own", onnx.TensorProto.FLOAT, [1]))
        model.opset_import.append(onnx.helper.make_opsetid("own", 1))
    result = run("slice-onnx", saved(tmp_path, model), *RATIO, "-o", tmp_path / "o.onnx")
    assert result.exit_code == 0, result.stderr
    assert f"was not run beside the uncut one with its neurons masked: {message}" in " ".join(result.stderr.split())


def test_float16_is_compared_by_its_own_rounding(tmp_path):
    """One unit of float16 in the last place is no error, a wrong bias is one."""
    made = run("slice-onnx", saved(tmp_path, classifier()), *RATIO, "-o", tmp_path / "h.onnx", "--precision", "fp16")
    assert made.exit_code == 0, made.stderr
    model = OnnxModel(tmp_path / "h.onnx")
    assert masked_run(model, plan_of(weights(), ((0,), (1,))), None).tolerance == pytest.approx(32 * 2**-10)


def test_the_inputs_differ_and_stay_inside_the_vocabulary(tmp_path):
    model = OnnxModel(saved(tmp_path, classifier()))
    batches = masked_run(model, plan_of(weights()), None).inputs
    shapes = [batch["input_ids"].shape for batch in batches]
    assert len(set(shapes)) == 3
    assert all(batch["input_ids"].min() >= 0 and batch["input_ids"].max() < 30 for batch in batches)
    assert batches[1]["attention_mask"].min() == 0 and not batches[1]["token_type_ids"].any()
