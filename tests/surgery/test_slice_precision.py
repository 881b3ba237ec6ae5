"""`anatomy slice-onnx --precision` with labelled text: what it costs is measured, and too much is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import WORDS, run, tiny_checkpoint
from onnx_graphs import ffn_model
from test_onnx_surgery_exports import EXPORTERS

from anatomy_export.data.loading import load_dataset
from anatomy_export.evaluation.onnx_session import OnnxSession
from anatomy_export.evaluation.text_reader import TextReader
from anatomy_export.surgery.model import OnnxModel

RATIO = ("--keep-ratio", "0.5", "--align", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with its tokenizer; the fp32 cut; texts whose labels are the classes that the fp32 cut gives."""
    folder = tmp_path_factory.mktemp("bert")
    checkpoint = tiny_checkpoint("bert")
    checkpoint.tokenizer.save_pretrained(folder)
    with torch.no_grad():  # so that texts differ by more than a conversion changes
        checkpoint.model.bert.embeddings.word_embeddings.weight.normal_(0, 1)
        for layer in checkpoint.model.bert.encoder.layer:
            layer.attention.self.value.weight.normal_(0, 0.5)
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, generator.integers(2, 9))) for _ in range(400)]
    logits = fp32_logits(checkpoint, folder, texts)
    with torch.no_grad():  # so that either class is given to about half of the texts
        checkpoint.model.classifier.bias -= torch.from_numpy(np.median(logits, axis=0))
    labels = fp32_logits(checkpoint, folder, texts).argmax(-1).tolist()
    assert {0, 1} <= set(labels)
    write(folder / "texts.csv", texts, labels)
    write(folder / "untrained.csv", texts, labels, ["test"] * len(texts))
    write(folder / "wide.csv", texts, [9, *labels[1:]], ["test"] * len(texts))
    (folder / "calibrated.csv").write_text(
        "text,label,split\n" + "".join(f"{text},{label},{split}\n" for text, label, split in splits(texts, labels))
    )
    return folder


def fp32_logits(checkpoint, folder, texts):
    """(texts, classes) of the cut of a fresh export."""
    EXPORTERS["own, fused"](checkpoint, folder / "model.onnx")
    assert run("slice-onnx", folder / "model.onnx", *RATIO, "-o", folder / "fp32.onnx", "--force").exit_code == 0
    session, reader = OnnxSession(folder / "fp32.onnx", "fp32"), TextReader(folder / "tokenizer.json")
    return np.concatenate([session.run(["logits"], reader.inputs(text))[0] for text in texts])


def write(path, texts, labels, names=None):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "split"] if names else ["text", "label"])
        writer.writerows(zip(texts, labels, names, strict=True) if names else zip(texts, labels, strict=True))


def dense_accuracy(folder):
    return accuracy_of(folder, folder / "model.onnx")


def accuracy_of(folder, model):
    """Of a file, on the test split of texts.csv."""
    test = load_dataset(str(folder / "texts.csv")).test
    session, reader = OnnxSession(model, "a file"), TextReader(folder / "tokenizer.json")
    classes = [session.run(["logits"], reader.inputs(text))[0].argmax() for text in test.texts]
    return float(np.mean(np.array(classes) == np.array(test.labels)))


def splits(texts, labels):
    names = ("test", "train", "validation", "train")
    return [(*row, names[index % 4]) for index, row in enumerate(zip(texts, labels, strict=True))]


def lowered(folder, output, *arguments):
    return run("slice-onnx", folder / "model.onnx", *RATIO, "-o", output, "--precision", *arguments)


@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.9), ("int8", 0.6)])
def test_accuracy_is_that_of_both_files(precision, least, folder, tmp_path):
    result = lowered(
        folder, tmp_path / "o.onnx", precision, "--data", folder / "texts.csv", "--max-precision-drop", "100", "--json"
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)["precision_report"]
    assert report["accuracy_fp32"] == 1.0
    assert report["accuracy"] == report["agreement"] > least
    accuracy = json.loads(result.stdout)["accuracy"]
    assert accuracy["pruned"] == accuracy_of(folder, tmp_path / "o.onnx")
    assert accuracy["dense"] == dense_accuracy(folder)
    assert (report["texts"], report["gate"]["texts"]) == (80, 40)
    assert report["size_bytes"] == (tmp_path / "o.onnx").stat().st_size
    assert report["size_bytes_fp32"] == (folder / "fp32.onnx").stat().st_size
    assert "not measured" not in result.stderr


def test_the_table_shows_it(folder, tmp_path):
    result = lowered(folder, tmp_path / "o.onnx", "fp16", "--data", folder / "texts.csv", "--eval-examples", "20")
    assert "accuracy, %" in result.stdout and "fp16 alone" in result.stdout
    assert "the same class on 20 texts of test" in " ".join(result.stdout.split())


