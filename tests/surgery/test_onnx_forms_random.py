"""Random FFNs: whatever stands between the products, and however the matrices are stored, a cut computes what masking
does, or the file is refused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_graphs import LAYERS, MS, WIDTH, Builder, weights
from test_onnx_forms import cut_by_ratio
from test_onnx_surgery import masked, outputs

from anatomy_export.core.errors import AnatomyError

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
SHARE, ALL = (*range(24), 918), range(24, 918)


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


def random_model(seed: int, layers, tied: bool) -> onnx.ModelProto:
    """Layers of one form; `tied`: all with the weights of the first."""
    b, x = Builder(), "x"
    for index in range(LAYERS):
        number = 0 if tied else index
        x = Random(seed)(b, x, layers[number], number)
    return b.model(x, opset=18)


def shuffled(model: onnx.ModelProto, draw) -> onnx.ModelProto:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes[index] for index in draw.permutation(len(nodes)))
    return model


@pytest.mark.parametrize("seed", [*SHARE, *(pytest.param(seed, marks=pytest.mark.slow) for seed in ALL)])
def test_random_ffns(seed, tmp_path):
    tied, layers = seed % 3 == 0, weights()
    source = shuffled(random_model(seed, layers, tied), np.random.default_rng(seed))
    try:
        out, keep = cut_by_ratio(source, tmp_path)
    except AnatomyError as error:
        assert "no activation stands between its products" in str(error)
        return
    assert len(keep) == (1 if tied else LAYERS)
    keep = keep * LAYERS if tied else keep
    expected = outputs(random_model(seed, masked(layers, keep), tied))
    np.testing.assert_allclose(outputs(out), expected, atol=1e-4, rtol=1e-4)
    assert WIDTH not in {size for tensor in out.graph.initializer for size in tensor.dims}
