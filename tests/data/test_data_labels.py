"""What labels mean: the model's class names as written, else class numbers from 0."""

import json
from pathlib import Path

import pandas as pd
import pytest

from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.labels import class_names, describe_labels, read_labels
from anatomy_export.data.loading import load_dataset
from anatomy_export.data.tables import Column

PATH = Path("d.csv")


def read(cells, names=(), **options):
    return read_labels(Column(tuple(cells), tuple(range(2, 2 + len(cells)))), PATH, names, **options)


@pytest.mark.parametrize(
    ("cells", "names", "ids", "reading"),
    [
        (["2", "0", "1"], ("2", "0", "1"), (0, 1, 2), "by name"),
        (["2", "1", "3"], ("1", "2", "3"), (1, 0, 2), "by name"),
        ([2, 1.0, 3], ("1", "2", "3"), (1, 0, 2), "by name"),
        (["1", "0"], ("LABEL_0", "LABEL_1"), (1, 0), "by number"),
        (["1.0", "0"], ("no", "yes"), (1, 0), "by number"),
        ([1.0, 0.0], (), (1, 0), "by number"),
        (["01", "02"], ("01", "02"), (0, 1), "by name"),
        (["True", "False"], ("False", "True"), (1, 0), "by name"),
        ([True, False], ("False", "True"), (1, 0), "by name"),
        ([True, False], ("false", "true"), (1, 0), "by name"),
        (["0", "1"], ("0", "1", "2"), (0, 1), "by name"),
    ],
)
def test_labels_are_names_before_they_are_numbers(cells, names, ids, reading):
    labels = read(cells, names)
    assert (labels.ids, labels.reading) == (ids, reading)


@pytest.mark.parametrize(
    ("cells", "names", "message"),
    [
        (["0", "maybe"], ("no", "yes"), r"row 3: label 'maybe' is neither .* labels \(no, yes\)"),
        (["0", "0.5"], (), "row 3: label '0.5' is neither a class number from 0"),
        (["0", "01"], (), "row 3: label '01' is neither a class number from 0"),
        (["0", "-1"], (), "row 3: label '-1' is neither a class number from 0"),
        (["0", " 1"], (), "row 3: label ' 1' is neither a class number from 0"),
        (["0", "nan"], (), "row 3: label 'nan' is neither a class number from 0"),
        ([0, float("nan")], (), "row 3: label 'nan' is neither a class number from 0"),
        (["0", "1" * 30], (), "row 3: label '1+' is neither a class number from 0"),
        (["True", "False"], ("no", "yes"), "row 2: label 'True' is a truth value, and the model has no class of"),
        ([False, True], ("LABEL_0", "LABEL_1"), "row 2: label 'False' is a truth value"),
        (["2", "7"], ("2", "0", "1"), "row 2: label '2' is the name of class 0 or the number of class 2, and '7'"),
        (["yes", "0"], ("no", "yes"), "row 2: label 'yes' is a name of the model's, '0' .row 3. a number"),
        (["1", "2", "3"], ("a", "b", "c"), r"row 4: label 3 is out of range for a model with 3 classes \(valid 0–2"),
        (["a", "b"], ("a", "b", "a"), "row 2: label 'a' is the name of the model's classes 0, 2"),
        ([[1], [0]], (), r"row 2: label '\[1\]' is a list, expected a name or a number"),
        ([None, 1], (), "row 2: the label is empty"),
        (["1", ""], (), "row 3: the label is empty"),
    ],
)
def test_labels_that_are_refused(cells, names, message):
    with pytest.raises(AnatomyError, match=message):
        read(cells, names)


