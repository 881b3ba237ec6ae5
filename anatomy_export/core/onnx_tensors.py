"""Tensors of an ONNX file, one at a time, wherever their bytes lie; nothing outside the file's directory is read."""

import glob
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import TensorProto, numpy_helper

from anatomy_export.core.errors import AnatomyError, first_line

Part = TypeVar("Part", bound=Message)
LARGEST_PROTOBUF = 2**31 - 1
COPY_BYTES = 2**24
ALIGNMENT = 4096
INLINE_BYTES = 1024
FIRST_IR_WITH_FREE_INITIALIZERS = 4
FLOAT_TYPES: dict[int, np.dtype] = {
    TensorProto.FLOAT: np.dtype("<f4"),
    TensorProto.FLOAT16: np.dtype("<f2"),
    TensorProto.DOUBLE: np.dtype("<f8"),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
GRAPH_FIELDS = ("node", "input", "output", "value_info", "sparse_initializer", "quantization_annotation")


@dataclass(frozen=True)
class Region:
    """Where an external tensor's bytes lie: `offset` and `length` in bytes."""

    path: Path
    offset: int
    length: int


def file_bytes(path: Path) -> int:
    """Size of an ONNX file, external weights beside it included, in bytes; 0 where there is none."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{glob.escape(path.name)}*"))


def read_model(path: Path) -> onnx.ModelProto:
    """The protobuf of an ONNX file; external weights stay where they are.

    Raises:
        AnatomyError: the file cannot be read or is no ONNX model.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise AnatomyError(f"{path} is not a file; next step: name the .onnx file")
        if size > LARGEST_PROTOBUF:
            raise AnatomyError(f"{path} has {size:,} bytes, an ONNX file holds at most {LARGEST_PROTOBUF:,}")
        content = path.read_bytes()
    except OSError as error:
        raise AnatomyError(f"{path}: {error.strerror}; next step: check the path") from error
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:
        raise AnatomyError(f"{path} is no ONNX model ({first_line(error)}); next step: export it again") from error
    if not model.graph.node:
        raise AnatomyError(f"{path} is no ONNX model: its graph has no nodes; next step: export it again")
    return model


def is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def external_region(tensor: TensorProto, folder: Path) -> Region:
    """The bytes of an external tensor, which must lie in a plain file inside `folder`; in the hub's cache a link to a
    blob of the same repository will do.

    Raises:
        AnatomyError: an absolute path, one that leaves the directory, another link, no file, or too few bytes.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name = entries.get("location", "")
    refused = f"tensor '{tensor.name}': external data '{name}'"
    parts = Path(name).parts
    if not name or "\\" in name or "\0" in name or Path(name).is_absolute() or ".." in parts:
        raise AnatomyError(f"{refused} is not a path inside the model's directory; next step: export the model again")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink() and not _is_hub_blob(path):
            raise AnatomyError(f"{refused} goes through a link, expected a file; next step: put the file itself there")
    if not path.is_file():
        raise AnatomyError(f"{refused} is not there; next step: keep it beside the .onnx file")
    offset, length = _whole(entries.get("offset", "0"), refused), tensor_bytes(tensor)
    if "length" in entries and _whole(entries["length"], refused) != length:
        raise AnatomyError(f"{refused} has length {entries['length']}, its shape takes {length} bytes")
    if offset + length > path.stat().st_size:
        raise AnatomyError(
            f"{refused} has {path.stat().st_size} bytes, the tensor ends at {offset + length}; "
            "next step: copy the whole file"
        )
    return Region(path, offset, length)


def _is_hub_blob(link: Path) -> bool:
    """Does a link lead from a snapshot in the hub's cache to a blob of that repository (models--NAME/blobs/HASH)?"""
    for repository in link.absolute().parents:
        if repository.name.startswith("models--"):
            inside = link.absolute().relative_to(repository).parts[0] == "snapshots"
            return inside and link.resolve().parent == repository.resolve() / "blobs"
    return False


def _whole(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise AnatomyError(f"{where} has the offset or length '{text[:20]}', expected a whole number")
    return int(text)


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes that a tensor of this shape and type takes.

    Raises:
        AnatomyError: an unknown type, or a negative dimension.
    """
    try:
        bits = _bits(tensor.data_type)
    except (KeyError, TypeError, ValueError) as error:
        raise AnatomyError(f"tensor '{tensor.name}' has the unknown type {tensor.data_type}") from error
    if any(dim < 0 for dim in tensor.dims):
        raise AnatomyError(f"tensor '{tensor.name}' has the shape {list(tensor.dims)}")
    return (math.prod(tensor.dims) * bits + 7) // 8


def _bits(data_type: int) -> int:
    name = TensorProto.DataType.Name(data_type)
    small = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
    if name in ("UNDEFINED", "STRING"):
        raise KeyError(name)
    return small.get(name) or 8 * stored_dtype(data_type).itemsize


def stored_dtype(data_type: int) -> np.dtype:
    """The type of a tensor's little-endian bytes; that of bfloat16 is not known to every release of onnx."""
    return FLOAT_TYPES.get(data_type) or onnx.helper.tensor_dtype_to_np_dtype(data_type).newbyteorder("<")


def read_floats(tensor: TensorProto, folder: Path) -> np.ndarray:
    """A tensor of floating-point numbers in its own type and shape.

    Raises:
        AnatomyError: another type, or not as many bytes as its shape takes.
    """
    dtype = FLOAT_TYPES.get(tensor.data_type)
    if dtype is None:
        raise AnatomyError(
            f"tensor '{tensor.name}' is not floating-point; next step: cut the float32 file, then quantise the result"
        )
    content = stored_bytes(tensor, folder)
    if content is None:
        return small_array(tensor)
    if content.nbytes != tensor_bytes(tensor):
        raise AnatomyError(
            f"tensor '{tensor.name}' has {content.nbytes} bytes, its shape {list(tensor.dims)} takes "
            f"{tensor_bytes(tensor)}; next step: export the model again"
        )
    return content.view(dtype).reshape(tuple(tensor.dims))


def stored_bytes(tensor: TensorProto, folder: Path) -> np.ndarray | None:
    """The bytes of a tensor, those of an external file mapped where they lie; None where the protobuf holds numbers.

    Raises:
        AnatomyError: see `external_region`.
    """
    if not is_external(tensor):
        return np.frombuffer(tensor.raw_data, np.uint8) if tensor.HasField("raw_data") else None
    region = external_region(tensor, folder)
    if not region.length:
        return np.empty(0, np.uint8)
    return np.asarray(np.memmap(region.path, np.uint8, "r", region.offset, (region.length,)))


def small_array(tensor: TensorProto) -> np.ndarray:
    """A tensor that the protobuf itself holds.

    Raises:
        AnatomyError: it does not hold what its shape says.
    """
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:
        raise AnatomyError(f"tensor '{tensor.name}' cannot be read ({first_line(error)})") from error


def parts(message: Message, kind: type[Part]) -> Iterator[Part]:
    """Every message of a kind inside another, at any depth: the tensors of a model, the graphs nested in a node."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if isinstance(value, Message) else value:
            if isinstance(part, kind):
                yield part
            if not isinstance(part, TensorProto):
                yield from parts(part, kind)


def external_locations(model: onnx.ModelProto) -> set[str]:
    """The files that a model's tensors lie in, as it names them."""
    return {
        entry.value for tensor in parts(model, TensorProto) for entry in tensor.external_data if entry.key == "location"
    }


def without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy but for the initializers of the main graph."""
    copy = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    copy.metadata_props.extend(model.metadata_props)
    copy.graph.name = model.graph.name
    for field in GRAPH_FIELDS:
        getattr(copy.graph, field).extend(getattr(model.graph, field))
    return copy


def without_large_tensors(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its large initializers as inputs of their type and shape: what a checker needs of them.

    Raises:
        AnatomyError: an initializer does not hold as many bytes as its shape takes.
    """
    small = without_initializers(model)
    inputs = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        held = tensor_bytes(tensor) if is_external(tensor) else len(tensor.raw_data)
        if held <= INLINE_BYTES and not is_external(tensor):
            small.graph.initializer.append(tensor)
            continue
        if held != tensor_bytes(tensor):
            raise AnatomyError(f"tensor '{tensor.name}' does not hold what its shape {list(tensor.dims)} takes")
        if tensor.name not in inputs:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            small.graph.input.append(value)
    return small


class DataFile:
    """The file that holds the external tensors of a model being written: `folder / name`."""

    def __init__(self, folder: Path, name: str):
        self.path = folder / name
        self._written: dict[int, TensorProto] = {}

    def holds(self, tensor: TensorProto) -> bool:
        """Was this tensor written here?"""
        return id(tensor) in self._written

    def append(self, tensor: TensorProto, array: np.ndarray) -> None:
        """Write a contiguous array and make the tensor point to it."""
        with open(self.path, "ab") as file:
            self._begin(file, tensor)
            file.write(array.reshape(-1).view(np.uint8).data)

    def copy(self, tensor: TensorProto, folder: Path) -> None:
        """Take over an external tensor of a model in `folder`, block by block."""
        region = external_region(tensor, folder)
        left = region.length
        with open(region.path, "rb") as source, open(self.path, "ab") as target:
            self._begin(target, tensor)
            source.seek(region.offset)
            while left:
                block = source.read(min(left, COPY_BYTES))
                if not block:
                    raise AnatomyError(f"{region.path} became shorter while it was read; next step: try again")
                target.write(block)
                left -= len(block)

    def _begin(self, file: BinaryIO, tensor: TensorProto) -> None:
        """Bring the file to an aligned end, and write that place into the tensor."""
        offset = math.ceil(file.tell() / ALIGNMENT) * ALIGNMENT
        file.truncate(offset)
        file.seek(0, os.SEEK_END)
        length = tensor_bytes(tensor)
        self._written[id(tensor)] = tensor
        del tensor.external_data[:]
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.path.name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
