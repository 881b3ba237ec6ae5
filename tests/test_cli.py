"""The commands as a user runs them: output, exit codes, and nothing half-written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import refused, run, tiny_checkpoint

import anatomy_export
from anatomy_export.cli import export
from anatomy_export.exporter.plan import read_plan


def test_export_writes_a_bundle_that_says_what_it_holds(bert_directory, data_file, tmp_path):
    output = tmp_path / "out" / "bundle"
    result = run(
        "export", "--model", bert_directory, "--data", data_file, "--keep-ratio", "0.5", "--strong-threshold", "2",
        "--output", output, "--with-checkpoint", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    measures = json.loads(result.stdout)
    assert measures["neurons"] == {"dense": 72, "pruned": 36}
    assert measures["parameters"]["dense"] - measures["parameters"]["pruned"] == 36 * 33
    assert measures["flops"]["dense"] > measures["flops"]["pruned"]
    assert 0 <= measures["accuracy"]["pruned"] <= 1
    assert measures["output"] == str(output)
    saved = measures["size_bytes"]["dense"] - measures["size_bytes"]["pruned"]
    assert abs(saved - 36 * 33 * 4) < 1500
    names = {path.name for path in output.iterdir()}
    assert {"bundle.json", "model.onnx", "config.json", "plan.json", "verify.json", "README.md", "checkpoint"} <= names
    assert read_plan(output / "plan.json").kept_widths == [12, 12, 12]
    assert anatomy_export.load(output).model.config.anatomy_ffn_widths == [12, 12, 12]
    check = [sys.executable, Path(__file__).with_name("check_outside.py"), output]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_replayed_plan_masked_equals_sliced(bert_directory, tmp_path):
    assert run("export", "--model", bert_directory, "--output", tmp_path / "s", "--alpha", "0.3").exit_code == 0
    replay = ["export", "--model", bert_directory, "--plan", tmp_path / "s" / "plan.json"]
    result = run(*replay, "--mask", "--output", tmp_path / "m")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "m" / "plan.json").read_text() == (tmp_path / "s" / "plan.json").read_text()
    sliced, masked = (json.loads((tmp_path / name / "bundle.json").read_text()) for name in "sm")
    for one, other in zip(sliced["references"], masked["references"], strict=True):
        assert one["logits"] == pytest.approx(other["logits"], abs=1e-4)
    assert masked["result"]["size_bytes"]["pruned"] > sliced["result"]["size_bytes"]["pruned"]


def test_table_and_not_available_accuracy(bert_directory, tmp_path):
    result = run("--model", bert_directory, "--dense", "--output", tmp_path / "d", command=export)
    assert result.exit_code == 0, result.stderr
    assert "FFN neurons" in result.stdout
    assert "n/a" in result.stdout
    assert f"wrote {tmp_path / 'd'}" in result.stdout.replace("\n", "")


def test_keeping_everything_is_said(bert_directory, tmp_path):
    result = run("export", "--model", bert_directory, "--keep-ratio", "1", "--output", tmp_path / "k")
    assert result.exit_code == 0, result.stderr
    assert "the plan keeps every neuron" in " ".join(result.stderr.split())


def test_plan_show(bert_directory, tmp_path):
    assert run("export", "--model", bert_directory, "--output", tmp_path / "p").exit_code == 0
    shown = run("plan", "show", tmp_path / "p" / "plan.json")
    assert shown.exit_code == 0
    assert "criterion anatomy" in shown.stdout
    assert json.loads(run("plan", "show", tmp_path / "p" / "plan.json", "--json").stdout)["format_version"] == 1


def test_finetune_gives_a_headless_model_a_head(bert_directory, data_file, tmp_path):
    headless = tmp_path / "headless"
    checkpoint = tiny_checkpoint("bert")
    checkpoint.model.bert.save_pretrained(headless)
    checkpoint.tokenizer.save_pretrained(headless)
    output = tmp_path / "tuned"
    arguments = ["--model", headless, "--data", data_file, "--output", output, "--epochs", "1", "--max-length", "32"]
    result = run("finetune", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert 0 <= json.loads(result.stdout)["accuracy"] <= 1
    tuned = anatomy_export.load(output).model.state_dict()
    assert not tuned["bert.encoder.layer.0.output.dense.weight"].equal(
        checkpoint.model.state_dict()["bert.encoder.layer.0.output.dense.weight"]
    )


def test_verification_failure_leaves_nothing(bert_directory, tmp_path, monkeypatch):
    monkeypatch.setattr("anatomy_export.exporter.pipeline.slice_neurons", lambda model, plan: model)
    result = run("export", "--model", bert_directory, "--alpha", "0.5", "--output", tmp_path / "o")
    refused(result, tmp_path / "o", 1, "verification failed in 12 of 16 comparisons")


def test_help_has_examples_and_importing_is_light():
    assert "anatomy-export --model bert --slice" in run("export", "--help").output
    code = "import sys, anatomy_export, anatomy_export.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
