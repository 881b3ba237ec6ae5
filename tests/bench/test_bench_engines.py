"""The engines give the same logits, on every path that a GPU-less machine can take."""

import os
import statistics
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from conftest import tiny_checkpoint
from fixed_work import serve_fixed_work

from anatomy_export.bench import placement
from anatomy_export.bench.engines import EngineSpec, build_engine, fused_for, require_engines
from anatomy_export.bench.measure import why_not
from anatomy_export.bench.rounds import WorkerPool
from anatomy_export.core.errors import AnatomyError, MissingExtraError, ProviderError
from anatomy_export.evaluation.torch_classifier import torch_forward
from anatomy_export.exporter.torch_to_onnx import export_onnx
from anatomy_export.models.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """What the engines read of a bundle: the graph in standard operators, and the checkpoint."""
    folder = tmp_path_factory.mktemp("engines")
    checkpoint = tiny_checkpoint("bert")
    export_onnx(checkpoint, folder / "model.onnx", fuse="none", metadata={})
    save_checkpoint(checkpoint, folder / "checkpoint")
    (folder / "bundle.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    ids = np.array([[1, 5, 6, 7, 2], [1, 9, 2, 0, 0]])
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}


def answers(specs: dict[str, EngineSpec], inputs) -> WorkerPool:
    """Two calls of each engine in a worker of its own, for engines set what holds for a whole process."""
    with WorkerPool(specs) as pool:
        pool.give_inputs({"k": inputs})
        pool.time_rounds("k", repeats=2, seed=0, give_logits=True)
    assert pool.samples.failures == {}
    return pool


def test_every_engine_gives_torchs_logits(bundle, inputs):
    engines = ["torch", "ort"]
    engines += ["torch-compile"] if which("g++") else []
    engines += ["openvino"] if find_spec("openvino") else []
    pool = answers({engine: EngineSpec(engine, str(bundle)) for engine in engines}, inputs)
    expected = torch_forward(tiny_checkpoint("bert").model)(inputs)
    for engine in engines:
        np.testing.assert_allclose(pool.samples.logits[engine, "k"], expected, atol=1e-5, err_msg=engine)
    assert pool.facts["ort"]["placement"]["CPUExecutionProvider"]["MatMul"] > 0


def test_bound_inputs_and_outputs_run_and_give_nothing_back(bundle, inputs):
    pool = answers({engine: EngineSpec(engine, str(bundle), copies=False) for engine in ("torch", "ort")}, inputs)
    assert len(pool.samples.times("torch", "k")) == len(pool.samples.times("ort", "k")) == 2
    assert pool.samples.logits == {}


def test_roofline_engines_say_their_flops_and_run(inputs):
    pool = answers({library: EngineSpec(f"roofline-{library}") for library in ("torch", "ort")}, inputs)
    assert {facts["flops"] for facts in pool.facts.values()} == {2 * 1024 * 768 * 3072}
    assert why_not("ort", "cpu") is None


def test_the_harness_adds_little_to_a_call_of_ten_milliseconds():
    added = []
    with WorkerPool({"fixed-work": EngineSpec("fixed-work")}, target=serve_fixed_work) as pool:
        pool.warm_up(["call"])
        for _ in range(30):
            pool.time_rounds("call", repeats=1, seed=0, give_logits=True)
            _, second = pool.samples.logits["fixed-work", "call"][0]
            added.append(pool.samples.times("fixed-work", "call")[-1] / second - 2)
    assert -0.05 < statistics.median(added) < 0.05


def test_standard_operators_for_engines_that_know_no_others():
    assert fused_for("openvino", "cpu") == fused_for("ort", "tensorrt") == "none"
    assert fused_for("ort", "cuda") == "ort"


def test_a_missing_library_is_named_before_any_work(monkeypatch):
    monkeypatch.setattr("anatomy_export.bench.engines.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"openvino is not installed; .*\.\[openvino\]"):
        require_engines(["openvino"])


class _FallenBack:
    """ONNX Runtime when CUDA is listed but does not start: a warning, and a session on the CPU."""

    __version__ = "1.0"

    class SessionOptions:
        def add_session_config_entry(self, name, value):
            pass

    class InferenceSession:
        def __init__(self, model, options, providers):
            os.write(2, b"EP Error: Failed to create CUDAExecutionProvider with error: libcudart.so.13 is missing\n")

        def get_providers(self):
            return ["CPUExecutionProvider"]

    @staticmethod
    def get_available_providers():
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_a_provider_that_is_listed_but_did_not_start_is_an_error_with_its_cause(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", _FallenBack)
    with pytest.raises(ProviderError, match=r"did not start on this machine: libcudart\.so\.13 is missing.*next step"):
        placement.provider_session(b"", "a model", "CUDAExecutionProvider", threads=1)


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(AnatomyError, match="ONNX Runtime cannot load"):
        build_engine(EngineSpec("ort", str(tmp_path)))
