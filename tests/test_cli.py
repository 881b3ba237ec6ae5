"""The commands as a user runs them: output, exit codes, and nothing half-written."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import WORDS, tiny_checkpoint

import anatomy_export
from anatomy_export.cli import export, main
from anatomy_export.exporter.plan import read_plan


def run(*arguments: str, command=main):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    rows = [f"the {WORDS[i % 20]} film {WORDS[(i * 7) % 20]},{i % 2}" for i in range(60)]
    path = tmp_path / "data.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def refused(result, output: Path, code: int, *parts: str):
    """One line on standard error, this exit code, nothing at the output path or beside it."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in errors[0]
    assert not output.exists()
    assert not list(output.parent.glob(".*partial*"))


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


def test_existing_output_needs_force(bert_directory, tmp_path):
    output = tmp_path / "there"
    output.mkdir()
    (output / "precious.txt").write_text("mine")
    result = run("export", "--model", bert_directory, "--output", output)
    assert result.exit_code == 1
    assert "exists; next step: choose another --output, or replace it with --force" in result.stderr
    assert (output / "precious.txt").read_text() == "mine"
    assert run("export", "--model", bert_directory, "--output", output, "--force").exit_code == 0
    assert not (output / "precious.txt").exists()


@pytest.mark.parametrize("ratio", ["0", "-0.5", "1.5", "nan"])
def test_keep_ratio_is_checked_as_usage(bert_directory, tmp_path, ratio):
    result = run("export", "--model", bert_directory, "--keep-ratio", ratio, "--output", tmp_path / "o")
    assert result.exit_code == 2
    assert "is not more than 0 and at most 1" in result.stderr
    assert not (tmp_path / "o").exists()


def test_bad_models_and_data(bert_directory, tmp_path, data_file):
    output = tmp_path / "o"
    refused(run("export", "--model", tmp_path / "none", "--output", output), output, 1, "no such directory")
    refused(run("export", "--model", "some/hub-id", "--output", output), output, 1, "the hub gave nothing")
    missing = run("export", "--model", bert_directory, "--data", "no.csv", "--output", output)
    refused(missing, output, 1, "data no.csv: no such file")
    long = run("export", "--model", bert_directory, "--max-length", "500", "--output", output)
    refused(long, output, 1, "--max-length is 500, this model takes at most 66")
    focus = run("export", "--model", bert_directory, "--focus", "9", "--output", output)
    refused(focus, output, 1, "focus layer 9 does not exist")


def test_plan_of_another_model(bert_directory, tmp_path):
    other = tmp_path / "other"
    checkpoint = tiny_checkpoint("bert", seed=5)
    checkpoint.model.save_pretrained(other)
    checkpoint.tokenizer.save_pretrained(other)
    assert run("export", "--model", other, "--output", tmp_path / "p").exit_code == 0
    result = run(
        "export", "--model", bert_directory, "--plan", tmp_path / "p" / "plan.json", "--output", tmp_path / "o"
    )
    refused(result, tmp_path / "o", 1, "plan was made for the model")


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
    refused(result, tmp_path / "o", 1, "verification failed in 12 of 12 comparisons")


def test_unwritable_output(bert_directory, tmp_path):
    (tmp_path / "file").write_text("x")
    result = run("export", "--model", bert_directory, "--output", tmp_path / "file" / "o")
    assert result.exit_code == 1
    assert "cannot create" in result.stderr


def spawn(*arguments, limit: int | None = None) -> subprocess.Popen:
    def limits():
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "anatomy_export.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limits)


def test_a_full_disk_leaves_nothing(bert_directory, tmp_path):
    """A file-size limit stands in for the full disk: the write fails half-way in the same manner."""
    process = spawn("export", "--model", bert_directory, "--output", tmp_path / "out" / "o", limit=20_000)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert errors.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_leaves_nothing(bert_directory, tmp_path, number, code):
    process = spawn("export", "--model", bert_directory, "--output", tmp_path / "out" / "o")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/.o.partial-*/checkpoint")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "nothing was written" in errors
    assert not (tmp_path / "out").exists()


def test_help_has_examples_and_importing_is_light():
    assert "anatomy-export --model bert --slice" in run("export", "--help").output
    code = "import sys, anatomy_export, anatomy_export.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
