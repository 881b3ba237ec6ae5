"""`anatomy study`: the setups, what is measured of each, and how a run goes on."""

import json
import os
import signal
import time

import numpy as np
import pytest
from conftest import files_that_tell, refused, run, saved_dense, spawn, tiny_checkpoint

from anatomy_export.bench import masked_seconds as masked
from anatomy_export.bench.engines import onnx_file
from anatomy_export.bench.measure import ONE_INPUT
from anatomy_export.bench.rounds import Samples
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import load_dataset
from anatomy_export.data.probes import BUILT_IN_PROBES
from anatomy_export.evaluation.metrics import wilson_interval
from anatomy_export.evaluation.torch_classifier import class_probabilities
from anatomy_export.models.prune import slice_neurons
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.rule import threshold_plan
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.paper.study_setups import StudySetup, kept_sha256, random_plan, study_setups
from anatomy_export.paper.thresholds import preset_setup


def anatomy_of(widths: tuple[int, ...], strong: tuple[tuple[int, ...], ...]) -> Anatomy:
    similarity = tuple(np.zeros((1, width)) for width in widths)
    for values, own in zip(similarity, strong, strict=True):
        values[0, list(own)] = 0.9
    return Anatomy(np.full((1, len(widths) + 1), 0.5), similarity, 0.35, ("a",), "f" * 64)


