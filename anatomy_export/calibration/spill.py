"""Tensors on disk while a job runs: what all layers gave for all calibration text is more than memory should hold."""

import tempfile
from typing import Any

import numpy as np
import torch

from anatomy_export.core.errors import AnatomyError


class SpilledTensors:
    """Float32 tensors in an unnamed temporary file, which goes with this object; each comes back to its own device."""

    def __init__(self) -> None:
        self._file: Any = None
        self._places: list[tuple[int, torch.Size, torch.device]] = []
        self._end = 0

    def append(self, tensor: torch.Tensor) -> None:
        """Write one tensor at the end.

        Raises:
            AnatomyError: the disk is full.
        """
        content = tensor.detach().to("cpu", torch.float32).contiguous().numpy().data.cast("B")
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="anatomy-")  # noqa: SIM115, it is to outlive this call
            self._file.seek(self._end)
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            raise AnatomyError(
                f"calibration needs temporary disk space in {_place()}: {error.strerror} after "
                f"{self._end / 2**20:.0f} MB; next step: set TMPDIR to a larger disk, or give fewer "
                "--calibration-examples"
            ) from error
        self._places.append((self._end, tensor.shape, tensor.device))
        self._end += content.nbytes

    def __getitem__(self, index: int) -> torch.Tensor:
        place, shape, device = self._places[index]
        self._file.seek(place)
        values = np.empty(shape, dtype=np.float32)
        if self._file.readinto(values.data.cast("B")) != values.nbytes:
            raise AnatomyError("the temporary file of the calibration was cut off; next step: check the disk of TMPDIR")
        return torch.from_numpy(values).to(device)


def _place() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return "TMPDIR, which names no directory that can be written"
