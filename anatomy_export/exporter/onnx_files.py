"""ONNX files as the converters read and write them."""

from pathlib import Path

import onnx

from anatomy_export.core.onnx_tensors import FIRST_IR_WITH_FREE_INITIALIZERS

EXTERNAL_DATA_BYTES = 2**31 - 2**26


def load_plain(source: Path) -> onnx.ModelProto:
    """The model without what it says of weights' types and of shapes between nodes, which a conversion makes untrue;
    weights are no inputs, as before IR version 4 they had to be, for the converters leave inputs as they are."""
    model = onnx.load(source)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = true_inputs(model)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, FIRST_IR_WITH_FREE_INITIALIZERS)
    described = [info for info in model.graph.value_info if info.name not in weights]
    for info in described:
        info.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    model.graph.value_info.extend(described)
    return model


def true_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that must be given."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]
