"""The weights of an FFN in an ONNX graph, neuron rows as (n, d) whatever the file stores."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto

from anatomy_export.exporter.onnx_edit import Editor
from anatomy_export.exporter.onnx_ffn import Ffn, Product
from anatomy_export.exporter.onnx_graph import Graph, Use
from anatomy_export.exporter.onnx_tensors import read_floats
from anatomy_export.exporter.repair import LayerRepair


@dataclass(frozen=True)
class OnnxFfn:
    """An FFN of `graph`, its external tensors in `folder`."""

    graph: Graph
    ffn: Ffn
    folder: Path

    @property
    def width(self) -> int:
        return self.ffn.width

    @property
    def hidden(self) -> int:
        return self.ffn.hidden

    @property
    def found_as(self) -> str:
        return self.ffn.found_as

    @property
    def is_float32(self) -> bool:
        return all(one.weight.tensor.data_type == TensorProto.FLOAT for one in (self.ffn.up, self.ffn.down))

    def weights(self) -> Iterator[np.ndarray]:
        """W1 (n, d), b1 (n,), W2 (n, d), read one after the other."""
        up, down = self.ffn.up, self.ffn.down
        stored = read_floats(up.weight.tensor, self.folder)
        yield stored if up.flipped else stored.T
        del stored
        yield self._up_bias()
        stored = read_floats(down.weight.tensor, self.folder)
        yield stored.T if down.flipped else stored

    def down_weight(self) -> np.ndarray:
        """W2, (n, d)."""
        stored = read_floats(self.ffn.down.weight.tensor, self.folder)
        return stored.T if self.ffn.down.flipped else stored

    def _up_bias(self) -> np.ndarray:
        """b1, (n,); zeros where the graph adds none."""
        if self.ffn.up_bias is None:
            return np.zeros(self.width, np.float32)
        return self._vector(self.ffn.up_bias).reshape(self.width)

    def _vector(self, use: Use) -> np.ndarray:
        constant = self.graph.constant(self.graph.nodes[use.node].input[use.input])
        if constant is None:
            raise KeyError(use)
        array = read_floats(constant.tensor, self.folder)
        return array.T if constant.flipped else array

    def cut_(self, editor: Editor, keep: np.ndarray, repair: LayerRepair | None) -> Iterator[np.ndarray]:
        """Leave the neurons `keep` (k,) in the graph; gives the W1 (k, d), b1 (k,), W2 (k, d) that it then has."""
        ffn, count = self.ffn, len(keep)
        yield self._cut_product(editor, ffn.up, keep, axis=0 if ffn.up.flipped else 1)
        yield self._cut_bias(editor, keep)
        if repair is None:
            yield self._cut_product(editor, ffn.down, keep, axis=1 if ffn.down.flipped else 0)
        else:
            self._put(editor, ffn.down, repair.down_weight.T if ffn.down.flipped else repair.down_weight)
            self._put_down_bias(editor, repair.down_bias)
            yield repair.down_weight
        for reshape, use in ffn.shapes.items():
            sizes = self.graph.array(self.graph.nodes[use.node].input[use.input])
            if sizes is None:
                raise KeyError(use)
            editor.replace_size_(reshape, use, np.array([*sizes[:-1], count], np.int64))
        for name, axis in ffn.inner.items():
            editor.narrow_(name, axis, count)

    def _cut_product(self, editor: Editor, product: Product, keep: np.ndarray, axis: int) -> np.ndarray:
        """Cut a stored matrix along `axis` of what is stored; gives it with the neurons as rows."""
        cut = np.take(read_floats(product.weight.tensor, self.folder), keep, axis=axis)
        self._put(editor, product, cut)
        return cut if axis == 0 else cut.T

    def _put(self, editor: Editor, product: Product, stored: np.ndarray) -> None:
        editor.replace_(Use(product.node, 1), stored.T if product.weight.flipped else stored)

    def _cut_bias(self, editor: Editor, keep: np.ndarray) -> np.ndarray:
        if self.ffn.up_bias is None:
            return np.zeros(len(keep), np.float32)
        array = self._vector(self.ffn.up_bias)
        axis = array.shape.index(self.width) if self.width > 1 else 0
        cut = np.take(array, keep, axis=axis)
        editor.replace_(self.ffn.up_bias, cut)
        return cut.reshape(len(keep))

    def _put_down_bias(self, editor: Editor, bias: np.ndarray) -> None:
        use = self.ffn.down_bias
        if use is None:
            editor.add_after_(self.ffn.down.node, bias, self.ffn.down.weight.data_type)
        else:
            editor.replace_(use, bias.reshape(self._vector(use).shape))
