"""What real exporters write, cut by a plan that torch made: the logits of the sliced torch model."""

import functools
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from conftest import FAMILY_NAMES, run, tiny_checkpoint
from test_central_property import TEXTS, plan_for, repair_for

from anatomy_export.evaluation.comparison import verification_batches
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier
from anatomy_export.evaluation.torch_classifier import torch_forward
from anatomy_export.exporter.torch_to_onnx import _LogitsOnly, export_onnx, graph_inputs
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.fingerprint import model_fingerprint, model_identity
from anatomy_export.models.prune import slice_neurons
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.surgery.model import OnnxModel

KEEP = ({0, 3, 7, 23}, set(range(2, 20)), {5})
TOLERANCE = 1e-5
slow = pytest.mark.slow
needs_transformers_5 = pytest.mark.skipif(
    transformers.__version__ < "5",
    reason="TorchScript cannot trace how transformers 4.57 builds GPT-2's mask",
)
needs_optimum = pytest.mark.skipif(find_spec("optimum") is None, reason="needs the optimum extra (make test-optimum)")


@functools.cache
def sensitive_checkpoint(family: str, seed: int = 0) -> Checkpoint:
    """A tiny model whose head lets every FFN neuron through to the logits."""
    checkpoint = tiny_checkpoint(family, seed=seed)
    with torch.no_grad():
        for name, parameter in checkpoint.model.named_parameters():
            if name.startswith(("classifier", "score", "pre_classifier")) or "pooler" in name:
                parameter.normal_(0, 0.7)
    return checkpoint


def export_plainly(
    checkpoint: Checkpoint, path: Path, *, dynamo: bool, opset: int, fixed: tuple[int, int] | None = None, **options
) -> None:
    """torch.onnx.export as anybody would call it, on the model as transformers built it; of a `fixed` shape or any."""
    names = graph_inputs(checkpoint)
    example = torch.full(fixed or (2, 9), 5, dtype=torch.long)
    inputs = {"input_ids": example, "attention_mask": torch.ones_like(example), "token_type_ids": example * 0}
    dims = {0: "batch", 1: "sequence"}
    if dynamo:
        sizes = {axis: torch.export.Dim(name) for axis, name in dims.items()}
        free = {} if fixed else {"dynamic_shapes": ((sizes,) * len(names),)}
        options |= {**free, "external_data": False, "verbose": False}
    else:
        checkpoint.model.set_attn_implementation("eager")
        options |= {"dynamic_axes": dict.fromkeys(names, dims)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _LogitsOnly(checkpoint.model, names).eval(),
            tuple(inputs[name] for name in names),
            str(path),
            dynamo=dynamo,
            opset_version=opset,
            input_names=names,
            output_names=["logits"],
            **options,
        )


EXPORTERS = {
    "own, fused": lambda checkpoint, path: export_onnx(checkpoint, path, fuse="ort", metadata={}),
    "own, not fused": lambda checkpoint, path: export_onnx(checkpoint, path, fuse="none", metadata={}),
    "torchscript 17": lambda checkpoint, path: export_plainly(checkpoint, path, dynamo=False, opset=17),
    "torchscript, unfolded": lambda checkpoint, path: export_plainly(
        checkpoint, path, dynamo=False, opset=17, do_constant_folding=False
    ),
    "dynamo 18": lambda checkpoint, path: export_plainly(checkpoint, path, dynamo=True, opset=18),
    "dynamo 18, not optimized": lambda checkpoint, path: export_plainly(
        checkpoint, path, dynamo=True, opset=18, optimize=False
    ),
    "dynamo 23": lambda checkpoint, path: export_plainly(checkpoint, path, dynamo=True, opset=23),
    "optimum, fused": lambda checkpoint, path: export_onnx(
        checkpoint, path, exporter="optimum", fuse="ort", metadata={}
    ),
    "optimum": lambda checkpoint, path: export_onnx(checkpoint, path, exporter="optimum", fuse="none", metadata={}),
}
QUICK = {(family, "torchscript 17") for family in FAMILY_NAMES} | {
    ("gpt2", "torchscript, unfolded"),
    ("gpt2", "dynamo 18"),
    ("bert", "dynamo 23"),
}


def cases():
    for exporter in EXPORTERS:
        for family in FAMILY_NAMES:
            marks = [needs_optimum] if "optimum" in exporter else [] if (family, exporter) in QUICK else [slow]
            if family == "gpt2" and exporter.startswith("torchscript"):
                marks = [*marks, needs_transformers_5]
            yield pytest.param(exporter, family, marks=marks)


def check_cut(model: Path, checkpoint: Checkpoint, plan, repair, folder: Path) -> None:
    recorded = model_identity(checkpoint.model).recorded_logits
    plan = replace(plan, repair=repair and repair.entry(), recorded_logits=recorded)
    folder.mkdir()
    (folder / "plan.json").write_text(plan.to_json())
    if repair is not None:
        repair.save(folder)
    result = run("slice-onnx", model, "--plan", folder / "plan.json", "-o", folder / "out.onnx")
    assert result.exit_code == 0, result.output
    assert "note: " not in result.stderr, "the logits are compared"
    onnx.checker.check_model(folder / "out.onnx", full_check=True)
    assert OnnxModel(folder / "out.onnx").widths == plan.kept_widths
    batches = verification_batches(checkpoint.tokenizer, TEXTS, 32)
    sliced = list(map(torch_forward(slice_neurons(checkpoint.model, plan, repair)), batches))
    dense = list(map(torch_forward(checkpoint.model), batches))
    of_file = list(map(OnnxClassifier(folder / "out.onnx", checkpoint.tokenizer, 32).run, batches))
    assert max(np.abs(logits - other).max() for logits, other in zip(sliced, of_file, strict=True)) <= TOLERANCE
    assert max(np.abs(logits - other).max() for logits, other in zip(sliced, dense, strict=True)) > 100 * TOLERANCE


