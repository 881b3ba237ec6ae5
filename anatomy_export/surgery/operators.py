"""What operators do, by name: those of ONNX Runtime itself have "com.microsoft." before theirs."""

STANDARD, MICROSOFT = ("", "ai.onnx"), "com.microsoft"
MS = f"{MICROSOFT}."
OF_ONE_VALUE = {"Cast", "CastLike", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
PASSING = {"Identity", "Cast", "CastLike", "Reshape", "Transpose", "Dropout"}
RESHAPING = {"Slice", "Expand", "Squeeze", "Unsqueeze", "Flatten", "Tile", "Pad"}
LINEAR = {"Add", "Sub", "Mul", "Div", "Neg", "Sum", "Mean"}
NONLINEAR = {
    "Abs", "Acos", "Acosh", "And", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu",
    "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mish", "Mod", "Not", "Or", "PRelu", "Pow", "Reciprocal",
    "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan",
    "Tanh", "ThresholdedRelu", "Where", "Xor", f"{MS}Gelu", f"{MS}BiasGelu", f"{MS}FastGelu", f"{MS}QuickGelu",
}  # fmt: skip
ELEMENTWISE = LINEAR | NONLINEAR
WITH_BIAS = {"Add": (0, 1), f"{MS}BiasGelu": (1,), f"{MS}FastGelu": (1,)}
SKIP_NORMS = (f"{MS}SkipLayerNormalization", f"{MS}SkipSimplifiedLayerNormalization")
QUANTISED = ("MatMulInteger", "QLinearMatMul", "DequantizeLinear", f"{MS}QAttention", f"{MS}MatMulNBits")
FUSED_GEMM, FUSED_MATMUL = f"{MS}FusedGemm", f"{MS}FusedMatMul"
GEMMS = ("Gemm", FUSED_GEMM)
PRODUCTS = ("MatMul", *GEMMS, FUSED_MATMUL, "Einsum")
