"""Two residual FFNs written in many ways: what exporters and optimizers make of the same function."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, HIDDEN, WIDTH = 2, 6, 10
MS = "com.microsoft"


def weights(seed: int = 0, *, width: int = WIDTH, hidden: int = HIDDEN) -> list[dict[str, np.ndarray]]:
    """W1 (n, d), b1 (n,), W2 (n, d), b2 (d,) of every layer, float32."""
    generator = np.random.default_rng(seed)
    shapes = {"W1": (width, hidden), "b1": (width,), "W2": (width, hidden), "b2": (hidden,)}
    return [
        {name: generator.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(LAYERS)
    ]


class Builder:
    """Collects nodes and tensors; every spelling below adds one layer's FFN to the value that it is given."""

    def __init__(self):
        self.nodes, self.tensors, self.shapes = [], {}, {}

    def node(self, kind: str, *inputs: str, domain: str = "", **attributes) -> str:
        output = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, inputs, [output], name=f"{kind}_{len(self.nodes)}", domain=domain, **attributes)
        )
        return output

    def nodes_of(self, kind: str, *inputs: str, outputs: int, **attributes) -> list[str]:
        """The names of a node's outputs, where it has several."""
        first = self.node(kind, *inputs, **attributes)
        self.nodes[-1].output.extend(f"{first}_{index}" for index in range(1, outputs))
        return list(self.nodes[-1].output)

    def tensor(self, name: str, array) -> str:
        self.tensors.setdefault(name, numpy_helper.from_array(np.asarray(array), name))
        return name

    def scalar(self, value: float) -> str:
        return self.tensor(f"c{value}", np.float32(value))

    def erf_gelu(self, x: str) -> str:
        inner = self.node("Erf", self.node("Div", x, self.scalar(2**0.5)))
        return self.node("Mul", self.node("Mul", x, self.node("Add", inner, self.scalar(1.0))), self.scalar(0.5))

    def tanh_gelu(self, x: str) -> str:
        cube = self.node("Mul", self.node("Pow", x, self.scalar(3.0)), self.scalar(0.044715))
        inner = self.node("Tanh", self.node("Mul", self.node("Add", x, cube), self.scalar(0.7978845608)))
        return self.node("Mul", self.node("Mul", x, self.scalar(0.5)), self.node("Add", self.scalar(1.0), inner))

    def model(self, output: str, *, ir_version: int = 8, opset: int = 17) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        inputs = [value("x", TensorProto.FLOAT, ["batch", "tokens", HIDDEN])]
        if ir_version < 4:
            inputs += [value(name, tensor.data_type, list(tensor.dims)) for name, tensor in self.tensors.items()]
        outputs = [value(output, TensorProto.FLOAT, ["batch", "tokens", "classes"])]
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, list(self.tensors.values()))
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        helper.set_model_props(model, {"author": "somebody"})
        return onnx.shape_inference.infer_shapes(model)


def plain(b: Builder, x: str, w: dict, i: int) -> str:
    up = b.node("MatMul", x, b.tensor(f"up{i}", w["W1"].T.copy()))
    h = b.erf_gelu(b.node("Add", b.tensor(f"b1_{i}", w["b1"]), up))
    down = b.node("MatMul", h, b.tensor(f"down{i}", w["W2"]))
    return b.node("Add", b.node("Add", down, b.tensor(f"b2_{i}", w["b2"])), x)


def gemm(b: Builder, x: str, w: dict, i: int) -> str:
    """As TorchScript writes a Linear of a matrix: flattened, transB, the sizes in shared constants."""
    flat = b.node("Reshape", x, b.tensor("to_rows", np.array([-1, HIDDEN])))
    up = b.node("Gemm", flat, b.tensor(f"up{i}", w["W1"]), b.tensor(f"b1_{i}", w["b1"]), transB=1)
    h = b.tanh_gelu(b.node("Reshape", up, b.tensor("one_batch", np.array([1, -1, WIDTH]))))
    h = b.node("Reshape", h, b.tensor("to_neurons", np.array([-1, WIDTH])))
    down = b.node("Gemm", h, b.tensor(f"down{i}", w["W2"].T.copy()), b.tensor(f"b2_{i}", w["b2"]), transB=1)
    return b.node("Add", x, b.node("Reshape", down, b.node("Shape", x)))


