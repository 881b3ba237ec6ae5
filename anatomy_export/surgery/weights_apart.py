"""A model handed to ONNX Runtime in two parts: a small protobuf, and the weights where they lie."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from anatomy_export.core.onnx_tensors import (
    FLOAT_TYPES,
    INLINE_BYTES,
    is_external,
    stored_bytes,
    tensor_bytes,
    without_initializers,
)
from anatomy_export.surgery.graph import names_used


def weights_apart(model: onnx.ModelProto, folder: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A copy without its large floating-point weights, and those by name, for `add_external_initializers`.

    They are neither copied nor written into a second protobuf, and external ones in `folder` may be links, which ONNX
    Runtime itself follows for files only.

    Raises:
        AnatomyError: see `external_region`.
    """
    import onnxruntime

    small = without_initializers(model)
    weights = {}
    for tensor in model.graph.initializer:
        dtype = FLOAT_TYPES.get(tensor.data_type)
        content = stored_bytes(tensor, folder)
        large = content is not None and INLINE_BYTES < content.nbytes == tensor_bytes(tensor)
        if content is None or dtype is None or dtype.kind != "f" or not large:
            small.graph.initializer.append(_inline(tensor, content))
            continue
        array = content.view(dtype).reshape(tuple(tensor.dims))
        weights[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        stub = small.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        stub.data_location = TensorProto.EXTERNAL
        stub.external_data.add(key="location", value="in_memory")
    drop_unread_(small, weights)
    return small, weights


def drop_unread_(model: onnx.ModelProto, weights: dict[str, Any]) -> None:
    """Take out the weights that nothing reads: ONNX Runtime drops their initializers first, and then misses them."""
    graph = model.graph
    unread = weights.keys() - {value.name for value in graph.output}.union(*map(names_used, graph.node))
    for values in (graph.initializer, graph.input):
        read = [value for value in values if value.name not in unread]
        del values[:]
        values.extend(read)
    for name in unread:
        del weights[name]


def _inline(tensor: TensorProto, content: np.ndarray | None) -> TensorProto:
    if not is_external(tensor) or content is None:
        return tensor
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=content.tobytes())
