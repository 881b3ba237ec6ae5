"""Graphs of tiny models, exported once for all tests and processes: dynamo takes seconds for each.

What a graph depends on is its key, weights included, and each run of the tests begins with none, so that a test gets
what its own export would give.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from anatomy_export.exporter import torch_to_onnx
from anatomy_export.models.checkpoint import Checkpoint

FOLDER = "ANATOMY_TEST_GRAPHS"
NOT_OF_THE_GRAPH = ("_name_or_path", "transformers_version", "architectures")
export_anew = torch_to_onnx._export_dynamo


@contextmanager
def graphs_kept(folder: Path) -> Iterator[None]:
    """Inside, graphs are taken from `folder` where they are there, and left there where they were not.

    Processes that are started inside find the folder in their environment (`graphs_of_environment`).
    """
    os.environ[FOLDER] = str(folder)
    torch_to_onnx._export_dynamo = _kept(folder)
    try:
        yield
    finally:
        torch_to_onnx._export_dynamo = export_anew
        del os.environ[FOLDER]


def graphs_of_environment() -> None:
    """In a started process: take graphs from where its parent keeps them."""
    if FOLDER in os.environ:
        torch_to_onnx._export_dynamo = _kept(Path(os.environ[FOLDER]))


def _kept(folder: Path) -> Callable[[Checkpoint, str], ir.Model]:
    def export(checkpoint: Checkpoint, fuse: str) -> ir.Model:
        path = folder / f"{_key(checkpoint, fuse)}.onnx"
        if not path.exists():
            made = path.with_suffix(f".{uuid.uuid4().hex}")
            ir.save(export_anew(checkpoint, fuse), made)
            made.rename(path)
        return ir.load(path)

    return export


def _key(checkpoint: Checkpoint, fuse: str) -> str:
    model = checkpoint.model
    config = {name: value for name, value in model.config.to_dict().items() if name not in NOT_OF_THE_GRAPH}
    digest = hashlib.sha256(json.dumps([config, torch_to_onnx.graph_inputs(checkpoint), fuse], default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