def conv1d(b: Builder, x: str, w: dict, i: int) -> str:
    """As GPT-2's Conv1D: sizes computed from Shape, the width a piece of a Concat that both layers share."""
    rows = b.node("Slice", b.node("Shape", x), b.tensor("zero", np.array([0])), b.tensor("two", np.array([2])))
    if not hasattr(b, "size"):
        b.size = b.node("Concat", rows, b.tensor("width", np.array([WIDTH])), axis=0)
    up = b.node("Gemm", b.node("Reshape", x, b.tensor("to_rows", np.array([-1, HIDDEN]))),
                b.tensor(f"up{i}", w["W1"].T.copy()), b.tensor(f"b1_{i}", w["b1"]))  # fmt: skip
    h = b.tanh_gelu(b.node("Reshape", up, b.size))
    last = b.node("Gather", b.node("Shape", h), b.tensor("last", np.array([-1])))
    flat = b.node("Reshape", h, b.node("Concat", b.tensor("minus", np.array([-1])), last, axis=0))
    down = b.node("Gemm", flat, b.tensor(f"down{i}", w["W2"]), b.tensor(f"b2_{i}", w["b2"]))
    return b.node("Add", b.node("Reshape", down, b.node("Shape", x)), x)


def bias_gelu(b: Builder, x: str, w: dict, i: int) -> str:
    """As fused for ONNX Runtime: b2 is an input of the normalisation."""
    up = b.node("MatMul", x, b.tensor(f"up{i}", w["W1"].T.copy()))
    h = b.node("BiasGelu", up, b.tensor(f"b1_{i}", w["b1"]), domain=MS)
    down = b.node("MatMul", h, b.tensor(f"down{i}", w["W2"]))
    gamma, beta = b.tensor("gamma", np.ones(HIDDEN, np.float32)), b.tensor("beta", np.zeros(HIDDEN, np.float32))
    return b.node("SkipLayerNormalization", x, down, gamma, beta, b.tensor(f"b2_{i}", w["b2"]), domain=MS)


def fast_gelu(b: Builder, x: str, w: dict, i: int) -> str:
    up = b.node("MatMul", x, b.tensor(f"up{i}", w["W1"].T.copy()))
    h = b.node("FastGelu", up, b.tensor(f"b1_{i}", w["b1"]), domain=MS)
    down = b.node("FusedMatMul", h, b.tensor(f"down{i}", w["W2"].T.copy()), domain=MS, transB=1)
    return b.node("Add", b.node("Add", down, b.tensor(f"b2_{i}", w["b2"])), x)


def quick_gelu(b: Builder, x: str, w: dict, i: int) -> str:
    up = b.node("MatMul", x, b.tensor(f"up{i}", w["W1"].T.copy()))
    h = b.node("QuickGelu", b.node("Add", up, b.tensor(f"b1_{i}", w["b1"])), domain=MS, alpha=1.702)
    down = b.node("MatMul", h, b.tensor(f"down{i}", w["W2"]))
    return b.node("Add", x, b.node("Add", b.tensor(f"b2_{i}", w["b2"]), down))


def contrib_gelu(b: Builder, x: str, w: dict, i: int) -> str:
    up = b.node("MatMul", x, b.tensor(f"up{i}", w["W1"].T.copy()))
    h = b.node("Gelu", b.node("Add", up, b.tensor(f"b1_{i}", w["b1"])), domain=MS)
    down = b.node("MatMul", h, b.tensor(f"down{i}", w["W2"]))
    return b.node("Add", x, b.node("Add", b.tensor(f"b2_{i}", w["b2"]), down))


def transposed(b: Builder, x: str, w: dict, i: int) -> str:
    """Nothing folded: a Transpose, an Identity and a Cast between each tensor and its use, and Dropout left in."""
    up = b.node("MatMul", x, b.node("Transpose", b.node("Identity", b.tensor(f"up{i}", w["W1"])), perm=[1, 0]))
    bias = b.node("Cast", b.node("Identity", b.tensor(f"b1_{i}", w["b1"])), to=TensorProto.FLOAT)
    h = b.node("Dropout", b.node("Identity", b.erf_gelu(b.node("Add", up, bias))))
    down = b.node("MatMul", h, b.node("Transpose", b.tensor(f"down{i}", w["W2"].T.copy())))
    return b.node("Add", b.node("Dropout", b.node("Add", down, b.tensor(f"b2_{i}", w["b2"]))), x)


