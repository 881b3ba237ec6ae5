"""Bad input at the command line: one clear line, the contract's exit code, and nothing written."""

import json
import os
import signal
import sys
import tempfile
import time
import weakref
from pathlib import Path

import pytest
import torch
import transformers
from conftest import Boom, refused, run, saved_dense, spawn, tiny_checkpoint, tiny_config
from safetensors.torch import load_file, save_file

from anatomy_export.commands.exit_codes import _on_ignored, _on_signal
from anatomy_export.core.errors import Interrupted, MissingExtraError, Terminated
from anatomy_export.core.json_files import checksum
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.plan_files.plan import identity_plan


def edit_weights(directory: Path, change) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def text(content: str):
    def write(folder: Path) -> list:
        (folder / "d.csv").write_text(content)
        return ["--model", folder / "model", "--data", folder / "d.csv"]

    return write


def model_with(change):
    def write(folder: Path) -> list:
        change(folder / "model")
        return ["--model", folder / "model"]

    return write


def plan_with(change):
    """A plan for the model, changed and given the checksum of what it then holds."""

    def write(folder: Path) -> list:
        model = tiny_checkpoint("bert").model
        body = json.loads(
            identity_plan(model_fingerprint(model), [block.width for block in model_blocks(model)]).to_json()
        )
        del body["checksum"]
        change(body)
        (folder / "plan.json").write_text(json.dumps({"checksum": checksum(body), **body}))
        return ["--model", folder / "model", "--plan", folder / "plan.json"]

    return write


def truncated_plan(folder: Path) -> list:
    arguments = plan_with(lambda body: None)(folder)
    cut_in_half(folder / "plan.json")
    return arguments


def options(*arguments):
    return lambda folder: ["--model", folder / "model", *arguments]


def empty_directory(folder: Path) -> list:
    (folder / "empty").mkdir()
    return ["--model", folder / "empty"]


def no_checkpoint(folder: Path) -> list:
    empty_directory(folder)
    (folder / "empty" / "notes.txt").write_text("hello")
    return ["--model", folder / "empty"]


def unsupported(folder: Path) -> list:
    transformers.T5Config().save_pretrained(folder / "t5")
    return ["--model", folder / "t5"]


def headless(folder: Path) -> list:
    transformers.BertModel(tiny_config("bert")).save_pretrained(folder / "headless")
    tiny_checkpoint("bert").tokenizer.save_pretrained(folder / "headless")
    return ["--model", folder / "headless"]


def pickled(folder: Path) -> list:
    (folder / "model" / "model.safetensors").unlink()
    torch.save({"classifier.weight": Boom(str(folder / "ran"))}, folder / "model" / "pytorch_model.bin")
    return ["--model", folder / "model"]


def without_tokenizer(directory: Path) -> None:
    for file in directory.glob("tokenizer*"):
        file.unlink()


def with_small_vocabulary(directory: Path) -> None:
    config = tiny_config("bert")
    config.vocab_size = 20
    transformers.BertForSequenceClassification(config).save_pretrained(directory)


def first_layer(**fields):
    return lambda body: body["layers"][0].update(fields)


