"""Forms that an FFN can have beside the usual spellings; each adds one layer's FFN to the value that it is given."""

import numpy as np
import onnx
from onnx import TensorProto
from onnx_graphs import HIDDEN, MS, WIDTH, Builder


def up(b: Builder, x: str, w: dict, i: int) -> str:
    product = b.node("MatMul", x, b.tensor(f"up{i}", w["W1"].T.copy()))
    return b.node("Add", product, b.tensor(f"b1_{i}", w["b1"]))


def down(b: Builder, h: str, x: str, w: dict, i: int) -> str:
    product = b.node("MatMul", h, b.tensor(f"down{i}", w["W2"]))
    return b.node("Add", b.node("Add", product, b.tensor(f"b2_{i}", w["b2"])), x)


def activated(activation):
    """The plain FFN with this activation, a function of (builder, value)."""

    def form(b: Builder, x: str, w: dict, i: int) -> str:
        return down(b, activation(b, up(b, x, w, i)), x, w, i)

    return form


def per_neuron(b: Builder, name: str, *shape: int) -> str:
    values = np.random.default_rng(11).uniform(0.5, 2, (*shape, WIDTH)).astype(np.float32)
    return b.tensor(name, values)


def laplace(b: Builder, x: str) -> str:
    inner = b.node("Div", b.node("Sub", x, b.scalar(0.707107)), b.scalar(0.39894))
    return b.node("Mul", b.node("Add", b.node("Erf", inner), b.scalar(1.0)), b.scalar(0.5))


def xielu(b: Builder, x: str) -> str:
    """Its slopes are computed from stored vectors of one number."""
    positive = b.node("Softplus", b.tensor("alpha_p", np.array([0.3], np.float32)))
    negative = b.node("Unsqueeze", b.node("Softplus", b.tensor("alpha_n", np.float32(0.2))), b.tensor("first", [0]))
    right = b.node("Mul", positive, b.node("Mul", x, x))
    shifted = b.node("Sub", b.node("Exp", b.node("Min", x, b.scalar(-1e-6))), b.scalar(1.0))
    left = b.node("Mul", b.node("Sub", shifted, x), negative)
    return b.node("Where", b.node("Greater", x, b.scalar(0.0)), right, left)


