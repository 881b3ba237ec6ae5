"""repair.safetensors: exact, tied to its plan, refused where it is not the one."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny_checkpoint

from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.models.prune import mask_neurons_, slice_neurons
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan, read_plan
from anatomy_export.plan_files.repair_file import REPAIR_FILE, LayerRepair, Repair, read_repair


def repair(seed: int = 0, widths=(3, 5)) -> Repair:
    generator = np.random.default_rng(seed)
    layers = [generator.normal(size=(width + 1, 4)).astype(np.float32) for width in widths]
    return Repair(tuple(LayerRepair(one[:-1], one[-1]) for one in layers))


def plan(repair_entry=None, widths=(3, 5)) -> PrunePlan:
    layers = tuple(LayerPlan(index, 8, tuple(range(width))) for index, width in enumerate(widths))
    return PrunePlan("f" * 64, layers, "obs", repair=repair_entry)


def test_round_trip(tmp_path):
    made = repair()
    made.save(tmp_path)
    (tmp_path / "plan.json").write_text(plan(made.entry()).to_json())
    read = read_repair(read_plan(tmp_path / "plan.json"), tmp_path)
    for found, expected in zip(read.layers, made.layers, strict=True):
        np.testing.assert_array_equal(found.down_weight, expected.down_weight)
        np.testing.assert_array_equal(found.down_bias, expected.down_bias)
    assert read.sha256 == made.sha256 != repair(1).sha256
    assert read_repair(plan(), tmp_path) is None


def test_another_file_is_refused(tmp_path):
    repair(1).save(tmp_path)
    with pytest.raises(AnatomyError, match="SHA-256 is"):
        read_repair(plan(repair(0).entry()), tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(AnatomyError, match="the plan is void without it"):
        read_repair(plan(repair().entry()), tmp_path)


def test_a_path_for_a_name_is_refused(tmp_path):
    with pytest.raises(AnatomyError, match="expected a plain file name"):
        read_repair(plan({"file": f"../{REPAIR_FILE}", "sha256": "0"}), tmp_path)


def test_other_rows_are_refused(tmp_path):
    made = repair(widths=(3, 4))
    made.save(tmp_path)
    with pytest.raises(AnatomyError, match=r"the plan keeps \[3, 5\]"):
        read_repair(plan(made.entry()), tmp_path)


@pytest.mark.parametrize("apply", [mask_neurons_, slice_neurons])
def test_a_plan_and_its_repair_go_together(apply):
    model = tiny_checkpoint("bert").model
    layers = tuple(LayerPlan(index, 24, (0, 1)) for index in range(3))
    bare = PrunePlan(model_fingerprint(model), layers, "obs")
    made = Repair(tuple(LayerRepair(np.ones((2, 16), np.float32), np.ones(16, np.float32)) for _ in range(3)))
    with pytest.raises(AnatomyError, match="names no repaired weights"):
        apply(model, bare, made)
    with pytest.raises(AnatomyError, match="is void without them"):
        apply(model, replace(bare, repair=made.entry()))
    with pytest.raises(AnatomyError, match="the plan expects"):
        apply(model, replace(bare, repair={**made.entry(), "sha256": "0" * 64}), made)
