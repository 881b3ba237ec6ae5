"""Every activation that a transformers config can name, as torch writes it to ONNX: cut to what masking computes."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_onnx_forms import cut_by_ratio
from test_onnx_surgery import quiet
from torch import nn
from transformers.activations import ACT2FN

from anatomy_export.core.errors import AnatomyError
from anatomy_export.jobs.slice_onnx import SliceRequest, run_slice

HIDDEN, WIDTH = 6, 10
NAMES = sorted(set(ACT2FN) - {"linear"})
NOT_IN_TORCHSCRIPT = {"xielu"}
WITH_TORCHSCRIPT = [(name, 14) for name in NAMES if name not in NOT_IN_TORCHSCRIPT]
WITH_DYNAMO = [pytest.param(name, 20, marks=[] if name == "xielu" else pytest.mark.slow) for name in NAMES]


class Block(nn.Module):
    """An FFN and its residual."""

    def __init__(self, activation: str):
        super().__init__()
        self.up, self.down = nn.Linear(HIDDEN, WIDTH), nn.Linear(WIDTH, HIDDEN)
        self.activation = ACT2FN[activation]

    def forward(self, x):
        return x + self.down(self.activation(self.up(x)))


def exported(activation: str, opset: int, path) -> Block:
    torch.manual_seed(0)
    block = Block(activation).eval().float()
    dims = {0: "batch", 1: "tokens"}
    options = {"dynamo": False, "dynamic_axes": {"x": dims}}
    if opset >= 18:
        sizes = {axis: torch.export.Dim(name) for axis, name in dims.items()}
        options = {"dynamo": True, "dynamic_shapes": (sizes,), "external_data": False, "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            block,
            (torch.randn(2, 5, HIDDEN),),
            str(path),
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            **options,
        )
    return block


@pytest.mark.parametrize(("activation", "opset"), [*WITH_TORCHSCRIPT, ("gelu", 17), *WITH_DYNAMO])
def test_every_activation_of_transformers(activation, opset, tmp_path):
    block = exported(activation, opset, tmp_path / "torch.onnx")
    out, keep = cut_by_ratio(onnx.load(tmp_path / "torch.onnx"), tmp_path)
    x = torch.randn(1, 7, HIDDEN, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        dense = block(x).numpy()
        removed = sorted(set(range(WIDTH)) - set(keep[0]))
        block.down.weight[:, removed] = 0
        masked = block(x).numpy()
    session = onnxruntime.InferenceSession(out.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": x.numpy()})[0] == pytest.approx(masked, abs=1e-5)
    assert np.abs(dense - masked).max() > 0.01, "pruning changed nothing"


def test_no_activation_is_named(tmp_path):
    exported("linear", 14, tmp_path / "m.onnx")
    request = SliceRequest(tmp_path / "m.onnx", tmp_path / "o.onnx", keep_ratio=0.5)
    with pytest.raises(AnatomyError, match=r"Not cut: layer 0 \(.*\): no activation stands between its products"):
        run_slice(request, quiet())
