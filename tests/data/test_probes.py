"""Which sentences an anatomy is read from, for which model, and what is said of them."""

import json

import numpy as np
import pytest
from conftest import run, saved_dense, tiny_checkpoint

from anatomy_export.data.loading import Dataset, Examples
from anatomy_export.data.probes import BUILT_IN_PROBES, BUILT_IN_TASKS, choose_probes, load_probes, probe_tasks

EMPTY = Examples((), ())
TOPICS = ("sports", "food", "tech")


def data_of(texts, labels=()) -> Dataset:
    return Dataset("d.csv", Examples(tuple(texts), tuple(labels)), EMPTY, EMPTY, TOPICS)


@pytest.mark.parametrize("names", [(), ("LABEL_0", "LABEL_1"), ("Negative", "Positive"), ("pos", "neg"), ("0", "1")])
def test_film_reviews_are_the_probes_of_a_sentiment_model(names):
    probes = choose_probes(None, names, data_of(["a", "b"], [0, 1]))
    assert (probes.texts, probes.origin, probes.note) == (BUILT_IN_PROBES, "built-in", "")


def test_a_model_of_other_classes_is_read_on_its_own_texts():
    texts = [f"{TOPICS[index % 2]} {index // 4}" for index in range(40)] + ["tech 1", "tech 2"]
    labels = [index % 2 for index in range(40)] + [2, 2]
    probes = choose_probes(None, TOPICS, data_of(texts, labels))
    assert probes.origin == "data" and len(set(probes.texts)) == len(probes.texts) == 10
    assert [sum(topic in text for text in probes.texts) for topic in TOPICS] == [4, 4, 2]
    assert "(sports, food, tech) are not of film reviews" in probes.note and "10 train texts" in probes.note


def test_unlabelled_texts_are_probes_too():
    assert choose_probes(None, TOPICS, data_of("abc")).texts == ("a", "b", "c")


def test_without_text_the_film_reviews_are_used_and_said():
    for data in (None, data_of([])):
        probes = choose_probes(None, TOPICS, data)
        assert (probes.texts, probes.origin) == (BUILT_IN_PROBES, "built-in")
        assert probes.note.endswith("next step: pass some of its own texts as --probes")


def test_given_probes_are_taken_as_they_are(tmp_path):
    (tmp_path / "p.txt").write_text("a goal\n\na meal\n")
    probes = choose_probes(load_probes(str(tmp_path / "p.txt")), TOPICS, data_of("abc"))
    assert (probes.texts, probes.origin, probes.note) == (("a goal", "a meal"), "file", "")
    assert load_probes(None) is None


def test_probes_have_sub_tasks_for_a_sentiment_model_only():
    assert probe_tasks([*BUILT_IN_PROBES, "mine"], ("neg", "pos")) == [*BUILT_IN_TASKS, None]
    assert probe_tasks(BUILT_IN_PROBES, TOPICS) == [None] * 10


@pytest.fixture
def topics_directory(tmp_path):
    checkpoint = tiny_checkpoint("bert")
    checkpoint.model.config.id2label = {0: "sports", 1: "food"}
    checkpoint.model.config.label2id = {"sports": 0, "food": 1}
    return saved_dense(checkpoint, tmp_path / "topics")


@pytest.mark.parametrize("command", ["pareto", "study"])
def test_texts_of_the_data_are_cut_off_where_they_are_too_long(command, topics_directory, tmp_path):
    """As all of its texts are; what the user gave as a probe is refused."""
    words = np.random.default_rng(0).choice(["good", "bad", "film", "plot"], (60, 80))
    rows = "".join(f"{' '.join(row)},{TOPICS[index % 2]}\n" for index, row in enumerate(words))
    (tmp_path / "d.csv").write_text("text,label\n" + rows)
    few = {"pareto": ("--criteria", "anatomy", "--compensate", "none"), "study": ("--seeds", "0")}[command]
    arguments = ("--data", tmp_path / "d.csv", "--removed", "0.1", *few, "--output", tmp_path / "o", "--json")
    result = run(command, "--model", topics_directory, *arguments)
    assert result.exit_code == 0, result.stderr
    assert "of film reviews, as the built-in probes are: its anatomy is read from 10 train texts" in result.stderr
    assert "have more than 66 tokens" in result.stderr


def test_the_plan_records_where_the_probes_are_from(topics_directory, tmp_path):
    rows = "".join(f"the good {index},sports\nan awful {index},food\n" for index in range(20))
    (tmp_path / "d.csv").write_text("text,label\n" + rows)
    arguments = ["--model", topics_directory, "--data", tmp_path / "d.csv", "--output", tmp_path / "o", "--align", "1"]
    result = run("export", *arguments, "--criterion", "anatomy", "--keep-ratio", "0.9", "--allocate", "uniform")
    assert result.exit_code == 0, result.stderr
    assert "note: the model's classes (sports, food) are not of film reviews" in result.stderr
    assert "note: labels read by name: sports is class 0 (20), food is class 1 (20)" in result.stderr
    assert json.loads((tmp_path / "o" / "plan.json").read_text())["parameters"]["probes"] == "data"
    assert "the good" not in (tmp_path / "o" / "bundle.json").read_text(), "the user's texts do not ship"


def test_an_anatomy_of_other_classes_has_no_positive_and_negative_probes(topics_directory, tmp_path):
    result = run("score", "--model", topics_directory, "--output", tmp_path / "o")
    assert result.exit_code == 0, result.stderr
    assert "note: the built-in probes are film reviews, the model's classes are others (sports, food)" in result.stderr
    body = json.loads((tmp_path / "o" / "anatomy.json").read_text())
    assert [probe["task"] for probe in body["probes"]] == [None] * 10
