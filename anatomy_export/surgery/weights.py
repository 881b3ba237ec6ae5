"""The weights of an FFN in an ONNX graph, neuron rows as (n, d) whatever the file stores."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto

from anatomy_export.core.onnx_tensors import read_floats
from anatomy_export.plans.repair import LayerRepair
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
        return all(one.weight.tensor.data_type == TensorProto.FLOAT for one in (self.ffn.up, self.ffn.down))

    @property
    def has_scales(self) -> bool:
        """Does it hold values of one for each neuron that are neither of its matrices nor its bias?"""
        return bool(self.ffn.constants.keys() - {self.ffn.up_bias})

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
        ffn = self.ffn
        yield self._cut_product(editor, lambda place: place.up, keep, axis=0 if ffn.up.flipped else 1)
        yield self._cut_constants(editor, keep)
        if repair is None:
            yield self._cut_product(editor, lambda place: place.down, keep, axis=1 if ffn.down.flipped else 0)
        else:
            stored = repair.down_weight.T if ffn.down.flipped else repair.down_weight
            self._put(editor, lambda place: place.down, stored)
            self._put_down_bias(editor, repair.down_bias)
            yield repair.down_weight
        for place in ffn.places:
            for reshape, use in place.shapes.items():
                sizes = self.graph.array(self.graph.nodes[use.node].input[use.input])
                if sizes is None:
                    raise KeyError(use)
                editor.replace_size_(reshape, use, np.array([*sizes[:-1], len(keep)], np.int64))
            for name, axis in place.inner.items():
                editor.narrow_(name, axis, ffn.width, len(keep))

    def _cut_product(
        self, editor: Editor, product: Callable[[Ffn], Product], keep: np.ndarray, axis: int
    ) -> np.ndarray:
        """Cut a stored matrix along `axis` of what is stored; gives it with the neurons as rows."""
        cut = np.take(read_floats(product(self.ffn).weight.tensor, self.folder), keep, axis=axis)
        self._put(editor, product, cut)
        return cut if axis == 0 else cut.T

    def _put(self, editor: Editor, product: Callable[[Ffn], Product], stored: np.ndarray) -> None:
        uses = [product(place).weight_use for place in self.ffn.places]
        editor.replace_(uses, stored.T if product(self.ffn).weight.flipped else stored)

    def _cut_constants(self, editor: Editor, keep: np.ndarray) -> np.ndarray:
        """Cut every stored value of one for each neuron; gives b1, (k,)."""
        bias = np.zeros(len(keep), np.float32)
        for uses in zip(*(place.constants for place in self.ffn.places), strict=True):
            cut = np.take(self._vector(uses[0]), keep, axis=self.ffn.constants[uses[0]])
            editor.replace_(uses, cut)
            if uses[0] == self.ffn.up_bias:
                bias = cut.reshape(len(keep))
        return bias

    def shaped_down_bias(self, bias: np.ndarray) -> np.ndarray:
        """A bias of the second product (d,) in the shape that the graph adds it in, or could where it adds none."""
        if self.ffn.down_bias is not None:
            return bias.reshape(self._vector(self.ffn.down_bias).shape)
        return bias.reshape(-1, *[1] * (-self.ffn.down.out_axis - 1))

    def _put_down_bias(self, editor: Editor, bias: np.ndarray) -> None:
        uses = [place.down_bias for place in self.ffn.places if place.down_bias is not None]
        if uses:
            editor.replace_(uses, self.shaped_down_bias(bias))
            return
        down = self.ffn.down
        nodes = [place.down.node for place in self.ffn.places]
        editor.add_after_(nodes, self.shaped_down_bias(bias), down.weight.data_type)
