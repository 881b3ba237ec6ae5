"""Labels against the dense model: majority class, order of the classes, how many texts it takes."""

import io
from dataclasses import replace

import numpy as np
import pytest
from conftest import refused, run, tiny_checkpoint
from rich.console import Console

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.data.data_options import DataOptions
from anatomy_export.data.loading import Dataset, Examples
from anatomy_export.evaluation import label_check
from anatomy_export.evaluation.label_check import best_order, check_dense_accuracy, label_fit
from anatomy_export.jobs.source_data import load_source_data
from anatomy_export.zoo.embedded import ModelSource

NAMES = ("sports", "food", "tech")
EMPTY = Examples((), ())


def labelled(labels) -> Dataset:
    texts = tuple(str(index) for index in range(len(labels)))
    return Dataset("d.csv", Examples(texts, tuple(map(int, labels))), EMPTY, EMPTY, NAMES)


def judge(monkeypatch, labels, predicted, *, allowed=False) -> tuple[Progress, list[int]]:
    """Check data with these labels against a model that predicts so; also the numbers of texts it was asked for."""
    asked = []

    def predictions(checkpoint, texts, max_length):
        asked.append(len(texts))
        return [int(predicted[int(text)]) for text in texts]

    monkeypatch.setattr(label_check, "predict_classes", predictions)
    progress = Progress(Console(file=io.StringIO()))
    checkpoint = tiny_checkpoint("bert")
    checkpoint.model.config.num_labels = 3
    check_dense_accuracy(checkpoint, labelled(labels), max_length=8, allowed=allowed, progress=progress)
    return progress, asked


