"""Plans: what they keep, how they travel, and what is refused."""

import json

import numpy as np
import pytest

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.json_files import checksum
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.rule import ratio_plan, threshold_plan
from anatomy_export.paper.thresholds import ThresholdSetup
from anatomy_export.plan_files.plan import identity_plan, read_plan

SETUP = ThresholdSetup(0.2, 0.01, (3,))


def anatomy(seed: int = 0, strong_threshold: float = 0.35) -> Anatomy:
    generator = np.random.default_rng(seed)
    return Anatomy(
        layer_similarity=generator.uniform(0.2, 1, size=(2, 5)),
        neuron_similarity=tuple(generator.uniform(-0.4, 0.4, size=(2, 40)) for _ in range(4)),
        strong_threshold=strong_threshold,
        probes=("one", "two"),
        fingerprint="f" * 64,
    )


def test_threshold_plan_is_the_rule_with_the_strong_protected():
    source = anatomy()
    plan = threshold_plan(source, rule="bert", setup=SETUP)
    similarity = source.neuron_similarity[0].mean(axis=0)
    below = np.abs(similarity) < 0.2 * source.layer_similarity[:, 0].mean()
    strong = (source.neuron_similarity[0] > 0.35).any(axis=0)
    assert (below & strong).any(), "the test needs a strong neuron below the threshold"
    assert plan.layers[0].keep == tuple(np.flatnonzero(~below | strong))
    last = source.neuron_similarity[3].mean(axis=0)
    assert plan.layers[3].rule == "one-sided"
    kept = (last >= 3 * 0.2 * source.layer_similarity[:, 3].mean()) | (source.neuron_similarity[3] > 0.35).any(axis=0)
    assert plan.layers[3].keep == tuple(np.flatnonzero(kept))


def test_ratio_plan_keeps_the_best():
    source = anatomy(strong_threshold=0.99)
    plan = ratio_plan(source, rule="bert", setup=SETUP, keep_ratio=0.25)
    assert plan.kept_widths == [10] * 4
    ranked = np.argsort(-np.abs(source.neuron_similarity[1].mean(axis=0)))
    assert set(plan.layers[1].keep) == set(ranked[:10])
    signed = np.argsort(-source.neuron_similarity[3].mean(axis=0))
    assert set(plan.layers[3].keep) == set(signed[:10])


@pytest.mark.parametrize(("align", "widths"), [(8, [16] * 4), (64, [40] * 4)])
def test_align_rounds_up_by_keeping_the_best_of_the_pruned(align, widths):
    source = anatomy(strong_threshold=0.99)
    plain = ratio_plan(source, rule="bert", setup=SETUP, keep_ratio=0.25)
    plan = ratio_plan(source, rule="bert", setup=SETUP, keep_ratio=0.25, align=align)
    assert plan.kept_widths == widths
    assert all(set(few.keep) <= set(more.keep) for few, more in zip(plain.layers, plan.layers, strict=True))


def test_protection_without_room_is_an_error():
    with pytest.raises(AnatomyError, match=r"layer 0: \d+ strong neurons are protected but a keep ratio of 0.05"):
        ratio_plan(anatomy(strong_threshold=0.1), rule="bert", setup=SETUP, keep_ratio=0.05)


def test_thresholds_that_empty_a_layer_are_an_error():
    with pytest.raises(AnatomyError, match="would remove all 40 neurons; next step: lower --alpha"):
        threshold_plan(anatomy(strong_threshold=0.99), rule="bert", setup=ThresholdSetup(50, 0, ()))


@pytest.mark.parametrize("ratio", [0, -1, 1.01])
def test_keep_ratio_out_of_range(ratio):
    with pytest.raises(AnatomyError, match="expected more than 0 and at most 1"):
        ratio_plan(anatomy(), rule="bert", setup=SETUP, keep_ratio=ratio)


def test_probe_reduction_first_differs_from_mean():
    first = ratio_plan(anatomy(), rule="bert", setup=SETUP, keep_ratio=0.5, probe_reduction="first")
    assert first.layers != ratio_plan(anatomy(), rule="bert", setup=SETUP, keep_ratio=0.5).layers


def test_round_trip(tmp_path):
    plan = threshold_plan(anatomy(), rule="bert", setup=SETUP, align=4)
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    assert read_plan(path) == plan
    assert json.loads(plan.to_json())["layers"][0]["width"] == 40


def test_keep_everything_is_the_identity():
    assert ratio_plan(anatomy(), rule="bert", setup=SETUP, keep_ratio=1).removed == 0
    assert identity_plan("f", [3, 5]).kept_widths == [3, 5]


BAD = {
    "version": (lambda body: body.update(format_version=2), "format version 2, expected 1"),
    "checksum": (lambda body: body["parameters"].update(alpha=9), "checksum"),
    "emptied": (lambda body: body["layers"][1].update(keep=[]), "layer 1: plan keeps no neuron"),
    "unsorted": (
        lambda body: body["layers"][0].update(keep=[3, 1]),
        "layer 0: plan is not sorted at neuron 1",
    ),
    "duplicated": (lambda body: body["layers"][0].update(keep=[3, 3]), "layer 0: plan repeats neuron 3"),
    "range": (
        lambda body: body["layers"][2].update(keep=[40]),
        r"keeps neuron 40 but this FFN has 40 \(valid 0–39\)",
    ),
    "boolean": (
        lambda body: body["layers"][2].update(keep=[True]),
        r"layers\[2\]\.keep\[0\] is True, expected int",
    ),
    "width": (lambda body: body["layers"][2].update(width="40"), r"\$\.layers\[2\]\.width is '40', expected int"),
    "order": (lambda body: body["layers"].reverse(), "entry 0 of 'layers' is not layer 0"),
    "layers": (lambda body: body.update(layers=7), r"\$\.layers is 7, expected array"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_plans_are_refused(tmp_path, name):
    change, message = BAD[name]
    body = json.loads(threshold_plan(anatomy(), rule="bert", setup=SETUP).to_json())
    change(body)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(body))
    with pytest.raises(AnatomyError, match=message):
        read_plan(path)


@pytest.mark.parametrize("field", ["criterion", "parameters", "repair", "layers"])
def test_missing_field_with_a_right_checksum(field, tmp_path):
    body = json.loads(threshold_plan(anatomy(), rule="bert", setup=SETUP).to_json())
    del body["checksum"]
    (body["layers"][1] if field == "layers" else body).pop("rule" if field == "layers" else field)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**body, "checksum": checksum(body)}))
    with pytest.raises(AnatomyError, match="a field is missing"):
        read_plan(path)


@pytest.mark.parametrize("text", ['{"layers": [', "", "[]"])
def test_truncated_plans_are_refused(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(AnatomyError, match=r"not valid JSON|holds a list of 0, expected an object"):
        read_plan(path)


def test_plan_of_another_model():
    plan = identity_plan("a" * 64, [4, 4])
    with pytest.raises(AnatomyError, match="plan was made for the model aaaaaaaaaaaa…"):
        plan.check_model("b" * 64, [4, 4])
    with pytest.raises(AnatomyError, match="layer 1: plan expects an FFN of 4 neurons, this one has 5"):
        plan.check_model("a" * 64, [4, 5])
    with pytest.raises(AnatomyError, match="plan has 2 layers but this model has 3"):
        plan.check_model("a" * 64, [4, 4, 4])
