"""The weights of an FFN in an ONNX graph, neuron rows as (n, d) whatever the file stores."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto

from anatomy_export.core.onnx_tensors import read_floats
from anatomy_export.plan_files.repair_file import LayerRepair
from anatomy_export.surgery.edit import Editor
from anatomy_export.surgery.ffn import Ffn
from anatomy_export.surgery.graph import Graph, Use
from anatomy_export.surgery.product import Product


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
        return f"{self.ffn.found_as}, {len(self.ffn.places)} times" if self.ffn.twins else self.ffn.found_as

    @property
    def is_float32(self) -> bool:
        return all(product.weight.tensor.data_type == TensorProto.FLOAT for product in (self.ffn.up, self.ffn.down))

    @property
    def has_scales(self) -> bool:
        """Does it hold values of one for each neuron that are neither of its matrices nor its bias?"""
        return bool(self.ffn.constants.keys() - {self.ffn.up_bias})

    def weights(self) -> Iterator[np.ndarray]:
        """W1 (n, d), b1 (n,), W2 (n, d), read one after the other; b1 is zeros where the graph adds none."""
        yield self._rows(self.ffn.up)
        bias = self.ffn.up_bias
        yield np.zeros(self.width, np.float32) if bias is None else self._stored(bias).reshape(self.width)
        yield self.down_weight()

    def down_weight(self) -> np.ndarray:
        """W2, (n, d)."""
        return self._rows(self.ffn.down)

    def _rows(self, product: Product) -> np.ndarray:
        """(n, d) the matrix of a product."""
        stored = read_floats(product.weight.tensor, self.folder)
        return stored.T if self._neuron_axis(product) else stored

    def _neuron_axis(self, product: Product) -> int:
        """The axis of a matrix, as it is stored, that the neurons are on."""
        return int(product.flipped == (product is self.ffn.down))

    def _stored(self, use: Use) -> np.ndarray:
        """What a node's input holds, as the node sees it."""
        constant = self.graph.constant_at(use)
        if constant is None:
            raise KeyError(use)
        array = read_floats(constant.tensor, self.folder)
        return array.T if constant.flipped else array

    def cut_(self, editor: Editor, keep: np.ndarray, repair: LayerRepair | None) -> Iterator[np.ndarray]:
        """Leave the neurons `keep` (k,) in the graph; gives the W1 (k, d), b1 (k,), W2 (k, d) that it then has."""
        ffn = self.ffn
        yield self._put(editor, "up", self._kept_rows(ffn.up, keep))
        yield self._cut_constants(editor, keep)
        if repair is None:
            yield self._put(editor, "down", self._kept_rows(ffn.down, keep))
        else:
            yield self._put(editor, "down", repair.down_weight)
            self._put_down_bias(editor, repair.down_bias)
        for place in ffn.places:
            for reshape, use in place.shapes.items():
                sizes = self.graph.array(self.graph.value_at(use))
                if sizes is None:
                    raise KeyError(use)
                editor.replace_size_(reshape, use, np.array([*sizes[:-1], len(keep)], np.int64))
            for name, axis in place.inner.items():
                editor.narrow_(name, axis, ffn.width, len(keep))

    def _kept_rows(self, product: Product, keep: np.ndarray) -> np.ndarray:
        """(k, d) the rows of some neurons; cut as they are stored, so that no whole matrix is copied."""
        axis = self._neuron_axis(product)
        kept = np.take(read_floats(product.weight.tensor, self.folder), keep, axis=axis)
        return kept.T if axis else kept

    def _put(self, editor: Editor, end: str, rows: np.ndarray) -> np.ndarray:
        """Store the rows (k, d) of the product `end`, "up" or "down", at all places; gives them back."""
        product: Product = getattr(self.ffn, end)
        transposed = bool(self._neuron_axis(product)) != product.weight.flipped
        uses = [getattr(place, end).weight_use for place in self.ffn.places]
        editor.replace_(uses, rows.T if transposed else rows)
        return rows

    def _cut_constants(self, editor: Editor, keep: np.ndarray) -> np.ndarray:
        """Cut every stored value of one for each neuron; gives b1, (k,)."""
        bias = np.zeros(len(keep), np.float32)
        for uses in zip(*(place.constants for place in self.ffn.places), strict=True):
            cut = np.take(self._stored(uses[0]), keep, axis=self.ffn.constants[uses[0]])
            editor.replace_(uses, cut)
            if uses[0] == self.ffn.up_bias:
                bias = cut.reshape(len(keep))
        return bias

    def shaped_down_bias(self, bias: np.ndarray) -> np.ndarray:
        """A bias of the second product (d,) in the shape that the graph adds it in, or could where it adds none."""
        if self.ffn.down_bias is not None:
            return bias.reshape(self._stored(self.ffn.down_bias).shape)
        return bias.reshape(-1, *[1] * (-self.ffn.down.out_axis - 1))

    def _put_down_bias(self, editor: Editor, bias: np.ndarray) -> None:
        uses = [place.down_bias for place in self.ffn.places if place.down_bias is not None]
        if uses:
            editor.replace_(uses, self.shaped_down_bias(bias))
            return
        nodes = [place.down.node for place in self.ffn.places]
        editor.add_after_(nodes, self.shaped_down_bias(bias), self.ffn.down.weight.data_type)
