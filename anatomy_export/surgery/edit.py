"""Give nodes of an ONNX graph smaller constants, then drop what no node uses any more."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto

from anatomy_export.core.onnx_tensors import (
    FIRST_IR_WITH_FREE_INITIALIZERS,
    DataFile,
    is_external,
    parts,
    stored_dtype,
)
from anatomy_export.surgery.graph import SMALL, Constant, Graph, Use, set_nodes_

DATA_FIELDS = (
    "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data", "raw_data", "external_data",
)  # fmt: skip


class Editor:
    """Changes a model in place; constants that came from an external file go to `data`."""

    def __init__(self, model: onnx.ModelProto, graph: Graph, data: DataFile):
        self.model, self.graph, self.data = model, graph, data
        self.shapes: dict[str, list[ValueInfoProto]] = defaultdict(list)
        for value in (*graph.proto.input, *graph.proto.output, *graph.proto.value_info):
            self.shapes[value.name].append(value)
        self.names = {*graph.initializers, *graph.producer, *self.shapes, *graph.captured}
        self.let_go: set[str] = set()
        self.small: dict[tuple, str] = {}
        self.before: dict[int, list[NodeProto]] = {}
        self.after: dict[int, NodeProto] = {}

    def replace_(self, uses: Sequence[Use], array: np.ndarray) -> None:
        """Put `array`, stored once, at inputs of nodes, which take it in the type that they took before; others see no
        change. Where that was cast from the array's type, it still is."""
        names = [self.graph.value_at(use) for use in uses]
        constant = self.graph.constant(names[0])
        name = self._store(names, array)
        if constant is not None and self._keeps_type(constant, array):
            inner, name = name, self._unique(name)
            cast = onnx.helper.make_node("Cast", [inner], [name], self._unique("Cast"), to=constant.data_type)
            self.before.setdefault(min(use.node for use in uses), []).append(cast)
        for use in uses:
            self.graph.nodes[use.node].input[use.input] = name

    @staticmethod
    def _keeps_type(constant: Constant, array: np.ndarray) -> bool:
        stored = constant.tensor.data_type
        return constant.cast not in (None, stored) and array.dtype == stored_dtype(stored)

    def replace_size_(self, reshape: int, use: Use, array: np.ndarray) -> None:
        """The same for the size that a Reshape takes, itself or through a Concat that others may share."""
        if use.node == reshape:
            self.replace_([use], array)
            return
        node, concat = self.graph.nodes[reshape], self.graph.nodes[use.node]
        copy = NodeProto()
        copy.CopyFrom(concat)
        copy.name = self._unique(concat.name or concat.output[0])
        copy.output[0] = self._unique(concat.output[0])
        copy.input[use.input] = self._store([concat.input[use.input]], array, shared=True)
        self.let_go.add(node.input[1])
        node.input[1] = copy.output[0]
        self.before.setdefault(reshape, []).append(copy)

    def add_after_(self, indices: Sequence[int], array: np.ndarray, data_type: int) -> None:
        """Add an array to what nodes give; those who use it see the sum."""
        first = self.graph.nodes[indices[0]].output[0]
        tensor = self._new_tensor(f"{first}_bias", data_type, array.shape)
        self._write(tensor, array, external=False)
        for index in indices:
            node = self.graph.nodes[index]
            name = node.output[0]
            node.output[0] = self._unique(name)
            self.after[index] = onnx.helper.make_node("Add", [node.output[0], tensor.name], [name], self._unique("Add"))

    def _new_tensor(self, name: str, data_type: int, shape: tuple[int, ...]) -> TensorProto:
        proto = self.graph.proto
        tensor = proto.initializer.add(name=self._unique(name), data_type=data_type)
        if self.model.ir_version < FIRST_IR_WITH_FREE_INITIALIZERS:
            proto.input.append(onnx.helper.make_tensor_value_info(tensor.name, data_type, list(shape)))
        return tensor

    def _store(self, names: Sequence[str], array: np.ndarray, shared: bool = False) -> str:
        """Keep `array` under the first of `names`, one for each use, where no other node uses that; else under a new
        one, which is that of an equal small array in the place of the same name."""
        graph, name = self.graph, names[0]
        constant = graph.constant(name)
        external = constant is not None and is_external(constant.tensor)
        data_type: int = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        if constant is not None:
            data_type = constant.tensor.data_type if self._keeps_type(constant, array) else constant.data_type
        alone = len(graph.uses[name]) == names.count(name) and not graph.escapes(name)
        if alone and name in graph.initializers and not shared:
            tensor = graph.initializers[name]
            self.let_go |= {*names} - {name}
        else:
            self.let_go |= {*names}
            key = (name, array.dtype, array.shape, array.tobytes()) if array.size <= SMALL else None
            if key in self.small:
                return self.small[key]
            tensor = self._new_tensor(name, data_type, array.shape)
            if key is not None:
                self.small[key] = tensor.name
        self._write(tensor, array, external)
        return tensor.name

    def _write(self, tensor: TensorProto, array: np.ndarray, external: bool) -> None:
        content = np.ascontiguousarray(array, dtype=stored_dtype(tensor.data_type))
        for field in DATA_FIELDS:
            tensor.ClearField(field)
        del tensor.dims[:]
        tensor.dims.extend(content.shape)
        if external:
            self.data.append(tensor, content)
        else:
            tensor.ClearField("data_location")
            tensor.raw_data = content.tobytes()
        self._set_shape(tensor.name, content.shape)

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        for value in self.shapes[name]:
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape
                del dims.dim[:]
                for size in shape:
                    dims.dim.add(dim_value=size)

    def narrow_(self, name: str, axis: int, width: int, narrower: int) -> None:
        """Correct the recorded shapes of a value, where there are any; a size that is not its width becomes unknown."""
        for value in self.shapes[name]:
            dims = value.type.tensor_type.shape.dim
            if len(dims) >= -axis and dims[axis].HasField("dim_value"):
                known = dims[axis].dim_value == width
                dims[axis].Clear()
                if known:
                    dims[axis].dim_value = narrower

    def _unique(self, name: str) -> str:
        free = next(free for count in range(len(self.names) + 1) if (free := f"{name}_cut{count}") not in self.names)
        self.names.add(free)
        return free

    def finish_(self) -> None:
        """Put new nodes in their places and drop constants, and what only led to them, that no node uses any more."""
        proto = self.graph.proto
        nodes = []
        for index, node in enumerate(self.graph.nodes):
            nodes += [*self.before.get(index, ()), node, *([self.after[index]] if index in self.after else [])]
        gone, dropped = self._unused(nodes)
        kept = [node for node in nodes if id(node) not in gone]
        if len(kept) != len(self.graph.nodes) or self.before or self.after:
            set_nodes_(proto, kept)
        for field in (proto.initializer, proto.value_info, proto.input):
            for index in reversed(range(len(field))):
                if field[index].name in dropped:
                    del field[index]

    def _unused(self, nodes: list[NodeProto]) -> tuple[set[int], set[str]]:
        """Nodes (by identity) and names that nothing leads to any more, among those that were let go."""
        uses = Counter(name for node in nodes for name in node.input)
        gone: set[int] = set()
        dropped: set[str] = set()
        left = list(self.let_go)
        while left:
            name = left.pop()
            maker = self.graph.maker(name)
            names = [name] if maker is None else [output for output in maker.output if output]
            if name in dropped or any(uses[output] or self.graph.escapes(output) for output in names):
                continue
            if maker is not None:
                gone.add(id(maker))
                uses.subtract(maker.input)
                left += [entry for entry in maker.input if entry]
            elif name not in self.graph.initializers:
                continue
            dropped.update(names)
        return gone, dropped

    def save(self, path: Path, folder: Path) -> None:
        """Write the model to `path`, and the external tensors that are not yet in `data` from those in `folder`."""
        for tensor in parts(self.model, TensorProto):
            if is_external(tensor) and not self.data.holds(tensor):
                self.data.copy(tensor, folder)
        path.write_bytes(self.model.SerializeToString())
