"""Forms of graphs and weights: each is cut to what masking computes, or refused by name."""

import io
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_forms import FORMS, REFUSED, adapted, adapted_after_norm, form_model, in_float16, matrix_first, towers
from onnx_graphs import SPELLINGS, WIDTH, ffn_model, weights
from rich.console import Console
from test_onnx_surgery import INPUTS, KEEP, cut, masked, outputs, plan_of, quiet, refused, repair_of

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.precision_gate import chosen_precision
from anatomy_export.exporter.fp16 import check_fp16_range
from anatomy_export.exporter.precision import convert_precision
from anatomy_export.jobs.slice_onnx import SliceRequest, run_slice
from anatomy_export.plan_files.plan import read_plan
from anatomy_export.surgery.model import OnnxModel


def dims(model: onnx.ModelProto) -> set[int]:
    return {dim for tensor in model.graph.initializer for dim in tensor.dims}


def stored_bytes(model: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def cut_by_ratio(model: onnx.ModelProto, folder, **options) -> tuple[onnx.ModelProto, tuple[tuple[int, ...], ...]]:
    """The cut file, and the neurons that stay."""
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "m.onnx")
    request = SliceRequest(folder / "m.onnx", folder / "o.onnx", keep_ratio=0.5, align=1, save_plan=folder / "p.json")
    run_slice(replace(request, **options), quiet())
    out = onnx.load(folder / "o.onnx")
    assert stored_bytes(out) < stored_bytes(model)
    return out, tuple(layer.keep for layer in read_plan(folder / "p.json").layers)


@pytest.mark.parametrize("case", FORMS)
def test_every_form_computes_what_masking_does(case, tmp_path):
    layers = weights()
    source = form_model(FORMS[case], layers)
    onnx.checker.check_model(source, full_check=True)
    out, keep = cut_by_ratio(source, tmp_path)
    expected = outputs(form_model(FORMS[case], masked(layers, keep)))
    assert outputs(out) == pytest.approx(expected, abs=1e-5)
    assert np.abs(outputs(source) - expected).max() > 0.01, "pruning changed nothing"
    assert WIDTH not in dims(out), "something kept the width it had"


def test_a_matrix_on_the_left(tmp_path):
    """One layer: what it gives lies in columns."""
    layers = weights()[:1]
    out, keep = cut_by_ratio(form_model(matrix_first, layers), tmp_path)
    assert outputs(out) == pytest.approx(outputs(form_model(matrix_first, masked(layers, keep))), abs=1e-5)


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_cut_cannot_follow_is_named(case, tmp_path):
    form, message = REFUSED[case]
    source = form_model(form, weights())
    assert np.isfinite(outputs(source)).all()
    refused(source, plan_of(weights()), tmp_path, f"no FFN found to cut. Not cut: layer 0 .*{message}")


def test_a_repair_does_not_fit_values_that_the_checkpoint_lacks(tmp_path):
    model = form_model(FORMS["scale"], weights())
    refused(
        model,
        plan_of(weights()),
        tmp_path,
        "layer 0: .*values of one for each neuron, the repair was made without",
        repair_of(),
    )


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_towers_lose_the_same_neurons_of_one_tensor(criterion, tmp_path):
    layers = weights()
    out, keep = cut_by_ratio(towers(layers), tmp_path, criterion=criterion)
    assert outputs(out) == pytest.approx(outputs(towers(masked(layers, keep))), abs=1e-5)
    assert [tensor.name for tensor in out.graph.initializer] == [
        tensor.name for tensor in towers(layers).graph.initializer
    ]
    assert WIDTH not in dims(out)


@pytest.mark.parametrize("repaired", [False, True], ids=["plain", "repaired"])
def test_a_plan_of_the_model_cuts_both_towers(repaired, tmp_path):
    layers, repair = weights(), repair_of() if repaired else None
    out = cut(towers(layers), plan_of(layers), tmp_path, repair)
    assert outputs(out) == pytest.approx(outputs(towers(masked(layers, repair=repair))), abs=1e-5)
    assert OnnxModel(out).widths == [len(kept) for kept in KEEP]


