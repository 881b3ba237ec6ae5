"""What a cut does not touch stays as it is in the file, whether or not a library of graphs knows it (ADR 0005)."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import HIDDEN, Builder, ffn_model, plain, weights
from test_onnx_surgery import cut, masked, outputs, plan_of

UNKNOWN_FIELD = b"\xfa\x3f\x03new"  # number 1023, three bytes


def sparse_vector(name: str) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.array([0.5, -2], np.float32), name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 4]), f"{name}_at"), [HIDDEN])


def with_sparse_initializer(layers) -> onnx.ModelProto:
    b = Builder()
    x = b.node("Add", "x", "sparse")
    for index, layer in enumerate(layers):
        x = plain(b, x, layer, index)
    model = b.model(x)
    model.graph.sparse_initializer.append(sparse_vector("sparse"))
    return model


def with_sparse_constant(layers) -> onnx.ModelProto:
    b = Builder()
    x = b.node("Add", "x", b.node("Constant", sparse_value=sparse_vector("sparse")))
    for index, layer in enumerate(layers):
        x = plain(b, x, layer, index)
    return b.model(x)


@pytest.mark.parametrize("make", [with_sparse_initializer, with_sparse_constant])
def test_sparse_tensors_stay_sparse(make, tmp_path):
    out = onnx.load(cut(make(weights()), plan_of(weights()), tmp_path))
    assert outputs(out) == pytest.approx(outputs(make(masked(weights()))), abs=1e-5)
    assert out.graph.sparse_initializer == make(weights()).graph.sparse_initializer
    constants = [node for node in out.graph.node if node.op_type == "Constant"]
    assert constants == [node for node in make(weights()).graph.node if node.op_type == "Constant"]


def test_outputs_of_any_type_stay(tmp_path):
    """As converters of scikit-learn write class probabilities: a list of maps."""
    model = ffn_model()
    scores = model.graph.output[0].name
    model.graph.node.append(
        helper.make_node("ZipMap", [scores], ["by_class"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    )
    model.graph.output.append(onnx.ValueInfoProto(name="by_class"))
    entry = model.graph.output[1].type.sequence_type.elem_type.map_type
    entry.key_type, entry.value_type.tensor_type.elem_type = TensorProto.INT64, TensorProto.FLOAT
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    out = onnx.load(cut(model, plan_of(weights()), tmp_path))
    assert list(out.graph.output) == list(model.graph.output)


def test_training_information_and_fields_of_later_releases_stay(tmp_path):
    model = ffn_model()
    model.training_info.add().algorithm.name = "steps"
    model = onnx.ModelProto.FromString(model.SerializeToString() + UNKNOWN_FIELD)
    path = cut(model, plan_of(weights()), tmp_path)
    assert onnx.load(path).training_info == model.training_info
    assert UNKNOWN_FIELD in path.read_bytes()


def test_external_data_with_two_names_is_read(tmp_path):
    """As caches that link instead of copying keep it."""
    (tmp_path / "in").mkdir()
    onnx.save(ffn_model(), tmp_path / "in" / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
    os.link(tmp_path / "in" / "w", tmp_path / "cached")
    out = cut(tmp_path / "in" / "m.onnx", plan_of(weights()), tmp_path / "out")
    assert outputs(out) == pytest.approx(outputs(ffn_model("plain", masked(weights()))), abs=1e-5)