def test_what_the_cut_itself_costs(folder, tmp_path):
    arguments = ("--data", folder / "texts.csv", "--json")
    result = run("slice-onnx", folder / "model.onnx", *RATIO, "-o", tmp_path / "o.onnx", *arguments)
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)
    assert body["accuracy"] == {"dense": dense_accuracy(folder), "pruned": 1.0}
    assert body["accuracy"]["dense"] < 1 and body["precision_report"] is None


def test_too_great_a_drop_is_refused(folder, tmp_path):
    """The labels are the fp32 file's own classes, so that each class that int8 changes is a loss."""
    arguments = ("int8", "--data", folder / "texts.csv", "--eval-examples", "80", "--max-precision-drop")
    allowed = lowered(folder, tmp_path / "o.onnx", *arguments, "100", "--json")
    lost = 100 * (1 - json.loads(allowed.stdout)["precision_report"]["gate"]["accuracy"])
    assert lost > 0, "no class changed, so that nothing is tested"
    refused = lowered(folder, tmp_path / "none.onnx", *arguments, f"{lost - 0.01:.4f}")
    assert refused.exit_code == 1
    assert f"int8 loses {lost:.2f} points of accuracy against the fp32 file" in refused.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "o.onnx"]


def test_static_ranges_come_from_train_texts(folder, tmp_path):
    arguments = ("--int8", "static", "--data", folder / "calibrated.csv", "--split-column", "split")
    result = lowered(folder, tmp_path / "o.onnx", "int8", *arguments, "--max-precision-drop", "100", "--json")
    assert result.exit_code == 0, result.stderr
    conversion = json.loads(result.stdout)["precision_report"]["conversion"]
    assert (conversion["method"], conversion["calibration_texts"]) == ("static", 200)
    operators = {node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node}
    assert "QuantizeLinear" in operators and "DynamicQuantizeLinear" not in operators


