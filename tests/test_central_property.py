"""masked ≡ sliced ≡ reloaded ≡ ONNX ≡ ONNX-surgery, for every family, with unequal widths and non-zero biases."""

import copy
import functools
import io
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FAMILY_NAMES, tiny_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.comparison import VerificationInputs, compare_all, verification_batches
from anatomy_export.evaluation.onnx_classifier import OnnxClassifier
from anatomy_export.evaluation.torch_classifier import torch_forward
from anatomy_export.exporter.torch_to_onnx import export_onnx
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.models.prune import mask_neurons_, slice_neurons
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan, identity_plan
from anatomy_export.plan_files.repair_file import LayerRepair, Repair, read_repair
from anatomy_export.surgery.cut import slice_onnx
from anatomy_export.surgery.model import OnnxModel

WIDTH, LAYERS = 24, 3
ONNX_SEED = 11
TEXTS = (
    "the film is good",
    "awful",
    "a very bad story and awful acting but never a plot",
    "I walked out of cinema",
)
keeps = st.lists(st.sets(st.integers(0, WIDTH - 1), min_size=1, max_size=WIDTH - 1), min_size=LAYERS, max_size=LAYERS)


def repair_for(model, plan: PrunePlan, seed: int) -> Repair:
    """W2 and b2 that are neither the model's nor zero."""
    generator = np.random.default_rng(seed)
    hidden = model_blocks(model)[0].up_weight.shape[1]
    return Repair(
        tuple(
            LayerRepair(
                generator.normal(0, 0.3, size=(kept, hidden)).astype(np.float32),
                generator.normal(0, 0.2, size=hidden).astype(np.float32),
            )
            for kept in plan.kept_widths
        )
    )


def plan_for(model, keep) -> PrunePlan:
    layers = tuple(LayerPlan(index, WIDTH, tuple(sorted(kept))) for index, kept in enumerate(keep))
    return PrunePlan(model_fingerprint(model), layers, criterion="random")


@functools.cache
def dense_onnx_of(family: str, seed: int) -> bytes:
    """The fused export of a dense model, which surgery then cuts."""
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(tiny_checkpoint(family, seed=seed), Path(folder) / "model.onnx", metadata={})
        return (Path(folder) / "model.onnx").read_bytes()


def forwards(
    checkpoint: Checkpoint, plan: PrunePlan, folder: Path, *, onnx: bool, fuse="ort", repair=None, dense_onnx=None
):
    masked = copy.deepcopy(checkpoint.model)
    mask_neurons_(masked, plan, repair)
    if repair is not None:
        repair.save(folder)
        repair = read_repair(plan, folder)
    sliced = Checkpoint(slice_neurons(checkpoint.model, plan, repair), checkpoint.tokenizer)
    save_checkpoint(sliced, folder / "checkpoint")
    reloaded = load_checkpoint(str(folder / "checkpoint"))
    others = {"sliced": torch_forward(sliced.model), "reloaded": torch_forward(reloaded.model)}
    if onnx:
        export_onnx(sliced, folder / "model.onnx", fuse=fuse, metadata={})
        others["onnx"] = OnnxClassifier(folder / "model.onnx", checkpoint.tokenizer, 32).run
    if dense_onnx is not None:
        (folder / "dense.onnx").write_bytes(dense_onnx)
        progress = Progress(Console(file=io.StringIO()))
        slice_onnx(OnnxModel(folder / "dense.onnx"), plan, repair, folder / "cut.onnx", progress=progress)
        others["onnx-surgery"] = OnnxClassifier(folder / "cut.onnx", checkpoint.tokenizer, 32).run
    return torch_forward(masked), others


def check(checkpoint, plan, **options):
    with tempfile.TemporaryDirectory() as folder:
        masked, others = forwards(checkpoint, plan, Path(folder), **options)
        batches = verification_batches(checkpoint.tokenizer, TEXTS, 32)
        inputs = VerificationInputs(tuple(batches))
        found = {name: inputs.logits(forward) for name, forward in others.items()}
        comparisons = compare_all("masked", inputs.logits(masked), found, inputs.shapes)
        assert len(comparisons) == len(batches) * len(others)
        assert all(one.passed for one in comparisons), [one for one in comparisons if not one.passed]
        return masked, batches


