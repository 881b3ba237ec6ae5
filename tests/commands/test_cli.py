"""The commands as a user runs them: output, exit codes, and nothing half-written."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import WORDS, files_that_tell, refused, run, tiny_checkpoint

import anatomy_export
from anatomy_export.cli import export
from anatomy_export.core.files import sha256_file
from anatomy_export.data.loading import load_dataset
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.plan_files.plan import identity_plan, read_plan


def test_export_writes_a_bundle_that_says_what_it_holds(bert_directory, data_file, tmp_path):
    output = tmp_path / "out" / "bundle"
    result = run(
        "export", "--model", bert_directory, "--data", data_file, "--keep-ratio", "0.5", "--preset", "bert-1",
        "--strong-threshold", "2",
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
    scored = run("score", "--model", output, "--output", tmp_path / "anatomy")
    assert scored.exit_code == 0, scored.stderr
    check = [sys.executable, Path(__file__).parents[1] / "check_outside.py", output]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_replayed_plan_masked_equals_sliced(bert_directory, tmp_path):
    assert run("export", "--model", bert_directory, "--output", tmp_path / "s", "--alpha", "0.3").exit_code == 0
    replay = ["export", "--model", bert_directory, "--plan", tmp_path / "s" / "plan.json"]
    result = run(*replay, "--mask", "--output", tmp_path / "m")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "m" / "plan.json").read_text() == (tmp_path / "s" / "plan.json").read_text()
    sliced, masked = (json.loads((tmp_path / name / "bundle.json").read_text()) for name in "sm")
    for reference, replayed in zip(sliced["references"], masked["references"], strict=True):
        assert reference["logits"] == pytest.approx(replayed["logits"], abs=1e-4)
    assert masked["result"]["size_bytes"]["pruned"] > sliced["result"]["size_bytes"]["pruned"]


def test_table_and_not_available_accuracy(bert_directory, tmp_path):
    result = run("--model", bert_directory, "--dense", "--output", tmp_path / "d", command=export)
    assert result.exit_code == 0, result.stderr
    assert "FFN neurons" in result.stdout
    assert "n/a" in result.stdout
    scored = run("score", "--model", tmp_path / "d", "--output", tmp_path / "anatomy")
    assert scored.exit_code == 1
    assert "holds no checkpoint; next step: export it again with --with-checkpoint" in scored.stderr
    assert f"wrote {tmp_path / 'd'}" in result.stdout.replace("\n", "")


def test_keeping_everything_is_said(bert_directory, tmp_path):
    result = run("export", "--model", bert_directory, "--keep-ratio", "1", "--output", tmp_path / "k")
    assert result.exit_code == 0, result.stderr
    assert "the plan keeps every neuron" in " ".join(result.stderr.split())


def test_plan_show(bert_directory, tmp_path, plan_only):
    assert run("export", "--model", bert_directory, "--preset", "bert-1", "--output", tmp_path / "p").exit_code == 0
    shown = run("plan", "show", tmp_path / "p" / "plan.json")
    assert shown.exit_code == 0
    assert "criterion anatomy" in shown.stdout
    assert json.loads(run("plan", "show", tmp_path / "p" / "plan.json", "--json").stdout)["format_version"] == 1


def test_a_directory_is_the_plan_in_it(bert_directory, tmp_path):
    widths = [24, 24, 24]
    plan = identity_plan(model_fingerprint(tiny_checkpoint("bert").model), widths)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "plan.json").write_text(plan.to_json())
    assert run("plan", "show", tmp_path / "bundle", "--json").stdout == plan.to_json()
    arguments = ["export", "--model", bert_directory, "--output", tmp_path / "o", "--plan"]
    assert run(*arguments, tmp_path / "bundle").exit_code == 0
    assert read_plan(tmp_path / "o" / "plan.json") == plan
    empty = tmp_path / "empty"
    empty.mkdir()
    for command in (["plan", "show"], [*arguments[:-2], tmp_path / "x", "--plan"]):
        refused(run(*command, empty), tmp_path / "x", 1, f"plan {empty / 'plan.json'}: No such file or directory")


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


@pytest.mark.parametrize("names", [("bad", "fine", "great"), ("0", "1", "2")])
def test_finetune_gives_a_new_head_the_classes_of_the_data(bert_directory, tmp_path, names):
    headless = tmp_path / "headless"
    checkpoint = tiny_checkpoint("bert")
    checkpoint.model.bert.save_pretrained(headless)
    checkpoint.tokenizer.save_pretrained(headless)
    rows = [f"the film is {WORDS[i % 20]},{names[i % 3]}" for i in range(60)]
    (tmp_path / "d.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    results = []
    for output in (tmp_path / "one", tmp_path / "two"):
        arguments = ["--model", headless, "--data", tmp_path / "d.csv", "--output", output, "--epochs", "0.2"]
        result = run("finetune", *arguments, "--json", "--seed", "3")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["recipe"]["max_length"] == 66
        results.append(anatomy_export.load(output).model)
    if names[0] == "bad":
        assert results[0].config.id2label == dict(enumerate(names))
    assert results[0].classifier.weight.shape[0] == 3
    assert results[0].classifier.weight.equal(results[1].classifier.weight), "the seed gives the head again"
    record = json.loads((tmp_path / "one" / "finetune.json").read_text())
    assert (record["recipe"]["seed"], record["test_examples"]) == (3, 12)
    assert (record["source"], record["data"]) == ({"source": "headless"}, "d.csv")
    assert files_that_tell(tmp_path / "one", tmp_path) == []


def test_finetune_on_names_that_a_model_with_a_head_does_not_have(bert_directory, tmp_path):
    (tmp_path / "d.csv").write_text("text,label\n" + "a good film,nice\n" * 20)
    output = tmp_path / "o"
    result = run("finetune", "--model", bert_directory, "--data", tmp_path / "d.csv", "--output", output)
    refused(result, output, 1, "label 'nice' is neither a class number from 0 nor one of the model's labels")


def test_finetune_without_a_row_to_train_on(bert_directory, tmp_path):
    (tmp_path / "d.csv").write_text("text,label,part\n" + "a good film,1,test\na bad film,0,test\n" * 5)
    output, data = tmp_path / "o", tmp_path / "d.csv"
    result = run("finetune", "--model", bert_directory, "--data", data, "--split-column", "part", "--output", output)
    refused(result, output, 1, "no row is left for the train split")


def test_a_random_head_is_the_same_one_every_time(bert_directory, tmp_path):
    headless = tmp_path / "headless"
    tiny_checkpoint("bert").model.bert.save_pretrained(headless)
    tiny_checkpoint("bert").tokenizer.save_pretrained(headless)
    for name in "ab":
        arguments = ["--model", headless, "--allow-random-head", "--keep-ratio", "1", "--output", tmp_path / name]
        assert run("export", *arguments).exit_code == 0
    first, second = (json.loads((tmp_path / name / "bundle.json").read_text())["references"] for name in "ab")
    assert first == second


def test_provenance_says_what_was_evaluated(bert_directory, data_file, tmp_path):
    probes = tmp_path / "probes.txt"
    probes.write_text("the film is good\n\nawful acting\n")
    output = tmp_path / "o"
    result = run(
        "export", "--model", bert_directory, "--data", data_file, "--eval-examples", "5", "--probes", probes,
        "--calibration-examples", "30", "--preset", "bert-1", "--align", "auto", "--max-length", "8",
        "--output", output,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    provenance = json.loads((output / "bundle.json").read_text())["provenance"]
    assert provenance["data"] == {"name": "data.csv", "sha256": load_dataset(str(data_file)).fingerprint}
    assert provenance["test_texts_evaluated"] == 5
    assert provenance["calibration_sha256"] == hashlib.sha256(b"the film is good\nawful acting").hexdigest()
    assert provenance["model"]["weights_sha256"] == sha256_file(bert_directory / "model.safetensors")
    assert provenance["data"]["sha256"] in (output / "README.md").read_text()
    assert provenance["plan"]["align"] in (16, 64)
    assert all(len(layer.keep) in (16, 24) for layer in read_plan(output / "plan.json").layers)
    comparisons = json.loads((output / "verify.json").read_text())["comparisons"]
    assert sum(made["shape"][0] for made in comparisons if made["name"] == "torch masked vs onnx") == 30 + 2 + 12
    assert {comparison["name"] for comparison in comparisons} >= {
        "torch dense vs dense onnx",
        "torch masked vs reloaded",
    }


def test_a_short_max_length_takes_the_built_in_probes(bert_directory, tmp_path):
    result = run("export", "--model", bert_directory, "--max-length", "6", "--output", tmp_path / "o")
    assert result.exit_code == 0, result.stderr


def test_verification_failure_leaves_nothing(bert_directory, tmp_path, monkeypatch):
    monkeypatch.setattr("anatomy_export.jobs.export.slice_neurons", lambda model, plan, repair: model)
    result = run("export", "--model", bert_directory, "--alpha", "0.5", "--output", tmp_path / "o")
    refused(result, tmp_path / "o", 1, "verification failed in 15 of 20 comparisons")


def test_help_has_examples_and_importing_is_light():
    assert "anatomy-export --model bert --slice" in run("export", "--help").output
    code = "import sys, anatomy_export, anatomy_export.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