@pytest.mark.parametrize("named", [{"label2id": {"1": 0, "0": "1"}}, {"id2label": {"0": "1", "1": "0"}}])
def test_labels_are_the_names_of_the_config_before_they_are_numbers(named, folder, tmp_path):
    with open(folder / "texts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    write(tmp_path / "named.csv", [row["text"] for row in rows], [1 - int(row["label"]) for row in rows])
    (folder / "config.json").write_text(json.dumps(named))
    result = lowered(folder, tmp_path / "o.onnx", "fp16", "--data", tmp_path / "named.csv", "--json")
    (folder / "config.json").unlink()
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["precision_report"]["accuracy_fp32"] == 1.0
    assert "note: labels read by name: 1 is class 0" in result.stderr and "always naming" not in result.stderr
    without = lowered(folder, tmp_path / "p.onnx", "fp16", "--data", tmp_path / "named.csv")
    assert "note: before the cut the model is right on" in without.stderr
    assert "no more than by always naming one class" in without.stderr


def test_values_past_the_range_of_float16_are_refused(folder, tmp_path):
    """One FFN gives huge values, which the norm after it takes back: logits on a CPU do not show it."""
    model = onnx.load(folder / "model.onnx")
    scale_one_ffn(model, 3e5)
    onnx.save(model, tmp_path / "model.onnx")
    arguments = (
        "--data",
        folder / "texts.csv",
        "--tokenizer",
        folder / "tokenizer.json",
        "--max-precision-drop",
        "100",
    )
    result = run(
        "slice-onnx", tmp_path / "model.onnx", *RATIO, "-o", tmp_path / "o.onnx", "--precision", "fp16", *arguments
    )
    assert result.exit_code == 1
    assert "float16 ends at 65,504; next step: leave --precision out" in result.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def scale_one_ffn(model, factor):
    down = OnnxModel(Path("model.onnx"), model).ffns[0].ffn.down.weight.tensor
    down.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(down) * np.float32(factor), down.name))


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_a_graph_of_int32_tokens(method, folder, tmp_path):
    model = onnx.load(folder / "model.onnx")
    for value in model.graph.input:
        value.type.tensor_type.elem_type = onnx.TensorProto.INT32
        cast = onnx.helper.make_node("Cast", [value.name], [f"{value.name}_64"], to=onnx.TensorProto.INT64)
        for node in model.graph.node:
            for position, name in enumerate(node.input):
                if name == value.name:
                    node.input[position] = f"{value.name}_64"
        model.graph.node.insert(0, cast)
    onnx.save(model, tmp_path / "model.onnx")
    arguments = ("--data", folder / "calibrated.csv", "--split-column", "split", "--max-precision-drop", "100")
    result = run(
        *("slice-onnx", tmp_path / "model.onnx", *RATIO, "-o", tmp_path / "o[1].onnx", "--precision", "int8"),
        *("--int8", method, *arguments, "--tokenizer", folder / "tokenizer.json", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)["precision_report"]
    assert report["accuracy_fp32"] == 1.0
    assert report["size_bytes"] == (tmp_path / "o[1].onnx").stat().st_size
    assert (report["conversion"]["target_cpu"], report["conversion"]["reduce_range"]) == ("portable", True)
    assert "note: int8 weights have 7 bits, which every CPU computes right" in result.stderr


REFUSED = {
    "no train texts": (
        ["--int8", "static", "--data", "untrained.csv", "--split-column", "split"],
        "no train texts, which static int8 takes its ranges from",
    ),
    "no tokenizer": (["--data", "texts.csv", "--tokenizer", "none.json"], "none.json cannot be used to read text"),
    "no data": (["--data", "none.csv"], "data none.csv: no such file"),
    "label": (["--data", "wide.csv", "--split-column", "split"], "label 9 is out of range"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    arguments, message = REFUSED[case]
    result = lowered(folder, tmp_path / "o.onnx", "int8", *arguments)
    assert result.exit_code == 1 and message in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_graph_that_reads_no_text_is_refused(folder, tmp_path):
    onnx.save(ffn_model(), tmp_path / "m.onnx")
    arguments = (
        *RATIO,
        "--precision",
        "int8",
        "--data",
        folder / "texts.csv",
        "--tokenizer",
        folder / "tokenizer.json",
    )
    result = run("slice-onnx", tmp_path / "m.onnx", *arguments, "-o", tmp_path / "o.onnx")
    assert result.exit_code == 1
    assert "asks for an input 'x' that text does not give; next step: leave --data out" in result.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "m.onnx"]


USAGE = {
    "static without text": (["--precision", "int8", "--int8", "static"], "pass --data"),
    "column of no data": (["--precision", "int8", "--text-column", "t"], "--text-column means something beside --data"),
    "tokenizer alone": (["--tokenizer", "t"], "--tokenizer means something beside --data or --criterion anatomy"),
    "length alone": (["--max-length", "9"], "--max-length means something beside --data or --criterion anatomy"),
    "method of fp16": (["--precision", "fp16", "--int8", "static"], "--int8 means something beside --precision int8"),
    "CPU of fp32": (["--target-cpu", "native"], "--target-cpu means something beside --precision int8"),
    "limit without data": (
        ["--precision", "int8", "--max-precision-drop", "2"],
        "--max-precision-drop means something beside --data",
    ),
    "threshold": (["--criterion", "anatomy", "--strong-threshold", "nan"], "nan is not a finite number"),
    "limit of fp32": (["--max-precision-drop", "2"], "--max-precision-drop means something beside --precision fp16"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage(case):
    arguments, message = USAGE[case]
    result = run("slice-onnx", "m.onnx", "--keep-ratio", "0.5", "-o", "o", *arguments)
    assert result.exit_code == 2 and message in result.stderr


def changed_by_int8(folder, tmp_path) -> list[bool]:
    """Of each row of texts.csv: does the int8 file give it another class than its label, which is the fp32 file's?"""
    assert lowered(folder, tmp_path / "int8.onnx", "int8").exit_code == 0
    session, reader = OnnxSession(tmp_path / "int8.onnx", "int8"), TextReader(folder / "tokenizer.json")
    with open(folder / "texts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [int(session.run(["logits"], reader.inputs(row["text"]))[0].argmax()) != int(row["label"]) for row in rows]


@pytest.mark.parametrize("decides", ["validation", "test"])
def test_the_limit_is_decided_on_validation(decides, folder, tmp_path):
    """Every text whose class int8 changes is in one split, and as many that it does not change are in the other."""
    changed = changed_by_int8(folder, tmp_path)
    assert 0 < sum(changed) < len(changed) / 2
    with open(folder / "texts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    other = "test" if decides == "validation" else "validation"
    names = [decides if lost else other for lost in changed]
    write(tmp_path / "split.csv", [row["text"] for row in rows], [row["label"] for row in rows], names)
    arguments = ("--data", tmp_path / "split.csv", "--split-column", "split", "--max-precision-drop", "1", "--json")
    result = lowered(folder, tmp_path / "o.onnx", "int8", *arguments)
    if decides == "validation":
        assert result.exit_code == 1 and "int8 loses 100.00 points of accuracy" in result.stderr
        return
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)["precision_report"]
    assert (report["gate"]["accuracy"], report["accuracy"]) == (1.0, 0.0)


def test_without_validation_texts_a_limit_is_refused_and_the_default_is_judged_on_test(folder, tmp_path):
    arguments = ("fp16", "--data", folder / "untrained.csv", "--split-column", "split")
    result = lowered(folder, tmp_path / "o.onnx", *arguments, "--max-precision-drop", "1")
    assert result.exit_code == 1 and not (tmp_path / "o.onnx").exists()
    assert "no validation texts, which --max-precision-drop is decided on; next step: pass some" in result.stderr
    result = lowered(folder, tmp_path / "o.onnx", *arguments)
    assert result.exit_code == 0, result.stderr
    assert "note: no validation texts, so what fp16 loses is judged on test" in " ".join(result.stderr.split())