BAD = {
    "missing directory": (lambda folder: ["--model", folder / "none"], 1, "no such directory"),
    "empty directory": (empty_directory, 1, "the directory is empty"),
    "no checkpoint": (no_checkpoint, 1, "has no config.json, so it is no transformers checkpoint"),
    "unsupported family": (unsupported, 1, "'t5' is not supported; supported: bert, distilbert, electra, gpt2"),
    "random head": (headless, 1, "no classification head in the checkpoint"),
    "truncated weights": (
        model_with(lambda model: cut_in_half(model / "model.safetensors")),
        1,
        "cannot be loaded",
    ),
    "nan weights": (
        model_with(lambda model: edit_weights(model, lambda all: all["classifier.bias"].fill_(float("nan")))),
        1,
        "tensor classifier.bias holds NaN or infinity",
    ),
    "pickle that runs code": (pickled, 1, "cannot be loaded"),
    "no tokenizer": (model_with(without_tokenizer), 1, "no tokenizer in the checkpoint"),
    "small vocabulary": (model_with(with_small_vocabulary), 1, "ids up to 24, the model embeds 20"),
    "hub unreachable": (lambda folder: ["--model", "some/hub-id"], 1, "the hub gave nothing"),
    "data missing": (options("--data", "no.csv"), 1, "data no.csv: no such file"),
    "data empty": (text(""), 1, "the file is empty"),
    "data without rows": (text("text,label\n"), 1, "no rows"),
    "wrong columns": (text("words,label\na,1\n"), 1, "no column 'text', found words, label"),
    "label too high": (text("text,label\n" + "a,7\n" * 9), 1, "label 7 is out of range for a model with 2 classes"),
    "label negative": (text("text,label\n" + "a,-1\n" * 9), 1, "label '-1' is neither a class number from 0"),
    "probes of no anatomy": (
        options("--criterion", "fisher", "--keep-ratio", "0.5", "--probes", "p.txt"),
        2,
        "--criterion fisher is not the paper's rule, so --probes cannot stand beside it",
    ),
    "probes of a plan": (
        options("--plan", "plan.json", "--probes", "p.txt"),
        2,
        "--plan already says which neurons stay, so --probes cannot stand beside it",
    ),
    "probes missing": (options("--probes", "none.txt"), 1, "probes none.txt: cannot be read"),
    "max length": (options("--max-length", "500"), 1, "--max-length is 500, this model takes at most 66"),
    "focus": (options("--focus", "9"), 1, "focus layer 9 does not exist"),
    "preset": (options("--preset", "gpt2-1"), 1, "preset 'gpt2-1' is not one for the bert rule"),
    "no such preset": (options("--preset", "bert-10"), 2, "'bert-10' is not one of 'bert-1'"),
    "plan missing": (options("--plan", "none.json"), 1, "plan none.json: No such file"),
    "plan of another model": (plan_with(lambda body: body.update(fingerprint="f" * 64)), 1, "was made for the model"),
    "plan version": (plan_with(lambda body: body.update(format_version=2)), 1, "format version 2, expected 1"),
    "plan width": (plan_with(first_layer(width=25)), 1, "plan expects an FFN of 25 neurons, this one has 24"),
    "plan checksum": (plan_with(lambda body: body.update(checksum="0")), 1, "checksum '0' is not that of its content"),
    "plan unsorted": (plan_with(first_layer(keep=[2, 1])), 1, "layer 0: plan is not sorted at neuron 1"),
    "plan duplicated": (plan_with(first_layer(keep=[1, 1])), 1, "layer 0: plan repeats neuron 1"),
    "plan out of range": (plan_with(first_layer(keep=[24])), 1, "keeps neuron 24 but this FFN has 24 (valid 0–23)"),
    "plan emptied": (plan_with(first_layer(keep=[])), 1, "layer 0: plan keeps no neuron"),
    "plan truncated": (truncated_plan, 1, "not valid JSON"),
    "keep ratio 0": (options("--keep-ratio", "0"), 2, "is not more than 0 and at most 1"),
    "keep ratio negative": (options("--keep-ratio", "-0.5"), 2, "is not more than 0 and at most 1"),
    "keep ratio above 1": (options("--keep-ratio", "1.5"), 2, "is not more than 0 and at most 1"),
    "keep ratio nan": (options("--keep-ratio", "nan"), 2, "is not more than 0 and at most 1"),
    "alpha nan": (options("--alpha", "nan"), 2, "is not a finite number"),
    "beta infinite": (options("--beta", "inf"), 2, "is not a finite number"),
    "strong threshold nan": (options("--strong-threshold", "nan"), 2, "is not a finite number"),
    "dense and keep ratio": (options("--dense", "--keep-ratio", "0.5"), 2, "--keep-ratio cannot stand beside it"),
    "dense and plan": (options("--dense", "--plan", "p.json"), 2, "--plan cannot stand beside it"),
    "plan and preset": (options("--plan", "p.json", "--preset", "bert-2"), 2, "--preset cannot stand beside it"),
    "plan and align": (options("--plan", "p.json", "--align", "1"), 2, "--align cannot stand beside it"),
    "keep ratio and alpha": (options("--keep-ratio", "0.5", "--alpha", "1"), 2, "--alpha cannot stand beside it"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, tmp_path):
    make, code, message = BAD[case]
    saved_dense(tiny_checkpoint("bert"), tmp_path / "model")
    output = tmp_path / "out" / "bundle"
    refused(run("export", *make(tmp_path), "--output", output), output, code, message)
    assert not output.parent.exists()
    assert not (tmp_path / "ran").exists()


def test_existing_output_needs_force(bert_directory, tmp_path):
    output = tmp_path / "there"
    assert run("export", "--model", bert_directory, "--output", output).exit_code == 0
    before = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    result = run("export", "--model", bert_directory, "--output", output)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "exists; next step: choose another --output, or replace it with --force" in result.stderr
    assert {path.name: path.stat().st_mtime_ns for path in output.iterdir()} == before
    assert run("export", "--model", bert_directory, "--output", output, "--force").exit_code == 0


def test_force_replaces_no_foreign_directory(bert_directory, tmp_path):
    output = tmp_path / "there"
    output.mkdir()
    (output / "precious.txt").write_text("mine")
    result = run("export", "--model", bert_directory, "--output", output, "--force")
    assert result.exit_code == 1
    assert "holds files but no bundle.json, so --force does not replace it" in result.stderr
    assert (output / "precious.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "tiny-bert"]


def test_output_below_a_file(bert_directory, tmp_path):
    (tmp_path / "file").write_text("x")
    result = run("export", "--model", bert_directory, "--output", tmp_path / "file" / "o")
    refused(result, tmp_path / "file" / "o", 1, "cannot create")


def test_output_directory_without_permission(bert_directory, tmp_path, monkeypatch):
    """Simulated, because root may write everywhere."""

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(tempfile, "mkdtemp", denied)
    result = run("export", "--model", bert_directory, "--output", tmp_path / "out" / "o")
    refused(result, tmp_path / "out" / "o", 1, "cannot write to", "Permission denied", "choose another --output")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(bert_directory, tmp_path):
    """A file-size limit stands in for the full disk: the write fails half-way in the same manner."""
    process = spawn("export", "--model", bert_directory, "--output", tmp_path / "out" / "o", limit=20_000)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1, errors
    assert [line for line in errors.splitlines() if "Error" in line] == [errors.strip().splitlines()[-1]]
    assert "check the free space" in errors
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_at_the_tokenizer(bert_directory, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise Exception("No space left on device (os error 28)")

    monkeypatch.setattr(transformers.PreTrainedTokenizerBase, "save_pretrained", full)
    result = run("export", "--model", bert_directory, "--output", tmp_path / "out" / "o")
    refused(result, tmp_path / "out" / "o", 1, "cannot write the checkpoint (No space left on device")


STAGES = {
    "at the start": "out/.o.partial-*",
    "after the checkpoint": "out/.o.partial-*/new/checkpoint/model.safetensors",
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_leaves_nothing(bert_directory, tmp_path, number, code, stage):
    process = spawn("export", "--model", bert_directory, "--output", tmp_path / "out" / "o")
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob(STAGES[stage])):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, number)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == code, errors
    assert output == ""
    assert errors.splitlines()[-1].endswith("nothing was written")
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, Interrupted)])
def test_a_signal_inside_a_finalizer_is_not_lost(monkeypatch, number, kind):
    """Python ignores what a finalizer raises, so the signal comes again."""

    class Signals:
        def __del__(self):
            signal.raise_signal(number)

    before = {caught: signal.signal(caught, _on_signal) for caught in (number, signal.SIGALRM)}
    try:
        with pytest.raises(kind):
            del [Signals()][0]
            time.sleep(5)
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, Interrupted)])
def test_a_signal_inside_a_weak_references_callback_is_not_lost(monkeypatch, number, kind):
    """Python ignores what a callback of any name raises: what it would report is where the signal comes again."""
    monkeypatch.setattr(sys, "unraisablehook", _on_ignored)
    before = {caught: signal.signal(caught, _on_signal) for caught in (number, signal.SIGALRM)}

    class Watched:
        pass

    try:
        watched = Watched()
        watching = weakref.ref(watched, lambda _: signal.raise_signal(number))
        with pytest.raises(kind):
            del watched
            time.sleep(5)
        assert watching() is None
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def test_an_unforeseen_error_is_one_line_and_debug_shows_the_traceback(bert_directory, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("anatomy_export.jobs.export.run_export", broken)
    result = run("export", "--model", bert_directory, "--output", tmp_path / "o")
    refused(result, tmp_path / "o", 1, "unexpected ZeroDivisionError; ", "ANATOMY_DEBUG=1")
    monkeypatch.setenv("ANATOMY_DEBUG", "1")
    assert "Traceback" in run("export", "--model", bert_directory, "--output", tmp_path / "o").stderr


@pytest.mark.parametrize("name", ["torch", "no_such_module"])
def test_only_our_own_optional_packages_are_called_a_missing_extra(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)

    def broken(*args, **kwargs):
        __import__(name)

    monkeypatch.setattr("anatomy_export.commands.export.quiet_libraries", broken)
    result = run("export", "--model", "bert", "--output", tmp_path / "o")
    expected = str(MissingExtraError("torch", "cpu")) if name == "torch" else "unexpected ModuleNotFoundError"
    refused(result, tmp_path / "o", 1, expected)
