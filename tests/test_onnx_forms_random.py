"""Random FFNs: whatever stands between the products, and however the matrices are stored, a cut computes what masking
does, or the file is refused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_forms import form_model
from onnx_graphs import MS, WIDTH, Builder, weights
from test_onnx_surgery import cut, masked, outputs, plan_of

from anatomy_export.errors import AnatomyError

UNARY = (
    "Relu",
    "Tanh",
    "Sigmoid",
    "Softplus",
    "Abs",
    "Neg",
    "Erf",
    "Identity",
    "Softsign",
    "Floor",
    "HardSwish",
    "Elu",
)
BINARY = ("Add", "Mul", "Sub", "Max", "Min", "Mean", "Sum")
SHARE, ALL = range(25), range(25, 1000)


class Random:
    """A form (see onnx_forms) drawn from a seed; every layer is of the same."""

    def __init__(self, seed: int):
        self.seed = seed

    def __call__(self, b: Builder, x: str, w: dict, i: int) -> str:
        draw = np.random.default_rng(self.seed)
        h = self.biased(b, self.product(b, x, f"up{i}", w["W1"].T, draw), f"b1_{i}", w["b1"], draw)
        values = [h]
        for step in range(int(draw.integers(1, 7))):
            values.append(self.step(b, values, f"{i}_{step}", draw))
        y = self.biased(b, self.product(b, values[-1], f"down{i}", w["W2"], draw), f"b2_{i}", w["b2"], draw)
        return b.node("Add", *((y, x) if draw.random() < 0.5 else (x, y)))

    def product(self, b: Builder, x: str, name: str, matrix: np.ndarray, draw) -> str:
        kind = draw.integers(7)
        flipped = np.ascontiguousarray(matrix.T)
        if kind == 0:
            return b.node("MatMul", x, b.node("Transpose", b.tensor(name, flipped), perm=[1, 0]))
        if kind == 1:
            return b.node("FusedMatMul", x, b.tensor(name, flipped), domain=MS, transB=1)
        if kind == 2:
            return b.node("Einsum", x, b.tensor(name, flipped), equation="...i,oi->...o")
        if kind == 3:
            size = b.tensor(f"rows{len(matrix)}", np.array([-1, len(matrix)]))
            flat = b.node("Gemm", b.node("Reshape", x, size), b.tensor(name, flipped), transB=1)
            return b.node("Reshape", flat, b.tensor(f"whole{len(flipped)}", np.array([1, -1, len(flipped)])))
        if kind == 4:
            half = b.tensor(name, matrix.astype(np.float16))
            return b.node("MatMul", x, b.node("Cast", half, to=TensorProto.FLOAT))
        if kind == 5:
            turned = b.node("MatMul", b.tensor(name, flipped), b.node("Transpose", x, perm=[0, 2, 1]))
            return b.node("Transpose", turned, perm=[0, 2, 1])
        return b.node("MatMul", x, b.tensor(name, np.ascontiguousarray(matrix)))

    def biased(self, b: Builder, x: str, name: str, bias: np.ndarray, draw) -> str:
        kind = draw.integers(4)
        if kind == 0:
            return x
        stored = b.tensor(name, bias.reshape(1, 1, -1) if kind == 1 else bias)
        return b.node("Add", *((stored, x) if kind == 2 else (x, stored)))

    def step(self, b: Builder, values: list[str], name: str, draw) -> str:
        x, other = values[-1], values[int(draw.integers(len(values)))]
        kind = draw.integers(8)
        if kind < 3:
            return b.node(str(draw.choice(UNARY)), x)
        if kind == 3:
            return b.node(str(draw.choice(BINARY)), x, other)
        if kind == 4:
            return b.node("Where", b.node("Greater", x, b.scalar(0.0)), x, other)
        if kind == 5:
            shape = [(WIDTH,), (1, WIDTH), (5, WIDTH), (5, 1), (1, 1, 1), (1,), ()][int(draw.integers(7))]
            constant = b.tensor(f"c{name}", draw.uniform(0.5, 2, shape).astype(np.float32))
            return b.node(str(draw.choice(BINARY)), *((x, constant) if draw.random() < 0.5 else (constant, x)))
        if kind == 6:
            turned = b.node("Relu", b.node("Transpose", x, perm=[2, 0, 1]))
            return b.node("Transpose", turned, perm=[1, 2, 0])
        flat = b.node("Tanh", b.node("Reshape", x, b.tensor("flat", np.array([-1, WIDTH]))))
        return b.node("Reshape", flat, b.tensor("unflat", np.array([1, -1, WIDTH])))


def shuffled(model: onnx.ModelProto, draw) -> onnx.ModelProto:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes[index] for index in draw.permutation(len(nodes)))
    return model


def fingerprinted(model: onnx.ModelProto) -> onnx.ModelProto:
    """So that a plan is taken for weights that are stored in another way, and without a bias."""
    helper.set_model_props(model, {"anatomy.fingerprint": plan_of(weights()).fingerprint})
    return model


@pytest.mark.parametrize("seed", [*SHARE, *(pytest.param(seed, marks=pytest.mark.slow) for seed in ALL)])
def test_random_ffns(seed, tmp_path):
    form, layers = Random(seed), weights()
    source = form_model(form, layers, opset=18)
    model = shuffled(fingerprinted(onnx.ModelProto.FromString(source.SerializeToString())), np.random.default_rng(seed))
    try:
        out = cut(model, plan_of(layers), tmp_path)
    except AnatomyError as error:
        allowed = ("no activation stands between", "plan was made for the model", "two biases are added")
        assert any(reason in str(error) for reason in allowed), error
        return
    expected = outputs(form_model(form, masked(layers), opset=18))
    np.testing.assert_allclose(outputs(out), expected, atol=1e-4, rtol=1e-4)