def test_wilson_interval():
    assert wilson_interval(90, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert wilson_interval(5, 5) == pytest.approx((0.5655, 1.0), abs=1e-4)
    low, high = wilson_interval(0, 7)
    assert low == 0 and 0 < high < 1


def test_setups_of_both_rules():
    names = [setup.name for setup in study_setups("gpt2", (0, 3), (0.1,))]
    assert names[:7] == [f"gpt2-{number}" for number in range(1, 8)]
    assert names[7:9] == ["random-gpt2-1-seed-0", "random-gpt2-1-seed-3"]
    assert names[-2:] == ["random-0.1-seed-0", "random-0.1-seed-3"] and len(names) == 7 + 14 + 2
    assert len(study_setups("bert", (0, 1, 2, 3, 4), (0.1, 0.3, 0.5, 0.7))) == 9 + 45 + 20


def test_random_removal_is_even_seeded_nested_and_leaves_strong_neurons():
    anatomy = anatomy_of((40, 40, 10), ((1, 7), tuple(range(39)), ()))
    plan = random_plan(anatomy, 9, seed=0)
    assert [width - kept for width, kept in zip(plan.widths, plan.kept_widths, strict=True)] == [4, 1, 4]
    assert {1, 7} <= set(plan.layers[0].keep) and set(range(39)) <= set(plan.layers[1].keep)
    more = random_plan(anatomy, 30, seed=0)
    assert more.removed == 30
    for fewer_gone, more_gone in zip(plan.layers, more.layers, strict=True):
        assert set(more_gone.keep) <= set(fewer_gone.keep)
    assert kept_sha256(plan) == kept_sha256(random_plan(anatomy, 9, seed=0))
    assert kept_sha256(plan) != kept_sha256(random_plan(anatomy, 9, seed=1))
    assert random_plan(anatomy, 38 + 1 + 9, seed=0).kept_widths == [2, 39, 1]
    with pytest.raises(AnatomyError, match="49 neurons cannot go at random: only 48 of 90"):
        random_plan(anatomy, 49, seed=0)


def test_a_random_plan_matches_its_preset():
    anatomy = score_anatomy(tiny_checkpoint("bert"), BUILT_IN_PROBES, max_length=64)
    for number in range(1, 10):
        preset = StudySetup(preset=f"bert-{number}").plan(anatomy, "bert")
        assert preset == threshold_plan(anatomy, rule="bert", setup=preset_setup(f"bert-{number}", "bert", 3))
        assert StudySetup(matches=f"bert-{number}", seed=1).plan(anatomy, "bert").removed == preset.removed
    assert StudySetup(share=0.3, seed=1).plan(anatomy, "bert").removed == round(0.3 * 72)


def study(model, data, output, *more):
    seeds = () if "--seeds" in more else ("--seeds", "0,1")
    return run("study", "--model", model, "--data", data, "--output", output, *seeds, "--removed", "0.1,0.5", *more)


@pytest.fixture
def tested(bert_directory, data_file, tmp_path):
    """A finished study: its model, data, directory and content."""
    done = study(bert_directory, data_file, tmp_path / "s", "--json")
    assert done.exit_code == 0, done.stderr
    return bert_directory, data_file, tmp_path / "s", json.loads(done.stdout)


def test_study_measures_masked_models(tested):
    _, data, output, body = tested
    assert body == json.loads((output / "study.json").read_text())
    assert (body["format_version"], body["kind"], body["partial"]) == (1, "study", False)
    assert body["settings"]["model"] == "tiny-bert" and files_that_tell(output, output.parent) == []
    assert sorted(path.name for path in output.iterdir()) == ["anatomy.json", "anatomy.npz", "study.json"]
    assert len(body["setups"]) == 9 + 18 + 4
    checkpoint, texts = tiny_checkpoint("bert"), load_dataset(str(data)).test
    labels = np.array(texts.labels)
    dense = class_probabilities(checkpoint, checkpoint.model, texts.texts, 66)
    assert body["dense"]["accuracy"] == (dense.argmax(1) == labels).mean() and body["dense"]["examples"] == len(texts)
    anatomy = score_anatomy(checkpoint, BUILT_IN_PROBES, max_length=66)
    for name, setup in (
        ("bert-9", StudySetup(preset="bert-9")),
        ("random-0.5-seed-1", StudySetup(share=0.5, seed=1)),
    ):
        one, plan = body["setups"][name], setup.plan(anatomy, "bert")
        own = class_probabilities(checkpoint, slice_neurons(checkpoint.model, plan), texts.texts, 66)
        assert one["removed"] == plan.removed == sum(one["removed_per_layer"]) > 0
        assert one["accuracy"] == (own.argmax(1) == labels).mean()
        assert one["agreement"] == (own.argmax(1) == dense.argmax(1)).mean()
        assert one["mean_abs_delta"] == pytest.approx(np.abs(own - dense).mean(), abs=1e-6) and one["seconds"] is None
        right = np.unpackbits(np.frombuffer(bytes.fromhex(one["right"]), np.uint8))[: len(texts)]
        assert one["interval"] == list(wilson_interval(int(right.sum()), len(texts)))
        np.testing.assert_array_equal(right, own.argmax(1) == labels)
    nine, rival = body["setups"]["bert-9"], body["setups"]["random-bert-9-seed-1"]
    assert (nine["alpha"], nine["beta"], nine["kind"], nine["focus"]) == (0.08, 0.005, "anatomy", [2])
    assert [one["rule"] for one in nine["thresholds"]] == ["absolute", "absolute", "one-sided"]
    assert (rival["kind"], rival["matches"], rival["seed"], rival["thresholds"]) == ("random", "bert-9", 1, None)
    assert rival["removed"] == nine["removed"]


def test_study_goes_on_where_it_was(tested, monkeypatch):
    model, data, output, body = tested
    half = {**body, "partial": True, "setups": dict(list(body["setups"].items())[:20])}
    half["setups"]["bert-2"] = {**half["setups"]["bert-2"], "accuracy": 0.123}
    (output / "study.json").write_text(json.dumps(half))
    done = study(model, data, output)
    assert done.exit_code == 0 and "random 50 %" in done.stdout and "dense " in done.stdout, done.stderr
    after = json.loads((output / "study.json").read_text())
    assert after["setups"].pop("bert-2")["accuracy"] == 0.123, "not run again"
    expected = dict(body["setups"])
    del expected["bert-2"]
    assert after["setups"] == expected and not after["partial"]
    monkeypatch.setattr("anatomy_export.jobs.study.encoded_probabilities", None)
    assert study(model, data, output).exit_code == 0, "nothing is left to run"


def test_equal_plans_are_evaluated_once(bert_directory, data_file, tmp_path, monkeypatch):
    from anatomy_export.jobs import study as module

    calls = []
    monkeypatch.setattr(module, "_masked", lambda model, plan: calls.append(kept_sha256(plan)) or model)
    done = study(bert_directory, data_file, tmp_path / "s", "--json")
    assert done.exit_code == 0, done.stderr
    kept = {one["kept_sha256"] for one in json.loads(done.stdout)["setups"].values()}
    assert len(calls) == len(set(calls)) <= len(kept) < 31


def other_model(model, data, output):
    saved_dense(tiny_checkpoint("bert", seed=1), model)
    return study(model, data, output)


def sibling(model, data, output):
    other = tiny_checkpoint("bert")
    other.model.classifier.bias.data[0] += 1
    saved_dense(other, model)
    return study(model, data, output)


def changed(**fields):
    def change(model, data, output):
        body = json.loads((output / "study.json").read_text())
        (output / "study.json").write_text(json.dumps({**body, **fields}))
        return study(model, data, output)

    return change


def cut_off(model, data, output):
    file = output / "study.json"
    file.write_text(file.read_text()[:-200])
    return study(model, data, output)


def entry_without_accuracy(model, data, output):
    body = json.loads((output / "study.json").read_text())
    del body["setups"]["bert-3"]["accuracy"]
    (output / "study.json").write_text(json.dumps(body))
    return study(model, data, output)


REFUSED = {
    "half-written": (cut_off, "not valid JSON, so damaged or half-written"),
    "entry damaged": (
        entry_without_accuracy,
        "study.json, bert-3: a field is missing or of the wrong kind: $ lacks accuracy",
    ),
    "no study": (changed(setups=3), "$.setups is 3, expected object"),
    "version": (changed(format_version=2), "format version 2, expected 1"),
    "kind": (changed(kind="pareto"), "a result of anatomy pareto, not of anatomy study"),
    "another model": (other_model, "made with another model ("),
    "same FFNs": (sibling, "made with other settings (weights_sha256: "),
    "other seeds": (lambda *where: study(*where, "--seeds", "0"), "made with other settings (seeds: [0, 1] there, [0]"),
    "other texts": (lambda *where: study(*where, "--eval-examples", "3"), "made with other settings (examples: 12 th"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_output_of_another_run_is_refused(case, tested):
    model, data, output, _ = tested
    refuse, message = REFUSED[case]
    done = refuse(model, data, output)
    before = (output / "study.json").read_bytes()
    assert done.exit_code == 1 and done.stdout == "", done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and message in errors[0] and "; next step: choose another --output" in errors[0]
    assert (output / "study.json").read_bytes() == before


def test_a_score_does_not_replace_a_study(tested):
    model, _, output, _ = tested
    done = run("score", "--model", model, "--output", output, "--force")
    assert done.exit_code == 1 and "holds a study; next step" in done.stderr
    assert (output / "study.json").is_file()


def test_study_needs_labelled_text(bert_directory, tmp_path):
    done = run("study", "--model", bert_directory, "--output", tmp_path / "s")
    refused(done, tmp_path / "s", 1, "needs labelled text; next step: pass --data")
    refused(run("study", "--model", bert_directory, "--output", tmp_path / "s", "--seeds", "-1"), tmp_path / "s", 2)


def test_setups_that_the_model_does_not_allow_are_refused_one_by_one(bert_directory, data_file, tmp_path):
    done = study(bert_directory, data_file, tmp_path / "s", "--strong-threshold", "0", "--json")
    assert done.exit_code == 0, done.stderr
    body = json.loads(done.stdout)
    found = body["setups"]["random-0.5-seed-0"]
    assert "cannot go at random" in found["refused"] and "accuracy" not in found
    assert "accuracy" in body["setups"]["bert-1"]
    assert study(bert_directory, data_file, tmp_path / "s", "--strong-threshold", "0").exit_code == 0


def test_masked_models_are_timed_beside_the_dense_one(monkeypatch):
    monkeypatch.setattr(masked, "ROUNDS", 10)
    monkeypatch.setattr(masked, "BATCH", 2)
    checkpoint = tiny_checkpoint("gpt2")
    plan = random_plan(score_anatomy(checkpoint, BUILT_IN_PROBES, max_length=64), 30, seed=0)
    [found] = masked.time_masked(checkpoint, {"a": plan}, ("the film is good",), progress=Progress())
    assert list(found) == ["dense", "a"]
    one = found["a"]
    assert (one["engine"], one["examples"], one["batch"], one["seq_len"]) == ("torch", 1000, 2, 64)
    assert one["median_s"] == pytest.approx(500 * np.median(one["times_s"])) and len(one["times_s"]) == 10
    assert one["interval_s"][0] <= one["median_s"] <= one["interval_s"][1]
    low, high = one["dense_ratio_interval"]
    assert low <= one["dense_ratio"] <= high and found["dense"]["dense_ratio"] == 1
    assert getattr(checkpoint.model.config, "anatomy_ffn_widths", None) is None, "the model itself is left alone"


def measured_as(seconds: dict[str, float]):
    """What `measure_one_input` would give, without workers; it sees to it that there is a model to load."""

    def measure(specs, inputs, **options):
        for spec in specs.values():
            assert onnx_file(spec.model).is_file()
        rounds = [{name: seconds[name] for name in specs}] * 12
        return Samples(rounds={ONE_INPUT: rounds}, launches={ONE_INPUT: [0] * 12})

    return measure


def test_groups_of_masked_onnx_models(monkeypatch):
    monkeypatch.setattr(masked, "GROUP", 1)
    monkeypatch.setattr(masked, "measure_one_input", measured_as({"dense": 0.4, "a": 0.4, "b": 0.2}))
    monkeypatch.setattr(masked, "export_onnx", lambda checkpoint, path, metadata: path.write_bytes(b"onnx"))
    checkpoint = tiny_checkpoint("bert")
    plan = random_plan(score_anatomy(checkpoint, BUILT_IN_PROBES, max_length=64), 30, seed=0)
    options = {"backend": "ort", "progress": Progress()}
    first, second = masked.time_masked(checkpoint, {"a": plan, "b": plan}, ("the film is good",), **options)
    assert (list(first), list(second)) == (["dense", "a"], ["dense", "b"])
    assert first["a"]["median_s"] == pytest.approx(0.4 * 1000 / 32) and second["b"]["dense_ratio"] == pytest.approx(2)


def test_latency_is_added_to_a_study(tested, monkeypatch):
    model, data, output, body = tested
    seen = []

    def timed(checkpoint, plans, texts, *, backend, progress):
        seen.extend(plans)
        for name in plans:
            yield {one: {"median_s": 1.0, "dense_ratio": 1.0} for one in ("dense", name)}

    monkeypatch.setattr(masked, "time_masked", timed)
    done = study(model, data, output, "--latency", "--json")
    assert done.exit_code == 0, done.stderr
    after = json.loads(done.stdout)
    expected = [*(f"bert-{n}" for n in range(1, 10)), "random-0.1-seed-0", "random-0.5-seed-0"]
    assert seen == [name for name, one in after["setups"].items() if one["seconds"]] == expected
    assert after["settings"]["latency"] and not body["settings"]["latency"]
    assert after["dense"]["seconds"]["median_s"] == 1
    again = study(model, data, output, "--json")
    assert json.loads(again.stdout)["setups"] == after["setups"], again.stderr
    assert len(seen) == len(expected) and json.loads(again.stdout)["settings"]["latency"]


def test_an_interrupted_study_goes_on(bert_directory, tmp_path):
    data = tmp_path / "many.csv"
    data.write_text("text,label\n" + "".join(f"the film is good {n},{n % 2}\n" for n in range(600)))
    arguments = ["study", "--model", bert_directory, "--data", data, "--output", tmp_path / "s", "--seeds", "0"]
    process = spawn(*arguments, "--removed", "0.1,0.5")
    deadline = time.monotonic() + 240
    while not (tmp_path / "s" / "study.json").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 130 and output == "", errors
    assert "interrupted; the same command goes on from what" in errors and "Traceback" not in errors
    partial = json.loads((tmp_path / "s" / "study.json").read_text())
    assert partial["partial"] and len(partial["setups"]) < 20
    done = run(*arguments, "--removed", "0.1,0.5", "--json")
    assert done.exit_code == 0 and len(json.loads(done.stdout)["setups"]) == 20


def test_a_study_does_not_write_over_a_score(bert_directory, data_file, tmp_path):
    assert run("score", "--model", bert_directory, "--output", tmp_path / "s").exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    result = run("study", "--model", bert_directory, "--data", data_file, "--output", tmp_path / "s", "--seeds", "0")
    assert result.exit_code == 1 and "holds other files; next step: choose another --output" in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before
