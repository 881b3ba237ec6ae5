"""Tensors on disk come back as they were, in any order; a full disk is one clear line."""

import errno

import pytest
import torch

from anatomy_export.calibration.spill import SpilledTensors
from anatomy_export.core.errors import AnatomyError


def test_tensors_come_back_in_any_order():
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for shape in ((2, 3, 4), (1, 5), (7,))]
    spilled = SpilledTensors()
    for tensor in tensors:
        spilled.append(tensor)
        assert torch.equal(spilled[0], tensors[0]), "reading between writes moves nothing"
    for index in (2, 0, 1):
        assert torch.equal(spilled[index], tensors[index])


def test_a_transposed_tensor_comes_back_as_it_looks():
    spilled = SpilledTensors()
    spilled.append(torch.arange(6.0).reshape(2, 3).T)
    assert torch.equal(spilled[0], torch.arange(6.0).reshape(2, 3).T)


def test_a_full_disk_is_said(monkeypatch):
    spilled = SpilledTensors()

    class Full:
        def seek(self, place):
            return place

        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spilled, "_file", Full())
    with pytest.raises(AnatomyError, match="No space left on device after 0 MB; next step: set TMPDIR"):
        spilled.append(torch.zeros(3))