def test_a_plan_of_every_place_cuts_them_apart(tmp_path):
    """As earlier releases made it of two towers: four layers, each with neurons of its own."""
    layers = weights()
    keep = (*KEEP, (0, 1), (2, 3, 4, 5))
    out = cut(towers(layers), plan_of([*layers, *layers], keep), tmp_path)
    first, second = (outputs(form_of_tower(masked(layers, kept), sign)) for kept, sign in ((KEEP, 1), (keep[2:], -1)))
    assert outputs(out) == pytest.approx(first - second, abs=1e-5)


def form_of_tower(layers, sign: int) -> onnx.ModelProto:
    model = ffn_model("plain", layers, head=False)
    model.graph.node.insert(0, helper.make_node("Mul", ["x", "sign"], ["signed"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(sign), "sign"))
    for node in model.graph.node[1:]:
        node.input[:] = ["signed" if name == "x" else name for name in node.input]
    return model


@pytest.mark.parametrize("spelling", sorted(set(SPELLINGS) - {"constants"}))
def test_layers_that_share_all_are_one(spelling, tmp_path):
    """As ALBERT: every layer has the weights of the first."""
    layers = [weights()[0]] * 2
    model = shared(ffn_model(spelling, layers), "up", "b1_", "down", "b2_")
    out, keep = cut_by_ratio(model, tmp_path)
    assert len(keep) == 1
    assert outputs(out) == pytest.approx(outputs(ffn_model(spelling, masked(layers, keep * 2))), abs=1e-5)
    assert OnnxModel(tmp_path / "o.onnx").widths == [5]
    assert WIDTH not in dims(out)


def shared(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The second layer takes these tensors of the first."""
    for node in model.graph.node:
        node.input[:] = [f"{name[:-1]}0" if name in {f"{part}1" for part in names} else name for name in node.input]
    left = [tensor for tensor in model.graph.initializer if tensor.name not in {f"{part}1" for part in names}]
    del model.graph.initializer[:]
    model.graph.initializer.extend(left)
    return model


PARTS = {
    "up": (("up",), "shares one of its two matrices with the FFN of 'MatMul_"),
    "down": (("down",), "shares one of its two matrices with the FFN of 'MatMul_"),
    "matrices": (("up", "down"), "shares its matrices, but not its biases, with the FFN of 'MatMul_"),
    "all but the last bias": (("up", "b1_", "down"), "shares its matrices, but not its biases, with the FFN of"),
}


@pytest.mark.parametrize("case", PARTS)
def test_layers_that_share_a_part_are_refused(case, tmp_path):
    names, message = PARTS[case]
    refused(shared(ffn_model(), *names), plan_of(weights()), tmp_path, f"no FFN found to cut. Not cut: .*{message}")


@pytest.mark.parametrize("spelling", sorted(SPELLINGS))
def test_nodes_in_any_order(spelling, tmp_path):
    model = ffn_model(spelling)
    nodes = list(model.graph.node)[::-1]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    out = cut(model, plan_of(weights()), tmp_path)
    assert outputs(out) == pytest.approx(outputs(ffn_model(spelling, masked(weights()))), abs=1e-5)
    onnx.checker.check_model(out, full_check=True)


def test_nodes_in_a_circle_are_refused(tmp_path):
    model = ffn_model()
    model.graph.node[0].input[0] = model.graph.node[4].output[0]
    refused(model, plan_of(weights()), tmp_path, "uses a value that is computed from its own")


def test_shapes_that_are_recorded_twice(tmp_path):
    model = ffn_model("gemm")
    model.graph.value_info.extend([onnx.ValueInfoProto.FromString(value.SerializeToString())
                                   for value in model.graph.value_info])  # fmt: skip
    model.graph.value_info.append(helper.make_tensor_value_info("b1_0", TensorProto.FLOAT, [WIDTH]))
    model.graph.value_info.append(onnx.ValueInfoProto.FromString(model.graph.output[0].SerializeToString()))
    out = onnx.load(cut(model, plan_of(weights()), tmp_path))
    recorded = [dim.dim_value for value in out.graph.value_info for dim in value.type.tensor_type.shape.dim]
    assert WIDTH not in recorded and recorded.count(3) >= 4
    assert outputs(out) == pytest.approx(outputs(ffn_model("gemm", masked(weights()))), abs=1e-5)


def test_a_file_whose_recorded_shapes_never_agreed(tmp_path):
    """ONNX Runtime runs it; the strict check fails before as after, so it says nothing of the cut."""
    model = ffn_model()
    residual = next(node for node in model.graph.node if node.op_type == "Tanh").input[0]
    model.graph.value_info.append(helper.make_tensor_value_info(residual, TensorProto.FLOAT, ["batch", "tokens", 99]))
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(model, full_check=True)
    out = cut(model, plan_of(weights()), tmp_path)
    assert outputs(out) == pytest.approx(outputs(ffn_model("plain", masked(weights()))), abs=1e-5)
    told = io.StringIO()
    request = SliceRequest(tmp_path / "in.onnx", tmp_path / "o.onnx", tmp_path / "plan.json")
    run_slice(request, Progress(Console(file=told, width=1000)))
    assert "in.onnx is not valid ONNX, before the cut as after ([ShapeInferenceError]" in told.getvalue()


LOW = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


@pytest.mark.parametrize("case", LOW)
@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_weights_of_two_bytes_are_ranked_and_keep_their_type(criterion, case, tmp_path):
    layers = weights()
    source = in_float16(ffn_model("plain", layers), LOW[case])
    out, keep = cut_by_ratio(source, tmp_path, criterion=criterion)
    assert {tensor.data_type for tensor in out.graph.initializer} == {LOW[case]}
    expected = reference(in_float16(ffn_model("plain", masked(layers, keep)), LOW[case]))
    assert reference(out) == pytest.approx(expected, abs=0.05 * float(np.abs(expected).max()))
    if criterion == "magnitude":
        norms = [np.linalg.norm(layer["W2"], axis=1) for layer in layers]
        assert keep == tuple(tuple(sorted(np.argsort(-norm)[:5].tolist())) for norm in norms)
    run_slice(SliceRequest(tmp_path / "m.onnx", tmp_path / "again.onnx", tmp_path / "p.json"), quiet())
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "o.onnx").read_bytes()


def reference(model: onnx.ModelProto) -> np.ndarray:
    """Of float16 and bfloat16 alike: ONNX Runtime has no bfloat16 on a CPU."""
    return np.asarray(ReferenceEvaluator(model).run(None, {"x": INPUTS})[0], np.float64)


def test_a_plan_of_the_float32_model_is_refused_with_the_reason(tmp_path):
    model = in_float16(ffn_model())
    refused(model, plan_of(weights()), tmp_path, "a plan of the float32 model cannot be told from one of another")


@pytest.mark.parametrize("align", [1, 2])
def test_an_adapter_is_not_taken_for_the_ffn(align, tmp_path):
    layers = weights()
    source = form_model(adapted, layers)
    out = cut(source, plan_of(layers), tmp_path)
    masked_source = form_model(adapted, layers)
    for index in range(len(KEEP)):
        tensor = next(tensor for tensor in masked_source.graph.initializer if tensor.name == f"down{index}")
        tensor.CopyFrom(numpy_helper.from_array(masked(layers)[index]["W2"], tensor.name))
    assert outputs(out) == pytest.approx(outputs(masked_source), abs=1e-5)
    with pytest.raises(AnatomyError, match="stands inside a layer's residual branch, after another product"):
        run_slice(SliceRequest(tmp_path / "in.onnx", tmp_path / "o.onnx", keep_ratio=0.5, align=align), quiet())


WAYS = {"fp16": ("fp16", None), "dynamic int8": ("int8", None), "static int8": ("int8", "static")}


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize("way", WAYS)
def test_weights_that_are_inputs_too_are_converted(way, ir_version, tmp_path):
    name, int8 = WAYS[way]
    model = ffn_model(ir_version=ir_version, opset=13)
    if ir_version > 3:
        known = [
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in model.graph.initializer
        ]
        model.graph.input.extend(known)
    path = cut(model, plan_of(weights()), tmp_path)
    precision = chosen_precision(name, int8=int8)
    convert_precision(path, tmp_path / "low.onnx", precision, [{"x": INPUTS}], flags=["avx2"])
    converted = onnx.load(tmp_path / "low.onnx")
    assert [value.name for value in converted.graph.input] == ["x"]
    wide = {tensor.name for tensor in converted.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert not {"up0", "down0", "up1", "down1"} & wide
    expected = outputs(path)
    assert outputs(tmp_path / "low.onnx") == pytest.approx(expected, abs=0.15 * float(np.abs(expected).max()))
    if name == "fp16":
        check_fp16_range(path, tmp_path / "low.onnx", [{"x": INPUTS}])


def test_weights_that_something_else_reads_are_refused(tmp_path):
    """Of two towers one cannot be cut: the other would lose neurons that this one keeps."""
    model = towers(weights())
    second = [node for node in model.graph.node if node.op_type == "Erf"][2]
    model.graph.output.append(helper.make_tensor_value_info(second.output[0], TensorProto.FLOAT, ["b", "t", "n"]))
    message = r"Not cut: layer 0 \(MatMul_\d+\): it shares a matrix with 'MatMul_\d+', which is not cut"
    refused(model, plan_of(weights()), tmp_path, message)


def test_towers_with_external_weights(tmp_path):
    (tmp_path / "in").mkdir()
    onnx.save(towers(weights()), tmp_path / "in" / "m.onnx", save_as_external_data=True, size_threshold=0,
              location="m.onnx.data")  # fmt: skip
    out = cut(tmp_path / "in" / "m.onnx", plan_of(weights()), tmp_path / "out")
    assert outputs(out) == pytest.approx(outputs(towers(masked(weights()))), abs=1e-5)
    stored = onnx.load(out, load_external_data=False).graph.initializer
    assert len(stored) == len(towers(weights()).graph.initializer)
    assert {tensor.data_location for tensor in stored} == {TensorProto.EXTERNAL}


def test_an_adapter_that_stands_as_an_ffn_does_is_named(tmp_path):
    onnx.save(form_model(adapted_after_norm, weights()), tmp_path / "m.onnx")
    told = io.StringIO()
    request = SliceRequest(tmp_path / "m.onnx", tmp_path / "o.onnx", keep_ratio=0.7, align=1)
    run_slice(request, Progress(Console(file=told, width=1000)))
    message = "note: layer 1 has 3 neurons for 6 outputs, layer 3 has 3 neurons for 6 outputs: if these are adapters"
    assert message in told.getvalue()
    told = io.StringIO()
    run_slice(replace(request, model=tmp_path / "o.onnx", output=tmp_path / "p.onnx"), Progress(Console(file=told)))
    assert "adapters" not in told.getvalue()


@pytest.mark.parametrize("form", ["scaled output", "fused gemm", "einsum into columns", "fused conv1d"])
def test_a_repair_is_put_where_the_form_takes_it(form, tmp_path):
    layers, repair = weights(), repair_of()
    out = cut(form_model(FORMS[form], layers), plan_of(layers), tmp_path, repair)
    expected = outputs(form_model(FORMS[form], masked(layers, repair=repair)))
    assert outputs(out) == pytest.approx(expected, abs=1e-5)