def constants(b: Builder, x: str, w: dict, i: int) -> str:
    """Constant nodes in place of initializers."""
    made = {name: b.node("Constant", value=numpy_helper.from_array(np.ascontiguousarray(array)))
            for name, array in {**w, "W1": w["W1"].T}.items()}  # fmt: skip
    half, root = b.node("Constant", value_float=0.5), b.node("Sqrt", b.node("Constant", value_float=2.0))
    up = b.node("Add", b.node("MatMul", x, made["W1"]), made["b1"])
    inner = b.node("Add", b.node("Erf", b.node("Div", up, root)), b.node("Constant", value_floats=[1.0]))
    down = b.node("MatMul", b.node("Mul", half, b.node("Mul", up, inner)), made["W2"])
    return b.node("Add", b.node("Add", down, made["b2"]), x)


def columns(b: Builder, x: str, w: dict, i: int) -> str:
    """Neurons down the rows before the second product: Gemm with transA."""
    flat = b.node("Reshape", x, b.tensor("to_rows", np.array([-1, HIDDEN])))
    up = b.node("Gemm", b.node("Transpose", flat), b.tensor(f"up{i}", w["W1"].T.copy()), transA=1)
    h = b.node("Transpose", b.node("Add", up, b.tensor(f"b1_{i}", w["b1"])), perm=[1, 0])
    h = b.erf_gelu(h)
    down = b.node("Gemm", h, b.tensor(f"down{i}", w["W2"]), b.tensor(f"b2_{i}", w["b2"]), transA=1)
    return b.node("Add", b.node("Reshape", down, b.node("Shape", x)), x)


def scaled_gemm(b: Builder, x: str, w: dict, i: int) -> str:
    """Gemm that multiplies by a factor of its own."""
    flat = b.node("Reshape", x, b.tensor("to_rows", np.array([-1, HIDDEN])))
    up = b.node("Gemm", flat, b.tensor(f"up{i}", w["W1"]), b.tensor(f"b1_{i}", w["b1"]), transB=1, alpha=0.5)
    down = b.node("Gemm", b.tanh_gelu(up), b.tensor(f"down{i}", w["W2"]), b.tensor(f"b2_{i}", w["b2"]))
    return b.node("Add", x, b.node("Reshape", down, b.node("Shape", x)))


def gated(b: Builder, x: str, w: dict, i: int) -> str:
    up, gate = (b.node("MatMul", x, b.tensor(f"{name}{i}", w["W1"].T.copy())) for name in ("up", "gate"))
    down = b.node("MatMul", b.node("Mul", b.node("Sigmoid", gate), up), b.tensor(f"down{i}", w["W2"]))
    return b.node("Add", down, x)


def split_gated(b: Builder, x: str, w: dict, i: int) -> str:
    """GEGLU as one product whose halves gate each other."""
    both = b.node("MatMul", x, b.tensor(f"both{i}", np.concatenate([w["W1"], w["W1"][::-1]]).T.copy()))
    up, gate = b.nodes_of("Split", both, outputs=2, axis=-1)
    down = b.node("MatMul", b.node("Mul", b.erf_gelu(up), gate), b.tensor(f"down{i}", w["W2"]))
    return b.node("Add", b.node("Add", down, b.tensor(f"b2_{i}", w["b2"])), x)


def dynamic_int8(b: Builder, x: str, w: dict, i: int) -> str:
    """As `quantize_dynamic` writes both products."""

    def product(x: str, name: str, matrix: np.ndarray) -> str:
        numbers, scale, zero = b.nodes_of("DynamicQuantizeLinear", x, outputs=3)
        stored = b.tensor(f"{name}{i}_int8", np.clip(matrix * 40, -127, 127).astype(np.int8))
        whole = b.node("MatMulInteger", numbers, stored, zero, b.tensor("int8_zero", np.int8(0)))
        scales = b.node("Mul", scale, b.scalar(1 / 40))
        return b.node("Mul", b.node("Cast", whole, to=TensorProto.FLOAT), scales)

    up = b.node("Add", product(x, "up", w["W1"].T), b.tensor(f"b1_{i}", w["b1"]))
    return b.node("Add", product(b.erf_gelu(up), "down", w["W2"]), x)


def dequantised(b: Builder, x: str, w: dict, i: int) -> str:
    """Weights in int8, each behind a DequantizeLinear."""
    up, down = (
        b.node("DequantizeLinear", b.tensor(f"{name}{i}_int8", (matrix * 40).clip(-127, 127).astype(np.int8)),
               b.scalar(1 / 40))
        for name, matrix in (("up", w["W1"].T), ("down", w["W2"]))
    )  # fmt: skip
    return b.node("Add", b.node("MatMul", b.node("Relu", b.node("MatMul", x, up)), down), x)