@pytest.mark.parametrize(
    ("cells", "own", "names", "ids"),
    [
        (["yes", "no"], (), ("no", "yes"), (1, 0)),
        (["yes", "no"], ("LABEL_0", "LABEL_1"), ("no", "yes"), (1, 0)),
        (["yes", "no"], ("yes", "no"), ("yes", "no"), (0, 1)),
        (["2", "10", "3"], ("LABEL_0", "LABEL_1"), ("2", "3", "10"), (0, 2, 1)),
        (["2", "1.0", "1"], (), ("1", "2"), (1, 0, 0)),
        (["1", "0", "2"], ("LABEL_0", "LABEL_1"), ("LABEL_0", "LABEL_1"), (1, 0, 2)),
        (["1", "two"], (), ("1", "two"), (0, 1)),
        ([True, False], (), ("False", "True"), (1, 0)),
    ],
)
def test_names_of_a_model_without_a_head(cells, own, names, ids):
    labels = read(cells, own, name_labels=True)
    assert (labels.names, labels.ids) == (names, ids)


def test_labels_that_make_no_classes_are_refused():
    with pytest.raises(AnatomyError, match="20 different labels in 20 rows are no classes"):
        read([f"id {index}" for index in range(20)], name_labels=True)
    with pytest.raises(AnatomyError, match="20 different labels in 20 rows are no classes"):
        read(list(range(20)), name_labels=True)
    with pytest.raises(AnatomyError, match=r"label '0\.5' is neither a class number from 0 nor a name"):
        read(["0.5", "1"], name_labels=True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ()),
        ({"id2label": {0: "no", 1: "yes"}}, ("no", "yes")),
        ({"label2id": {"pos": "1", "neg": "0"}}, ("neg", "pos")),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 2}}, ("a", "b")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"b": 0, "a": 1}}, ("b", "a")),
        ({"id2label": {"0": "b", "1": "a"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, ("b", "a")),
        ({"id2label": {"0": "a", "1": "b", "2": "a"}, "label2id": {"a": 2, "b": 1}}, ("a", "b", "a")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, ("LABEL_0", "LABEL_1")),
        ({"id2label": {str(index): f"c{index}" for index in range(12)}}, tuple(f"c{index}" for index in range(12))),
    ],
)
def test_class_names_are_in_the_order_of_the_logits(config, expected):
    assert class_names(config, "m") == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, "model m: id2label numbers the classes 1, 2, expected 0–1"),
        ({"id2label": {"0": "a", "x": "b"}}, "model m: id2label holds an id that is no number"),
        (
            {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}},
            "model m: class 0 is 'a' by id2label and 'b' by label2id",
        ),
    ],
)
def test_class_names_that_contradict_are_refused(config, message):
    with pytest.raises(AnatomyError, match=message):
        class_names(config, "m")


def test_the_classes_are_told_in_their_order_with_their_counts():
    assert describe_labels((0, 1, 1), ("b", "a", "c"), "by name") == (
        "labels read by name: b is class 0 (1), a is class 1 (2), c is class 2 (0)"
    )
    assert describe_labels((1, 0), ("LABEL_0", "LABEL_1"), "by number") == (
        "labels read by number: class 0 (1), class 1 (1)"
    )
    many = describe_labels(tuple(range(77)), tuple(f"c{index}" for index in range(77)), "by name")
    assert many.endswith("c6 is class 6 (1), …, c76 is class 76 (1)") and "c7 is" not in many


@pytest.mark.parametrize("dtype", ["int64", "float64", "Int64", "int8", "category", "bool"])
def test_labels_of_a_parquet_file(tmp_path: Path, dtype):
    labels = pd.Series([0, 1] * 20).astype(dtype)
    pd.DataFrame({"text": [f"t {i}" for i in range(40)], "label": labels}).to_parquet(tmp_path / "d.parquet")
    names = ("False", "True") if dtype == "bool" else ()
    data = load_dataset(str(tmp_path / "d.parquet"), class_names=names)
    assert all(int(text[2:]) % 2 == label for text, label in zip(data.train.texts, data.train.labels, strict=True))


def test_labels_of_a_jsonl_file(tmp_path: Path):
    rows = [{"text": f"t {i}", "label": i % 2 if i % 3 else str(i % 2)} for i in range(40)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    data = load_dataset(str(tmp_path / "d.jsonl"))
    assert all(int(text[2:]) % 2 == label for text, label in zip(data.train.texts, data.train.labels, strict=True))