def right_on(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """Predictions that are right on a share of the labels, else the next class."""
    wrong = np.random.default_rng(seed).random(len(labels)) >= share
    return (labels + wrong) % 3


LABELS = np.random.default_rng(1).integers(0, 3, 3000)


def test_a_good_model_is_judged_on_few_texts(monkeypatch):
    progress, asked = judge(monkeypatch, LABELS, right_on(LABELS, 0.9))
    assert asked == [64] and progress.notes == []


def test_a_weak_model_is_judged_on_as_many_texts_as_it_takes(monkeypatch):
    draw = np.random.default_rng(7)
    predicted = np.where(draw.random(3000) < 0.05, LABELS, draw.integers(0, 3, 3000))
    progress, asked = judge(monkeypatch, LABELS, predicted)
    assert asked == [64, 64, 128, 256, 512]
    assert len(progress.notes) == 1 and ", hardly more than by always naming class" in progress.notes[0]


def test_labels_that_are_not_the_models_are_refused_with_both_numbers(monkeypatch):
    labels = np.where(np.arange(2000) % 2, 1, LABELS[:2000])
    with pytest.raises(AnatomyError) as caught:
        judge(monkeypatch, labels, np.random.default_rng(2).integers(0, 3, 2000))
    said = str(caught.value)
    assert said.startswith("data d.csv: the dense model is right on 3")
    assert "of 1,024 texts, no more than by always naming class food (6" in said
    assert said.endswith("or go on with --allow-bad-labels")


def test_bad_labels_that_are_allowed_are_noted(monkeypatch):
    progress, _ = judge(monkeypatch, LABELS, np.zeros(3000), allowed=True)
    assert len(progress.notes) == 1 and "no more than by always naming class" in progress.notes[0]


@pytest.mark.parametrize("order", [(1, 0, 2), (1, 2, 0)])
def test_another_order_of_the_classes_is_named(monkeypatch, order):
    predicted = right_on(LABELS, 0.95)
    labels = np.array(order)[LABELS]
    with pytest.raises(AnatomyError) as caught:
        judge(monkeypatch, labels, predicted)
    said = str(caught.value)
    assert "with the classes in another order: " in said and "on 9" in said
    for output, label in enumerate(order):
        assert (f"label {NAMES[label]} is its {NAMES[output]}" in said) == (output != label)


def test_two_swapped_classes_of_many_are_seen_though_accuracy_is_good(monkeypatch):
    labels = np.random.default_rng(3).choice(3, 3000, p=[0.6, 0.2, 0.2])
    swapped = np.array([0, 2, 1])[labels]
    with pytest.raises(AnatomyError, match=r"on 100\.0% with the classes in another order: label tech is its food"):
        judge(monkeypatch, swapped, labels)


@pytest.mark.parametrize("classes", [2, 5, 77, 150])
def test_no_order_is_found_where_there_is_none(classes):
    draw = np.random.default_rng(classes)
    for texts in (20, 64, 300, 1024):
        labels = draw.integers(0, classes, texts)
        for share in (0, 0.5, 0.8):
            predicted = np.where(draw.random(texts) < share, labels, draw.integers(0, classes, texts))
            assert not label_fit(predicted.tolist(), labels.tolist(), classes).reordered


def test_few_texts_are_refused_only_where_they_are_clear(monkeypatch):
    labels = np.array([0] * 19 + [1])
    progress, _ = judge(monkeypatch, labels, np.array([0] * 18 + [1, 1]))
    assert progress.notes == [
        "note: data d.csv: the dense model is right on 95.0% of 20 texts, no more than by always naming class sports "
        "(95.0%): too few texts to tell"
    ]
    with pytest.raises(AnatomyError, match=r"right on 5\.0% of 20 texts"):
        judge(monkeypatch, labels, np.array([2] * 19 + [1]))


def test_a_model_that_finds_a_rare_class_is_noted_and_not_refused(monkeypatch):
    labels = np.array([0] * 190 + [1] * 10)
    found = np.array([0] * 180 + [1] * 10 + [1] * 8 + [0] * 2)
    progress, _ = judge(monkeypatch, labels, found)
    assert progress.notes == [
        "note: data d.csv: the dense model is right on 94.0% of 200 texts, no more than by always naming class sports "
        "(95.0%)"
    ]
    with pytest.raises(AnatomyError, match=r"right on 94\.0% of 200 texts"):
        judge(monkeypatch, labels, np.array([1] * 2 + [0] * 198))


def test_a_rare_class_of_few_texts_tells_little(monkeypatch):
    labels = np.array([0] * 57 + [1] * 3)
    progress, _ = judge(monkeypatch, labels, np.array([1] + [0] * 59))
    assert len(progress.notes) == 1 and progress.notes[0].endswith("class sports (95.0%): too few texts to tell")


def test_a_model_that_is_right_on_every_text_is_right_whatever_the_classes_share(monkeypatch):
    labels = np.zeros(2000, dtype=int)
    labels[7] = 1
    assert judge(monkeypatch, labels, labels)[0].notes == []


def test_outputs_that_no_text_tells_of_stay():
    order = best_order(np.array([0, 0, 1]), np.array([1, 1, 0]), 5)
    assert order.tolist() == [1, 0, 2, 3, 4]


def csv_of(folder, labels):
    texts = ["the good film", "awful acting", "a story and a plot", "very bad", "not a great film"]
    rows = [f"{texts[i % 5]} {i},{labels[i % 2]}" for i in range(60)]
    (folder / "d.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return folder / "d.csv"


@pytest.mark.parametrize("untrained", ["weights", "head"])
def test_untrained_models_are_not_judged(tmp_path, untrained):
    source = ModelSource("m", "m", {}, random_weights=untrained == "weights")
    checkpoint = replace(tiny_checkpoint("bert"), random_head=untrained == "head")
    progress = Progress(Console(file=io.StringIO()))
    data = load_source_data(source, checkpoint, DataOptions(data=str(csv_of(tmp_path, "01"))), progress)
    assert data is not None and "labels read by number" in progress.notes[0] and len(progress.notes) == 1


@pytest.mark.parametrize("command", ["export", "pareto", "study"])
def test_every_command_that_reports_accuracy_judges_the_labels(bert_directory, tmp_path, command):
    output = tmp_path / "o"
    result = run(
        command, "--model", bert_directory, "--data", csv_of(tmp_path, "01"), "--output", output, judge_labels=True
    )
    refused(result, output, 1, "right on", "no more than by always naming class")
    assert "score the anatomy" not in result.stderr


def test_a_dense_export_is_judged_too(bert_directory, tmp_path):
    output, data = tmp_path / "o", csv_of(tmp_path, "01")
    result = run("export", "--model", bert_directory, "--dense", "--data", data, "--output", output, judge_labels=True)
    refused(result, output, 1, "no more than by always naming class")
