"""FFNs that cannot be cut are named and refused, wherever they stand; attention, poolers and heads are none."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import run
from onnx_graphs import HIDDEN, SPELLINGS, UNREAD, WIDTH, Builder, attention, mixed_model, plain, weights

from anatomy_export.surgery.model import OnnxModel

RATIO = ("--keep-ratio", "0.5", "--align", "1")
REASONS = {
    "scaled_gemm": "its Gemm 'Gemm_1' of 'up0' has alpha 0.5",
    "gated": "two products feed its activation (a gated FFN?)",
    "split_gated": "the Split 'Split_1' parts its neurons (a gated FFN?)",
    "dynamic_int8": "weights of its MatMulInteger 'MatMulInteger_1' of 'up0_int8' are quantised",
    "dequantised": "weights of its MatMul 'MatMul_2' of 'up0_int8' are quantised",
    "normed_inside": "it is written as none that is known (LayerNormalization, MatMul, Relu)",
    "residual_in_gemm": "the bias of its output is no stored vector",
    "convolved": "it is written as none that is known (Conv, Relu)",
    "unknown_activation": "it is written as none that is known (LogSoftmax, MatMul)",
}


def saved(folder, model: onnx.ModelProto):
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def told(result) -> str:
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("spelling", UNREAD)
def test_a_layer_that_cannot_be_cut_is_refused_by_name(spelling, last, tmp_path):
    order = (plain, UNREAD[spelling]) if last else (UNREAD[spelling], plain)
    path = saved(tmp_path, mixed_model(*order))
    onnxruntime.InferenceSession(str(path))
    result = run("slice-onnx", path, *RATIO, "-o", tmp_path / "o.onnx")
    assert result.exit_code == 1 and not (tmp_path / "o.onnx").exists()
    assert f"2 layers are to be cut, 1 FFNs can be in this graph. Not cut: layer {int(last)} (" in told(result)
    assert last or REASONS[spelling] in told(result)
    assert "nothing was written; next step: export it in a form that can be cut, or pass --allow-uncut" in told(result)


def test_the_weight_of_a_quantised_product_is_its_own(tmp_path):
    """What its input comes from has larger ones, by which its size would not fit."""
    model = OnnxModel(saved(tmp_path, mixed_model(plain, UNREAD["dynamic_int8"])))
    assert "'MatMulInteger_11' of 'up1_int8' are quantised (cut the float32 file, then" in model.uncut()


def test_the_others_are_cut_where_that_is_allowed(tmp_path):
    path = saved(tmp_path, mixed_model(UNREAD["split_gated"], plain))
    arguments = (*RATIO, "--allow-uncut", "-o", tmp_path / "o.onnx", "--save-plan", tmp_path / "plan.json", "--json")
    result = run("slice-onnx", path, *arguments)
    assert result.exit_code == 0, result.stderr
    assert "note: 1 FFN found. Not cut: layer 0 (MatMul_" in told(result)
    assert [(layer["layer"], layer["width"]) for layer in json.loads(result.stdout)["layers"]] == [(1, WIDTH)]
    again = run("slice-onnx", path, "--plan", tmp_path / "plan.json", "-o", tmp_path / "again.onnx")
    assert again.exit_code == 0, again.stderr
    assert "note: 1 FFN found. Not cut: layer 0 (MatMul_" in told(again)
    assert (tmp_path / "o.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()


def test_the_flag_means_nothing_beside_a_plan(tmp_path):
    result = run("slice-onnx", "m.onnx", "--plan", "p", "-o", tmp_path / "o", "--allow-uncut")
    assert result.exit_code == 2 and "--allow-uncut cannot stand beside it" in result.stderr


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_attention_poolers_and_heads_are_not_taken_for_ffns(spelling, tmp_path):
    made = SPELLINGS[spelling]
    model = OnnxModel(saved(tmp_path, mixed_model(attention, made, attention, made)))
    assert len(model.ffns) == 2 and model.uncut() == ""


def test_experts_and_nested_graphs_are_named(tmp_path):
    b = Builder()
    x = plain(b, "x", weights()[0], 0)
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", [x, "inner"], ["chosen"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("chosen", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.ones((HIDDEN, HIDDEN), np.float32), "inner")],
    )
    x = b.node("If", b.tensor("yes", np.array(True)), then_branch=branch, else_branch=branch)
    x = b.node("MoE", x, b.tensor("router", np.ones((HIDDEN, 2), np.float32)), domain="com.microsoft")
    reasons = OnnxModel(saved(tmp_path, b.model(x))).uncut()
    assert "layer 1 (If_10): the graphs nested in its If are not searched" in reasons
    assert "layer 2 (MoE_11): it is a mixture of experts in one operator" in reasons


def width_outside(b: Builder, x: str, w: dict, i: int, *, end: bool = True) -> str:
    """The residual's sum, divided by the width that the first product has while the model runs."""
    up = b.node("MatMul", x, b.tensor(f"up{i}", w["W1"].T.copy()))
    down = b.node("MatMul", b.node("Relu", up), b.tensor(f"down{i}", w["W2"]))
    sizes = b.node("Shape", up)
    size = b.node("Slice", sizes, *(b.tensor(f"at{at}", np.array([at])) for at in ((2, 3) if end else (0, 2))))
    size = b.node("Cast", b.node("ReduceMax", size, keepdims=0), to=onnx.TensorProto.FLOAT)
    return b.node("Div", b.node("Add", down, x), size)


def tokens_outside(b: Builder, x: str, w: dict, i: int) -> str:
    return width_outside(b, x, w, i, end=False)


def test_a_width_that_is_read_outside_is_refused(tmp_path):
    path = saved(tmp_path, mixed_model(width_outside, width_outside))
    result = run("slice-onnx", path, *RATIO, "-o", tmp_path / "o.onnx")
    assert result.exit_code == 1 and not (tmp_path / "o.onnx").exists()
    assert "its width, which the cut changes, is read by ReduceMax 'ReduceMax_5'" in told(result)


def test_other_sizes_of_the_same_value_may_be_read(tmp_path):
    model = OnnxModel(saved(tmp_path, mixed_model(tokens_outside, tokens_outside)))
    assert model.widths == [WIDTH, WIDTH]