@pytest.mark.parametrize("family", FAMILY_NAMES)
@settings(max_examples=12, deadline=None)
@given(keep=keeps, seed=st.integers(0, 1000))
def test_masked_sliced_reloaded(family, keep, seed):
    checkpoint = tiny_checkpoint(family, seed=seed)
    masked, batches = check(checkpoint, plan_for(checkpoint.model, keep), onnx=False)
    dense = torch_forward(checkpoint.model)
    assert max(np.abs(dense(batch) - masked(batch)).max() for batch in batches) > 1e-6, "pruning changed nothing"


@pytest.mark.parametrize("family", FAMILY_NAMES)
@settings(max_examples=6, deadline=None)
@given(keep=keeps, seed=st.integers(0, 1000))
def test_repaired_masked_sliced_reloaded(family, keep, seed):
    checkpoint = tiny_checkpoint(family, seed=seed)
    plan = plan_for(checkpoint.model, keep)
    repair = repair_for(checkpoint.model, plan, seed)
    masked, batches = check(checkpoint, replace(plan, repair=repair.entry()), onnx=False, repair=repair)
    bare = torch_forward(slice_neurons(checkpoint.model, plan))
    assert max(np.abs(bare(batch) - masked(batch)).max() for batch in batches) > 1e-6, "the repair changed nothing"


@pytest.mark.parametrize("family", FAMILY_NAMES)
@settings(max_examples=2, deadline=None)
@given(keep=keeps, seed=st.integers(0, 1000))
def test_masked_sliced_reloaded_onnx(family, keep, seed):
    checkpoint = tiny_checkpoint(family, seed=seed)
    check(checkpoint, plan_for(checkpoint.model, keep), onnx=True, fuse="none")


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_repaired_masked_sliced_reloaded_fused_onnx(family):
    checkpoint = tiny_checkpoint(family, seed=ONNX_SEED)
    generator = np.random.default_rng(len(family))
    keep = [set(generator.choice(WIDTH, size=size, replace=False).tolist()) for size in (3, 17, 8)]
    plan = plan_for(checkpoint.model, keep)
    repair = repair_for(checkpoint.model, plan, ONNX_SEED)
    check(checkpoint, replace(plan, repair=repair.entry()), onnx=True, repair=repair)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@settings(max_examples=6, deadline=None)
@given(keep=keeps, repaired=st.booleans())
def test_masked_sliced_reloaded_onnx_surgery(family, keep, repaired):
    checkpoint = tiny_checkpoint(family, seed=ONNX_SEED)
    plan = plan_for(checkpoint.model, keep)
    repair = repair_for(checkpoint.model, plan, ONNX_SEED) if repaired else None
    plan = replace(plan, repair=repair and repair.entry())
    check(checkpoint, plan, onnx=False, repair=repair, dense_onnx=dense_onnx_of(family, ONNX_SEED))


def test_keeping_all_is_the_identity(family_name):
    checkpoint = tiny_checkpoint(family_name)
    sliced = slice_neurons(checkpoint.model, identity_plan(model_fingerprint(checkpoint.model), [WIDTH] * LAYERS))
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(tensor, sliced.state_dict()[name]), name


def test_recorded_widths_move_with_the_weights(family_name):
    checkpoint = tiny_checkpoint(family_name)
    sliced = slice_neurons(checkpoint.model, plan_for(checkpoint.model, [{0, 5}, {1}, {2, 3, 4}]))
    blocks = model_blocks(sliced)
    assert [block.width for block in blocks] == [2, 1, 3]
    recorded = [
        (
            getattr(block.up, "out_features", None) or block.up.nf,
            getattr(block.down, "in_features", None) or block.down.nx,
        )
        for block in blocks
    ]
    assert recorded == [(2, 2), (1, 1), (3, 3)]
    assert [block.width for block in model_blocks(checkpoint.model)] == [WIDTH] * LAYERS