@pytest.mark.parametrize(("exporter", "family"), cases())
def test_cut_export_is_the_sliced_torch_model(exporter, family, tmp_path):
    checkpoint = sensitive_checkpoint(family)
    EXPORTERS[exporter](checkpoint, tmp_path / "model.onnx")
    opened = OnnxModel(tmp_path / "model.onnx")
    assert opened.fingerprint() == model_fingerprint(checkpoint.model)
    assert opened.uncut() == "", "attention, pooler or head is taken for an FFN"
    plan = plan_for(checkpoint.model, KEEP)
    check_cut(tmp_path / "model.onnx", checkpoint, plan, None, tmp_path / "plain")
    check_cut(tmp_path / "model.onnx", checkpoint, plan, repair_for(checkpoint.model, plan, 1), tmp_path / "repaired")


@pytest.mark.parametrize("optimize", [True, pytest.param(False, marks=slow)])
def test_a_fixed_shape_is_cut_too(optimize, tmp_path):
    """The attention's sizes are numbers there, and none of them is the FFN's."""
    checkpoint = sensitive_checkpoint("bert")
    export_plainly(checkpoint, tmp_path / "model.onnx", dynamo=True, opset=18, fixed=(1, 16), optimize=optimize)
    plan = plan_for(checkpoint.model, KEEP)
    (tmp_path / "plan.json").write_text(plan.to_json())
    result = run("slice-onnx", tmp_path / "model.onnx", "--plan", tmp_path / "plan.json", "-o", tmp_path / "o.onnx")
    assert result.exit_code == 0, result.output
    ids = np.random.default_rng(0).integers(4, 20, (1, 16))
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids * 0}
    session = onnxruntime.InferenceSession(str(tmp_path / "o.onnx"))
    of_file = session.run(["logits"], {value.name: batch[value.name] for value in session.get_inputs()})[0]
    sliced, dense = (torch_forward(model)(batch) for model in (slice_neurons(checkpoint.model, plan), checkpoint.model))
    np.testing.assert_allclose(of_file, sliced, atol=TOLERANCE)
    assert np.abs(of_file - dense).max() > 100 * TOLERANCE


def test_biases_that_exporters_share_because_they_are_equal(tmp_path):
    """A fresh model's biases are all zero: one initializer for every layer."""
    checkpoint = sensitive_checkpoint.__wrapped__("bert")
    with torch.no_grad():
        for block in model_blocks(checkpoint.model):
            block.up_bias.zero_()
            block.down_bias.zero_()
    EXPORTERS["torchscript 17"](checkpoint, tmp_path / "model.onnx")
    plan = plan_for(checkpoint.model, KEEP)
    check_cut(tmp_path / "model.onnx", checkpoint, plan, repair_for(checkpoint.model, plan, 1), tmp_path / "repaired")


@pytest.mark.parametrize("family", ["bert", "electra", "distilbert"])
def test_heads_of_the_ffns_own_width_stay(family, tmp_path):
    """FFNs as narrow as the hidden size: nothing but the structure tells them from pooler and head."""
    checkpoint = tiny_checkpoint(family, layers=3, hidden=24)
    EXPORTERS["torchscript 17"](checkpoint, tmp_path / "model.onnx")
    check = functools.partial(check_cut, tmp_path / "model.onnx", checkpoint)
    before = onnx.load(tmp_path / "model.onnx")
    plan = plan_for(checkpoint.model, KEEP)
    with torch.no_grad():
        for name, parameter in checkpoint.model.named_parameters():
            if name.startswith("classifier"):
                parameter.normal_(0, 0.7)
    EXPORTERS["torchscript 17"](checkpoint, tmp_path / "model.onnx")
    check(plan, None, tmp_path / "plain")
    heads = [
        tensor for tensor in before.graph.initializer if any(part in tensor.name for part in ("pooler", "classifier"))
    ]
    after = {tensor.name: list(tensor.dims) for tensor in onnx.load(tmp_path / "plain" / "out.onnx").graph.initializer}
    assert heads and all(after[tensor.name] == list(tensor.dims) for tensor in heads)


WITHOUT = ("torch", "transformers", "onnxruntime", "onnxscript", "tokenizers", "datasets", "pandas", "accelerate")


def test_the_base_install_is_enough(tmp_path):
    """Packages of the extras are made unimportable; .ci/run does the same with an environment that lacks them."""
    checkpoint = sensitive_checkpoint("bert")
    EXPORTERS["torchscript 17"](checkpoint, tmp_path / "model.onnx")
    plan = plan_for(checkpoint.model, KEEP)
    repair = repair_for(checkpoint.model, plan, 1)
    (tmp_path / "plan.json").write_text(replace(plan, repair=repair.entry()).to_json())
    repair.save(tmp_path)
    code = f"import sys; sys.modules.update(dict.fromkeys({WITHOUT})); from anatomy_export.cli import main; main()"
    command = [sys.executable, "-c", code, "slice-onnx", "model.onnx", "--plan", "plan.json", "-o", "out.onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert OnnxModel(tmp_path / "out.onnx").widths == plan.kept_widths
    assert tempfile.gettempdir() not in done.stdout
