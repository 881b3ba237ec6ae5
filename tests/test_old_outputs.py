"""What version 0.1 wrote is read: bundles, plans, anatomies, studies, sweeps and times."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from conftest import run, saved_dense, tiny_checkpoint

from anatomy_export.bundle.manifest import read_bundle_manifest
from anatomy_export.core.resumable import PARETO, STUDY, ResultFile
from anatomy_export.evaluation.classifier_inputs import unpadded_inputs
from anatomy_export.evaluation.torch_classifier import torch_forward
from anatomy_export.jobs.pareto import MeasuredWay
from anatomy_export.jobs.study import MeasuredSetup
from anatomy_export.models.checkpoint import load_checkpoint
from anatomy_export.plan_files.plan import read_plan

OLD = Path(__file__).parent / "fixtures" / "v0.1"
BUNDLES, PLANS = ("bundle", "bundle-int8"), ("plan-thresholds.json", "bundle/plan.json", "bundle-int8/plan.json")


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_verifies_and_classifies(name):
    done = run("verify", OLD / name, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["passed"] and report["left_over"] == []
    reference = read_bundle_manifest(OLD / name).references[0]
    command = [sys.executable, OLD / name / "classify.py", reference.text]
    label, _, _ = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\t")
    assert label == f"LABEL_{int(np.argmax(reference.logits))}"


def test_a_bundle_is_timed_where_there_is_no_torch(tmp_path):
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'pandas')))\n"
    code = blocked + "from anatomy_export.cli import main\nif __name__ == '__main__':\n    main()\n"
    (tmp_path / "bench.py").write_text(code)
    shape = ["--batch", "1", "--seq-len", "8", "--repeats", "2", "--threads", "1"]
    command = [sys.executable, tmp_path / "bench.py", "bench", "--bundle", OLD / "bundle", "--backend", "ort", *shape]
    command += ["--output", tmp_path / "out", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["engine"] for row in json.loads(done.stdout)["results"]] == ["ort"]


@pytest.mark.skipif(transformers.__version__ < "5", reason="transformers 4 loads no tokenizer that 5 saved")
def test_a_sliced_checkpoint_gives_the_recorded_logits():
    forward = torch_forward(load_checkpoint(str(OLD / "bundle" / "checkpoint")).model)
    manifest = read_bundle_manifest(OLD / "bundle")
    for reference in manifest.references:
        inputs = unpadded_inputs(reference.input_ids)
        del inputs["position_ids"]
        np.testing.assert_allclose(forward(inputs)[0], reference.logits, atol=manifest.reference_tolerance)


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_shown_and_written_as_it_was(name):
    done = run("plan", "show", OLD / name)
    assert done.exit_code == 0, done.output
    assert read_plan(OLD / name).to_json() == (OLD / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["plan-thresholds.json", "bundle/plan.json"])
def test_a_plan_prunes_the_model_that_it_was_made_for(name, tmp_path):
    model = saved_dense(tiny_checkpoint("bert", layers=2), tmp_path / "tiny-bert")
    done = run("export", "--model", model, "--plan", OLD / name, "--fuse", "none", "--output", tmp_path / "made")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "made" / "plan.json").read_bytes() == (OLD / name).read_bytes()


def test_a_plan_of_another_model_is_refused(bert_directory, tmp_path):
    done = run("export", "--model", bert_directory, "--plan", OLD / PLANS[0], "--output", tmp_path / "made")
    assert done.exit_code == 1 and "plan has 2 layers but this model has 3" in done.stderr


def test_a_model_is_cut_by_ratio(tmp_path):
    done = run("slice-onnx", OLD / "bundle" / "model.onnx", "--keep-ratio", "0.5", "--align", "1", "-o", tmp_path / "o")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "o").is_file()


def test_a_report_of_everything(tmp_path):
    folders = [OLD / name for name in ("anatomy", "study", "bundle", "pareto", "bench")]
    done = run("report", *folders, "--output", tmp_path / "report")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "kind", "entries", "entry"),
    [("study/" + STUDY, "study", "setups", MeasuredSetup), ("pareto/" + PARETO, "pareto", "results", MeasuredWay)],
)
def test_an_interrupted_run_of_the_same_settings_goes_on(name, kind, entries, entry):
    body = json.loads((OLD / name).read_text(encoding="utf-8"))
    assert ResultFile(OLD / name, kind, entries, entry).earlier(body["settings"]) == body
