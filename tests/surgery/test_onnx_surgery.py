"""Cutting the FFNs of an ONNX file: the same function as masking its weights, however the file spells them."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx_graphs import HIDDEN, LAYERS, SPELLINGS, WIDTH, Builder, ffn_model, weights
from rich.console import Console

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.jobs.slice_onnx import SliceRequest, run_slice
from anatomy_export.plan_files.model_identity import ffn_fingerprint
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan
from anatomy_export.plan_files.repair_file import LayerRepair, Repair
from anatomy_export.surgery.model import FINGERPRINT, OnnxModel

KEEP = ((0, 3, 9), (1, 2, 4, 5, 7))
INPUTS = np.random.default_rng(3).normal(size=(1, 5, HIDDEN)).astype(np.float32)


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def fingerprint_of(layers) -> str:
    return ffn_fingerprint((layer["W1"], layer["b1"], layer["W2"]) for layer in layers)


def plan_of(layers, keep=KEEP, **fields) -> PrunePlan:
    made = tuple(LayerPlan(index, len(layers[index]["b1"]), kept) for index, kept in enumerate(keep))
    return PrunePlan(fingerprint_of(layers), made, "random", **fields)


def repair_of(keep=KEEP, seed: int = 5) -> Repair:
    generator = np.random.default_rng(seed)
    arrays = [generator.normal(size=(len(kept) + 1, HIDDEN)).astype(np.float32) for kept in keep]
    return Repair(tuple(LayerRepair(array[:-1], array[-1]) for array in arrays))


def masked(layers, keep=KEEP, repair: Repair | None = None):
    """The same layers with the pruned rows of W2 at zero, and the repaired ones written."""
    made = []
    for index, (layer, kept) in enumerate(zip(layers, keep, strict=True)):
        down = np.zeros_like(layer["W2"])
        rows = layer["W2"][list(kept)] if repair is None else repair.layers[index].down_weight
        down[list(kept)] = rows
        made.append({**layer, "W2": down, "b2": layer["b2"] if repair is None else repair.layers[index].down_bias})
    return made


def outputs(model: onnx.ModelProto | Path) -> np.ndarray:
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"]).run(None, {"x": INPUTS})[0]


def cut(model, plan: PrunePlan, folder: Path, repair: Repair | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    if not isinstance(model, Path):
        onnx.save(model, folder / "in.onnx")
        model = folder / "in.onnx"
    if repair is not None:
        plan = replace(plan, repair=repair.entry())
        repair.save(folder)
    (folder / "plan.json").write_text(plan.to_json())
    run_slice(SliceRequest(model, folder / "out.onnx", folder / "plan.json"), quiet())
    return folder / "out.onnx"


def refused(model, plan: PrunePlan, folder: Path, match: str, repair=None) -> None:
    with pytest.raises(AnatomyError, match=match) as caught:
        cut(model, plan, folder, repair)
    assert "\n" not in str(caught.value)
    assert not (folder / "out.onnx").exists()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("repaired", [False, True], ids=["plain", "repaired"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_computes_what_masking_does(spelling, repaired, tmp_path):
    layers, repair = weights(), repair_of() if repaired else None
    out = cut(ffn_model(spelling), plan_of(layers), tmp_path, repair)
    expected = outputs(ffn_model(spelling, masked(layers, repair=repair)))
    assert outputs(out) == pytest.approx(expected, abs=1e-5)
    assert np.abs(outputs(ffn_model(spelling)) - expected).max() > 0.01, "pruning changed nothing"
    onnx.checker.check_model(out, full_check=True)
    opened = OnnxModel(out)
    assert opened.widths == [len(kept) for kept in KEEP]
    assert onnx.load(out).graph.initializer or spelling == "constants"
    sizes = {dim for tensor in onnx.load(out).graph.initializer for dim in tensor.dims}
    assert WIDTH not in sizes, "something kept the width it had"


def test_metadata_keeps_what_was_there_and_names_the_plan(tmp_path):
    layers = weights()
    plan = plan_of(layers)
    metadata = {entry.key: entry.value for entry in onnx.load(cut(ffn_model(), plan, tmp_path)).metadata_props}
    kept = [
        {**layer, **{name: layer[name][list(keep)] for name in ("W1", "b1", "W2")}}
        for layer, keep in zip(layers, KEEP, strict=True)
    ]
    assert metadata == {
        "author": "somebody",
        "anatomy.mode": "slice",
        "anatomy.plan_sha256": plan.sha256,
        "anatomy.source_fingerprint": plan.fingerprint,
        "anatomy.fingerprint": fingerprint_of(kept),
        "anatomy.widths": "3,5",
        "anatomy.criterion": "random",
    }


def test_recorded_shapes_are_those_of_the_cut(tmp_path):
    graph = onnx.load(cut(ffn_model("gemm"), plan_of(weights()), tmp_path)).graph
    widths = [value.type.tensor_type.shape.dim[-1].dim_value for value in graph.value_info]
    assert {3, 5} <= set(widths)
    assert WIDTH not in widths


def test_keeping_all_changes_no_byte_of_the_weights(tmp_path):
    every = (tuple(range(WIDTH)),) * LAYERS
    before, after = ffn_model(), onnx.load(cut(ffn_model(), plan_of(weights(), every), tmp_path))
    assert before.graph == after.graph


def test_tensors_shared_between_layers_and_beyond(tmp_path):
    """Deduplicated weights are cut apart; who else uses one keeps it whole."""
    layer = weights()[0]
    layers = [layer, layer]
    model = ffn_model("plain", layers)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name in ("up1", "b1_1", "down1", "b2_1"):
                node.input[position] = name[:-1] + "0"
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in ("up1", "b1_1", "down1", "b2_1")]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    expected = outputs(ffn_model("plain", masked(layers)))
    assert outputs(cut(model, plan_of(layers), tmp_path)) == pytest.approx(expected, abs=1e-5)
    repair = repair_of()
    expected = outputs(ffn_model("plain", masked(layers, repair=repair)))
    assert outputs(cut(model, plan_of(layers), tmp_path / "r", repair)) == pytest.approx(expected, abs=1e-5)


def test_initializers_that_are_inputs_too(tmp_path):
    model = ffn_model("transposed", ir_version=3, opset=8 + 5)
    out = onnx.load(cut(model, plan_of(weights()), tmp_path))
    assert {tensor.name for tensor in out.graph.initializer} <= {value.name for value in out.graph.input}
    assert outputs(tmp_path / "out.onnx") == pytest.approx(
        outputs(ffn_model("transposed", masked(weights()))), abs=1e-5
    )


@pytest.mark.parametrize("one_file", [True, False])
def test_external_data_stays_external(one_file, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    onnx.save(
        ffn_model(), source / "m.onnx", save_as_external_data=True, all_tensors_to_one_file=one_file,
        location="weights" if one_file else None, size_threshold=0,
    )  # fmt: skip
    out = cut(source / "m.onnx", plan_of(weights()), tmp_path / "out")
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.onnx", "out.onnx.data", "plan.json"]
    tensors = onnx.load(out, load_external_data=False).graph.initializer
    assert {tensor.data_location for tensor in tensors} == {TensorProto.EXTERNAL}
    moved = tmp_path / "moved"
    out.parent.rename(moved)
    for path in source.iterdir():
        path.unlink()
    assert outputs(moved / "out.onnx") == pytest.approx(outputs(ffn_model("plain", masked(weights()))), abs=1e-5)


def test_weights_of_float16_are_taken_by_the_fingerprint_in_the_metadata(tmp_path):
    layers = weights()
    half = [{name: array.astype(np.float16) for name, array in layer.items()} for layer in layers]
    b = Builder()
    x = b.node("Cast", "x", to=TensorProto.FLOAT16)
    for index, layer in enumerate(half):
        x = b.node("Add", b.node("Add", b.node("MatMul", b.node("Relu", b.node("Add", b.node(
            "MatMul", x, b.tensor(f"up{index}", layer["W1"].T.copy())), b.tensor(f"b1_{index}", layer["b1"]))),
            b.tensor(f"down{index}", layer["W2"])), b.tensor(f"b2_{index}", layer["b2"])), x)  # fmt: skip
    model = b.model(b.node("Cast", x, to=TensorProto.FLOAT))
    refused(model, plan_of(layers), tmp_path, "FFN weights are not float32 and no anatomy.fingerprint")
    onnx.helper.set_model_props(model, {"anatomy.fingerprint": fingerprint_of(layers)})
    out = onnx.load(cut(model, plan_of(layers), tmp_path / "b", repair_of()))
    assert {tensor.data_type for tensor in out.graph.initializer} == {TensorProto.FLOAT16}
    assert "anatomy.fingerprint" not in {entry.key for entry in out.metadata_props}


def with_leak() -> onnx.ModelProto:
    model = ffn_model()
    erf = next(node for node in model.graph.node if node.op_type == "Erf")
    model.graph.output.append(onnx.helper.make_tensor_value_info(erf.output[0], TensorProto.FLOAT, ["b", "t", "n"]))
    return model


def gated() -> onnx.ModelProto:
    b, x = Builder(), "x"
    for index, layer in enumerate(weights()):
        up, gate, down = (b.tensor(f"{n}{index}", layer[k]) for n, k in (("u", "W1"), ("g", "W1"), ("d", "W2")))
        both = [b.node("MatMul", x, b.node("Transpose", name)) for name in (up, gate)]
        x = b.node("Add", b.node("MatMul", b.node("Mul", b.node("Sigmoid", both[0]), both[1]), down), x)
    return b.model(x)


def quantised() -> onnx.ModelProto:
    b = Builder()
    scale = b.tensor("scale", np.float32(0.1))
    up = b.node("DequantizeLinear", b.tensor("q", np.ones((HIDDEN, WIDTH), np.int8)), scale)
    return b.model(
        b.node("MatMul", b.node("Relu", b.node("MatMul", "x", up)), b.tensor("d", np.ones((WIDTH, HIDDEN), "f4")))
    )


REFUSED = {
    "leak": (with_leak, r"2 layers are to be cut, 1 FFNs can be in this graph. Not cut: layer 0 .* graph's output"),
    "gated": (gated, r"no FFN found to cut. Not cut: layer 0 .*two products feed its activation"),
    "quantised": (quantised, r"its weights are quantised; next step: cut the float32 file"),
    "head only": (lambda: ffn_model(layers=[weights()[0]]), r"2 layers are to be cut, 1 FFNs can be"),
    "another model": (lambda: ffn_model(layers=weights(1)), r"plan was made for the model .*, this one is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_cut_is_said(case, tmp_path):
    make, match = REFUSED[case]
    refused(make(), plan_of(weights()), tmp_path, match)


def without_biases(layers) -> onnx.ModelProto:
    """As exporters leave them out where they are zero."""
    b, x = Builder(), "x"
    for index, layer in enumerate(layers):
        h = b.erf_gelu(b.node("MatMul", x, b.tensor(f"up{index}", layer["W1"].T.copy())))
        x = b.node("Add", b.node("MatMul", h, b.tensor(f"down{index}", layer["W2"])), x)
    return b.model(x)


def test_biases_that_were_left_out(tmp_path):
    """A missing b1 is zero; a repaired b2 gets an Add of its own."""
    layers = [{**layer, "b1": np.zeros_like(layer["b1"]), "b2": np.zeros_like(layer["b2"])} for layer in weights()]
    plan, repair = plan_of(layers), repair_of()
    for given, folder in ((None, "plain"), (repair, "repaired")):
        expected = outputs(ffn_model("plain", masked(layers, repair=given), head=False))
        assert outputs(cut(without_biases(layers), plan, tmp_path / folder, given)) == pytest.approx(expected, abs=1e-5)


def test_a_bias_after_the_residual_is_not_taken_for_a_missing_one(tmp_path):
    model = without_biases(weights())
    model.graph.initializer.append(numpy_helper.from_array(np.ones(HIDDEN, np.float32), "late"))
    last = model.graph.node[-1]
    model.graph.node.append(onnx.helper.make_node("Add", [last.output[0], "late"], ["y"]))
    model.graph.output[0].name = "y"
    layers = [{**layer, "b1": np.zeros_like(layer["b1"])} for layer in weights()]
    refused(model, plan_of(layers), tmp_path, "layer 1 .*a stored vector is added after the residual", repair_of())


def test_a_flip_anywhere_in_the_ffn_weights_is_refused(tmp_path):
    for name in ("up0", "b1_1", "down1"):
        model = ffn_model()
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        content = bytearray(tensor.raw_data)
        content[5] ^= 1
        tensor.raw_data = bytes(content)
        refused(model, plan_of(weights()), tmp_path, "plan was made for the model")


def test_the_output_may_not_be_the_model(tmp_path):
    onnx.save(ffn_model(), tmp_path / "m.onnx")
    (tmp_path / "plan.json").write_text(plan_of(weights()).to_json())
    with pytest.raises(AnatomyError, match="would replace the model that is cut"):
        run_slice(SliceRequest(tmp_path / "m.onnx", tmp_path / "m.onnx", tmp_path / "plan.json", force=True), quiet())


def test_keep_ratio_by_the_norm_of_the_rows(tmp_path):
    onnx.save(ffn_model("gemm"), tmp_path / "m.onnx")
    request = SliceRequest(tmp_path / "m.onnx", tmp_path / "o.onnx", keep_ratio=0.4, align=1)
    run_slice(replace(request, save_plan=tmp_path / "p.json"), quiet())
    keep = tuple(tuple(sorted(np.argsort(-np.linalg.norm(layer["W2"], axis=1))[:4].tolist())) for layer in weights())
    assert outputs(tmp_path / "o.onnx") == pytest.approx(outputs(ffn_model("gemm", masked(weights(), keep))), abs=1e-5)
    cut(tmp_path / "m.onnx", plan_of(weights(), keep), tmp_path)
    assert (tmp_path / "p.json").exists()


def test_without_a_plan_a_layer_that_cannot_be_cut_is_said(tmp_path):
    onnx.save(with_leak(), tmp_path / "m.onnx")
    request = SliceRequest(tmp_path / "m.onnx", tmp_path / "o.onnx", keep_ratio=0.5)
    with pytest.raises(AnatomyError, match=r"2 layers are to be cut, 1 FFNs can be in this graph\. Not cut: layer 0"):
        run_slice(request, quiet())
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def stored_as_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights of the FFNs in float16, each behind a Cast to float32."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.name.startswith(("up", "down")):
            half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}_half")
            casts.append(onnx.helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(half)
    for index, cast in enumerate(casts):
        model.graph.node.insert(index, cast)
    model.metadata_props.add(key=FINGERPRINT, value=plan_of(weights()).fingerprint)
    return model


def test_weights_stored_in_float16_behind_a_cast(tmp_path):
    model = stored_as_float16(ffn_model())
    onnx.checker.check_model(model, full_check=True)
    halved = [
        {**layer, **{name: layer[name].astype("f2").astype("f4") for name in ("W1", "W2")}} for layer in weights()
    ]
    out = cut(model, plan_of(weights()), tmp_path)
    assert outputs(out) == pytest.approx(outputs(ffn_model("plain", masked(halved))), abs=1e-5)
    half = {tensor.name for tensor in onnx.load(out).graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert len(half) == 2 * LAYERS
    assert out.stat().st_size < (tmp_path / "in.onnx").stat().st_size
