"""A torch module that is called at several places, as towers or as ALBERT's layers: cut once in what torch writes."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_onnx_forms import cut_by_ratio
from torch import nn

HIDDEN, WIDTH = 8, 32


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(HIDDEN, WIDTH), nn.Linear(WIDTH, HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x):
        return self.norm(x + self.down(nn.functional.gelu(self.up(x))))


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, a, b):
        for block in self.blocks:
            a, b = block(a), block(b)
        return nn.functional.cosine_similarity(a[:, 0], b[:, 0])


class OneLayerOften(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block()])

    def forward(self, a, b):
        x = a + b
        for _ in range(4):
            x = self.blocks[0](x)
        return x


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("module", [Towers, OneLayerOften])
def test_a_module_that_is_called_often_is_cut_once(module, folded, criterion, tmp_path):
    torch.manual_seed(0)
    model = module().eval()
    a, b = torch.randn(2, 1, 5, HIDDEN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (a, b),
            str(tmp_path / "torch.onnx"),
            dynamo=False,
            opset_version=17,
            do_constant_folding=folded,
            input_names=["a", "b"],
        )
    out, keep = cut_by_ratio(onnx.load(tmp_path / "torch.onnx"), tmp_path, criterion=criterion)
    assert [len(kept) for kept in keep] == [WIDTH // 2] * len(model.blocks)
    matrices = [tensor for tensor in out.graph.initializer if WIDTH // 2 in tensor.dims and len(tensor.dims) == 2]
    assert len(matrices) == 2 * len(model.blocks)
    with torch.no_grad():
        dense = model(a, b).numpy()
        for block, kept in zip(model.blocks, keep, strict=True):
            block.down.weight[:, sorted(set(range(WIDTH)) - set(kept))] = 0
        masked = model(a, b).numpy()
    session = onnxruntime.InferenceSession(out.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"a": a.numpy(), "b": b.numpy()})[0] == pytest.approx(masked, abs=1e-5)
    assert np.abs(dense - masked).max() > 0.01, "pruning changed nothing"