def normed_inside(b: Builder, x: str, w: dict, i: int) -> str:
    """A norm between activation and second product, whose result hangs on every neuron."""
    h = b.node("Relu", b.node("MatMul", x, b.tensor(f"up{i}", w["W1"].T.copy())))
    h = b.node("LayerNormalization", h, b.tensor("neurons", np.ones(WIDTH, np.float32)), axis=-1)
    return b.node("Add", b.node("MatMul", h, b.tensor(f"down{i}", w["W2"])), x)


def residual_in_gemm(b: Builder, x: str, w: dict, i: int) -> str:
    """The residual is what the second Gemm adds."""
    flat = b.node("Reshape", x, b.tensor("to_rows", np.array([-1, HIDDEN])))
    h = b.node("Relu", b.node("Gemm", flat, b.tensor(f"up{i}", w["W1"].T.copy())))
    return b.node("Reshape", b.node("Gemm", h, b.tensor(f"down{i}", w["W2"]), flat), b.node("Shape", x))


def convolved(b: Builder, x: str, w: dict, i: int) -> str:
    """Products written as convolutions of one token."""
    h = b.node("Conv", b.node("Transpose", x, perm=[0, 2, 1]), b.tensor(f"up{i}", w["W1"][:, :, None]))
    h = b.node("Conv", b.node("Relu", h), b.tensor(f"down{i}", w["W2"].T[:, :, None].copy()))
    return b.node("Add", b.node("Transpose", h, perm=[0, 2, 1]), x)


def unknown_activation(b: Builder, x: str, w: dict, i: int) -> str:
    up = b.node("MatMul", x, b.tensor(f"up{i}", w["W1"].T.copy()))
    h = b.node("LogSoftmax", up)
    return b.node("Add", b.node("MatMul", h, b.tensor(f"down{i}", w["W2"])), x)


def attention(b: Builder, x: str, w: dict, i: int) -> str:
    """A single head, each token on its own width."""
    square = [np.random.default_rng([9, i, n]).normal(0, 0.5, (HIDDEN, HIDDEN)).astype(np.float32) for n in range(4)]
    query, key, value = (b.node("MatMul", x, b.tensor(f"{n}_{i}", m)) for n, m in zip("qkv", square, strict=False))
    scores = b.node("Softmax", b.node("MatMul", query, b.node("Transpose", key, perm=[0, 2, 1])), axis=-1)
    mixed = b.node("MatMul", b.node("MatMul", scores, value), b.tensor(f"o{i}", square[3]))
    return b.node("Add", mixed, x)


SPELLINGS = {spelling.__name__: spelling for spelling in (
    plain, gemm, conv1d, bias_gelu, fast_gelu, quick_gelu, contrib_gelu, transposed, constants, columns,
)}  # fmt: skip


UNREAD = {spelling.__name__: spelling for spelling in (
    scaled_gemm, gated, split_gated, dynamic_int8, dequantised, normed_inside, residual_in_gemm, convolved,
    unknown_activation,
)}  # fmt: skip


def mixed_model(*spellings) -> onnx.ModelProto:
    """A layer of each spelling (a function) in turn, with a pooler and a classifier after them."""
    b, x = Builder(), "x"
    for index, spelling in enumerate(spellings):
        x = spelling(b, x, weights(index)[0], index)
    generator = np.random.default_rng(7)
    pooler, classifier = (generator.normal(size=(HIDDEN, size)).astype(np.float32) for size in (HIDDEN, 2))
    x = b.node("Tanh", b.node("MatMul", x, b.tensor("pooler", pooler)))
    return b.model(b.node("MatMul", x, b.tensor("classifier", classifier)))


def ffn_model(spelling: str = "plain", layers=None, *, head=True, **options) -> onnx.ModelProto:
    """Both layers, then a pooler and a classifier: two products with an activation between, but no residual."""
    b = Builder()
    x = "x"
    for index, layer in enumerate(layers or weights()):
        x = SPELLINGS[spelling](b, x, layer, index)
    if head:
        generator = np.random.default_rng(7)
        pooler, classifier = (
            generator.normal(size=shape).astype(np.float32) for shape in ((HIDDEN, HIDDEN), (HIDDEN, 2))
        )
        pooled = b.node("Tanh", b.node("MatMul", x, b.tensor("pooler", pooler)))
        x = b.node("MatMul", pooled, b.tensor("classifier", classifier))
    return b.model(x, **options)