ACTIVATIONS = {
    "relu6": lambda b, x: b.node("Clip", x, b.scalar(0.0), b.scalar(6.0)),
    "clip above": lambda b, x: b.node("Clip", x, "", b.scalar(1.0)),
    "relu2": lambda b, x: (lambda r: b.node("Mul", r, r))(b.node("Relu", x)),
    "square": lambda b, x: b.node("Mul", x, x),
    "hardswish": lambda b, x: b.node("Mul", x, b.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
    "mish": lambda b, x: b.node("Mul", x, b.node("Tanh", b.node("Softplus", x))),
    "sqrtsoftplus": lambda b, x: b.node("Sqrt", b.node("Softplus", x)),
    "laplace": laplace,
    "xielu": xielu,
    "prelu of one slope": lambda b, x: b.node("PRelu", x, b.tensor("slope", np.full((1, 1), 0.1, np.float32))),
    "prelu": lambda b, x: b.node("PRelu", x, per_neuron(b, "slope")),
    "scale": lambda b, x: b.node("Mul", b.node("Relu", x), per_neuron(b, "scale", 1, 1)),
    "two biases": lambda b, x: b.node("Relu", b.node("Add", per_neuron(b, "second"), x)),
    "scale before the bias": lambda b, x: b.node("Tanh", b.node("Div", x, per_neuron(b, "scale"))),
    "scale by position": lambda b, x: b.node("Mul", b.node("Relu", x), per_neuron(b, "scale", 5)),
    "scale of positions alone": lambda b, x: b.node(
        "Mul", b.node("Relu", x), b.tensor("scale", np.arange(5, dtype=np.float32)[:, None])
    ),
}


def einsum(up_equation: str, down_equation: str):
    """Both products as Einsum; the matrix lies as the equation takes it."""

    def form(b: Builder, x: str, w: dict, i: int) -> str:
        columns = up_equation.endswith("ns")
        bias = b.tensor(f"b1_{i}", w["b1"][:, None] if columns else w["b1"])
        h = b.node("Relu", b.node("Add", product(b, up_equation, x, f"up{i}", w["W1"].T), bias))
        y = product(b, down_equation, h, f"down{i}", w["W2"])
        return b.node("Add", b.node("Add", y, b.tensor(f"c{i}", w["b2"])), x)

    def product(b: Builder, equation: str, x: str, name: str, matrix: np.ndarray) -> str:
        first, second = equation.split("->")[0].split(",")
        weight_first = len(first.strip()) == 2
        letters = (first if weight_first else second).strip()
        flipped = equation.split("->")[1].strip().find(letters[0]) >= 0
        weight = b.tensor(name, np.ascontiguousarray(matrix.T if flipped else matrix))
        return b.node("Einsum", *((weight, x) if weight_first else (x, weight)), equation=equation)

    return form


def matrix_first(b: Builder, x: str, w: dict, i: int) -> str:
    """W·x: tokens are columns between the products, neurons rows."""
    columns = b.node("Transpose", x, perm=[0, 2, 1])
    product = b.node("MatMul", b.tensor(f"up{i}", w["W1"]), columns)
    h = b.node("Relu", b.node("Add", product, b.tensor(f"b1_{i}", w["b1"][:, None])))
    y = b.node("MatMul", b.tensor(f"down{i}", w["W2"].T.copy()), h)
    return b.node("Add", b.node("Add", y, b.tensor(f"b2_{i}", w["b2"][:, None])), columns)


def fused_gemm(b: Builder, x: str, w: dict, i: int) -> str:
    flat = b.node("Reshape", x, b.tensor("to_rows", np.array([-1, HIDDEN])))
    h = b.node("FusedGemm", flat, b.tensor(f"up{i}", w["W1"]), b.tensor(f"b1_{i}", w["b1"]), domain=MS,
               transB=1, activation="LeakyRelu", activation_alpha=0.1)  # fmt: skip
    y = b.node("Gemm", h, b.tensor(f"down{i}", w["W2"]), b.tensor(f"b2_{i}", w["b2"]))
    return b.node("Add", b.node("Reshape", y, b.node("Shape", x)), x)


def fused_matmul(b: Builder, x: str, w: dict, i: int) -> str:
    """Both flags set at both products, nothing else."""
    turned = b.node("Transpose", x, perm=[0, 2, 1])
    product = b.node("FusedMatMul", turned, b.tensor(f"up{i}", w["W1"]), domain=MS, transA=1, transB=1)
    h = b.node("Transpose", b.node("Relu", b.node("Add", b.tensor(f"b1_{i}", w["b1"]), product)), perm=[0, 2, 1])
    y = b.node("FusedMatMul", h, b.tensor(f"down{i}", w["W2"].T.copy()), domain=MS, transA=1, transB=1)
    return b.node("Add", x, b.node("Add", b.tensor(f"b2_{i}", w["b2"]), y))


def batch_of_one(b: Builder, x: str, w: dict, i: int) -> str:
    """Sizes as an exporter writes them that knows every size."""
    h = b.node("Reshape", up(b, x, w, i), b.tensor("flat", np.array([5, WIDTH])))
    h = b.node("Reshape", b.node("Relu", h), b.tensor("whole", np.array([1, 5, WIDTH])))
    return down(b, h, x, w, i)


FORMS = {
    **{name: activated(activation) for name, activation in ACTIVATIONS.items()},
    "einsum": einsum("...d,dn->...n", "...n,nd->...d"),
    "einsum of rows": einsum("bsd,nd->bsn", "bsn,dn->bsd"),
    "einsum, matrix first": einsum("dn, bsd -> bsn", "nd,bsn->bsd"),
    "einsum into columns": einsum("bsd,dn->bns", "bns,nd->bsd"),
    "fused gemm": fused_gemm,
    "fused matmul": fused_matmul,
    "batch of one": batch_of_one,
}  # fmt: skip


def with_product(kind: str, domain: str = "", **attributes):
    """The plain FFN, its up-projection a node with these attributes."""

    def form(b: Builder, x: str, w: dict, i: int) -> str:
        x = b.node("Reshape", x, b.tensor("to_rows", np.array([-1, HIDDEN])))
        bias = b.tensor(f"b1_{i}", w["b1"])
        inputs = (x, b.tensor(f"up{i}", w["W1"].T.copy()), *([bias] if kind == "Gemm" else []))
        return down(b, b.node("Relu", b.node(kind, *inputs, domain=domain, **attributes)), x, w, i)

    return form


def lora_at_up(b: Builder, x: str, w: dict, i: int) -> str:
    whole = up(b, x, w, i)
    low = b.node("MatMul", b.node("MatMul", x, b.tensor(f"A{i}", w["W1"].T[:, :2].copy())), b.tensor(
        f"B{i}", w["W1"].T[:2].copy()))  # fmt: skip
    return down(b, b.erf_gelu(b.node("Add", whole, b.node("Mul", low, b.scalar(2.0)))), x, w, i)


def lora_at_down(b: Builder, x: str, w: dict, i: int) -> str:
    h = b.erf_gelu(up(b, x, w, i))
    low = b.node("MatMul", b.node("MatMul", h, b.tensor(f"A{i}", w["W2"][:, :2].copy())), b.tensor(
        f"B{i}", w["W2"][:2].copy()))  # fmt: skip
    whole = b.node("Add", b.node("MatMul", h, b.tensor(f"down{i}", w["W2"])), b.tensor(f"b2_{i}", w["b2"]))
    return b.node("Add", b.node("Add", whole, b.node("Mul", low, b.scalar(2.0))), x)


def fused_activation_at_down(b: Builder, x: str, w: dict, i: int) -> str:
    x = b.node("Reshape", x, b.tensor("to_rows", np.array([-1, HIDDEN])))
    h = b.node("Relu", up(b, x, w, i))
    y = b.node("FusedGemm", h, b.tensor(f"down{i}", w["W2"]), b.tensor(f"b2_{i}", w["b2"]), domain=MS,
               activation="Relu")  # fmt: skip
    return b.node("Add", y, x)


def expand(b: Builder, x: str) -> str:
    return b.node("Expand", b.node("Relu", x), b.tensor("wide", np.array([1, 1, WIDTH])))


def slice_(b: Builder, x: str) -> str:
    ends = (b.tensor("zero", np.array([0])), b.tensor("width", np.array([WIDTH])), b.tensor("last", np.array([-1])))
    return b.node("Slice", b.node("Relu", x), *ends)


def split_heads(b: Builder, x: str) -> str:
    h = b.node("Reshape", b.node("Relu", x), b.tensor("pairs", np.array([1, 5, WIDTH // 2, 2])))
    return b.node("Reshape", h, b.tensor("whole", np.array([1, 5, WIDTH])))


def computed_scale(b: Builder, x: str) -> str:
    return b.node("Mul", b.node("Relu", x), b.node("Exp", per_neuron(b, "log_scale")))


REFUSED = {
    "gemm with alpha": (with_product("Gemm", alpha=0.5), "its Gemm 'Gemm_1' of 'up0' has alpha 0.5"),
    "gemm with beta": (with_product("Gemm", beta=2.0), "its Gemm 'Gemm_1' of 'up0' has beta 2"),
    "fused matmul with alpha": (with_product("FusedMatMul", MS, alpha=0.25), "its FusedMatMul .* has alpha 0.25"),
    "activation at down": (fused_activation_at_down, "Relu is applied to what its down-projection gives"),
    "lora at up": (lora_at_up, "a second product is added to its up-projection .LoRA that was not merged"),
    "lora at down": (lora_at_down, "a second product reads its neurons .LoRA that was not merged"),
    "linear": (activated(lambda b, x: x), "no activation stands between its products"),
    "expand": (activated(expand), "the operator Expand stands between its products"),
    "slice": (activated(slice_), "the operator Slice stands between its products"),
    "split heads": (activated(split_heads), r"a Reshape inside has the size \[1, 5, 5, 2\]"),
    "computed scale": (activated(computed_scale), "a value of one for each neuron is computed while the model runs"),
}


def form_model(form, layers, **options) -> onnx.ModelProto:
    b = Builder()
    x = "x"
    for index, layer in enumerate(layers):
        x = form(b, x, layer, index)
    return b.model(x, **options)


def towers(layers) -> onnx.ModelProto:
    """The layers twice, on x and on -x, with the same tensors; the difference of both."""
    b = Builder()
    ends = []
    for start in ("x", b.node("Neg", "x")):
        x = start
        for index, layer in enumerate(layers):
            h = b.erf_gelu(up(b, x, layer, index))
            x = down(b, h, x, layer, index)
        ends.append(x)
    return b.model(b.node("Sub", *ends))


def in_float16(model: onnx.ModelProto, data_type: int = TensorProto.FLOAT16) -> onnx.ModelProto:
    """The same graph in another type, between casts at its ends."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    graph = model.graph
    output = graph.output[0].name
    for node in graph.node:
        node.input[:] = ["x_low" if name == "x" else name for name in node.input]
        node.output[:] = ["y_low" if name == output else name for name in node.output]
        node.input[:] = ["y_low" if name == output else name for name in node.input]
    graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["x_low"], to=data_type))
    graph.node.append(onnx.helper.make_node("Cast", ["y_low"], [output], to=TensorProto.FLOAT))
    del graph.value_info[:]
    return model


def adapted(b: Builder, x: str, w: dict, i: int) -> str:
    """An FFN whose output a bottleneck adapter changes before the layer's residual is added."""
    h = b.erf_gelu(up(b, x, w, i))
    y = b.node("Add", b.node("MatMul", h, b.tensor(f"down{i}", w["W2"])), b.tensor(f"b2_{i}", w["b2"]))
    narrow = b.node("Add", b.node("MatMul", y, b.tensor(f"adapter_up{i}", w["W1"].T[:, :3].copy())), b.tensor(
        f"adapter_bias{i}", w["b1"][:3]))  # fmt: skip
    back = b.node("MatMul", b.node("Relu", narrow), b.tensor(f"adapter_down{i}", w["W2"][:3].copy()))
    return b.node("Add", b.node("Add", back, y), x)


def with_lora_beside(b: Builder, x: str, w: dict, i: int) -> str:
    """A projection before the FFN with LoRA that was not merged: no FFN, and no reason not to cut the one that is."""
    whole = b.node("MatMul", x, b.tensor(f"query{i}", w["W1"][:HIDDEN]))
    low = b.node("MatMul", b.node("MatMul", x, b.tensor(f"A{i}", w["W1"][:2].T.copy())), b.tensor(
        f"B{i}", w["W1"][2:4].copy()))  # fmt: skip
    x = b.node("Add", b.node("Softmax", b.node("Add", whole, b.node("Mul", low, b.scalar(2.0)))), x)
    return down(b, b.node("Relu", up(b, x, w, i)), x, w, i)


FORMS |= {"lora beside": with_lora_beside}


def fused_conv1d(b: Builder, x: str, w: dict, i: int) -> str:
    """As ONNX Runtime leaves GPT-2's Conv1D: sizes read behind an operator whose axes ONNX cannot infer."""
    to_rows, to_width, to_hidden = (
        b.tensor(name, np.array(size)) for name, size in (("r", [-1, HIDDEN]), ("w", [WIDTH]), ("h", [HIDDEN]))
    )

    def outer(value: str, last: str) -> str:
        shape, first = b.node("Shape", value), b.tensor("first", np.array([0]))
        sizes = (b.node("Gather", shape, b.tensor(f"axis{axis}", np.int64(axis)), axis=0) for axis in (0, 1))
        return b.node("Concat", *(b.node("Unsqueeze", size, first) for size in sizes), last, axis=0)

    start = b.node("QuickGelu", x, domain=MS)
    up = b.node("Gemm", b.node("Reshape", start, to_rows), b.tensor(f"up{i}", w["W1"].T.copy()), b.tensor(
        f"b1_{i}", w["b1"]))  # fmt: skip
    h = b.node("FastGelu", b.node("Reshape", up, outer(start, to_width)), domain=MS)
    flat = b.node("Reshape", h, b.tensor("to_neurons", np.array([-1, WIDTH])))
    y = b.node("Gemm", flat, b.tensor(f"down{i}", w["W2"]), b.tensor(f"b2_{i}", w["b2"]))
    return b.node("Add", b.node("Reshape", y, outer(h, to_hidden)), x)


FORMS |= {"fused conv1d": fused_conv1d}


def adapted_after_norm(b: Builder, x: str, w: dict, i: int) -> str:
    """A bottleneck adapter behind the norm of its layer: but for its width, an FFN."""
    ones, zeros = b.tensor("ones", np.ones(HIDDEN, np.float32)), b.tensor("zeros", np.zeros(HIDDEN, np.float32))
    x = b.node("LayerNormalization", down(b, b.erf_gelu(up(b, x, w, i)), x, w, i), ones, zeros)
    narrow = b.node("Relu", b.node("MatMul", x, b.tensor(f"adapter_up{i}", w["W1"].T[:, :3].copy())))
    return b.node("Add", b.node("MatMul", narrow, b.tensor(f"adapter_down{i}", w["W1"][:3])), x)


def scaled_output(b: Builder, x: str, w: dict, i: int, *, bias_last: bool = False) -> str:
    """As LayerScale and the half steps of a Conformer: a stored vector, then a factor, before the residual."""
    y = b.node("MatMul", b.erf_gelu(up(b, x, w, i)), b.tensor(f"down{i}", w["W2"]))
    scale = b.tensor("layer_scale", np.linspace(0.5, 2, HIDDEN, dtype=np.float32))
    bias = b.tensor(f"b2_{i}", w["b2"])
    y = b.node("Add", b.node("Mul", scale, y), bias) if bias_last else b.node("Mul", scale, b.node("Add", y, bias))
    return b.node("Add", x, b.node("Div", y, b.scalar(2.0)))


def late_bias(b: Builder, x: str, w: dict, i: int) -> str:
    return scaled_output(b, x, w, i, bias_last=True)


FORMS |= {"scaled output": scaled_output}
REFUSED |= {"late bias": (late_bias, "its output is multiplied before the bias is added")}
