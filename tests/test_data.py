"""Labelled text from files: splits, labels, and what is refused."""

import json
from pathlib import Path

import pandas as pd
import pytest

from anatomy_export.data import load_dataset
from anatomy_export.errors import AnatomyError

ROWS = pd.DataFrame({"text": [f"text {i}" for i in range(50)], "label": [i % 2 for i in range(50)]})


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_formats_give_the_same_seeded_split(tmp_path: Path, suffix):
    path = tmp_path / f"data.{suffix}"
    {
        "csv": lambda: ROWS.to_csv(path, index=False),
        "tsv": lambda: ROWS.to_csv(path, index=False, sep="\t"),
        "jsonl": lambda: path.write_text("\n".join(json.dumps(row) for row in ROWS.to_dict("records"))),
        "parquet": lambda: ROWS.to_parquet(path),
    }[suffix]()
    data = load_dataset(str(path))
    assert (len(data.train), len(data.validation), len(data.test)) == (35, 5, 10)
    texts = data.train.texts + data.validation.texts + data.test.texts
    assert sorted(texts) == sorted(ROWS["text"])
    assert all(int(text.split()[1]) % 2 == label for text, label in zip(data.test.texts, data.test.labels, strict=True))


def test_split_column_and_named_labels(tmp_path: Path):
    frame = ROWS.assign(part=["train"] * 30 + ["validation"] * 5 + ["test"] * 15, label=["no", "yes"] * 25)
    frame.rename(columns={"text": "review"}).to_csv(tmp_path / "d.csv", index=False)
    data = load_dataset(
        str(tmp_path / "d.csv"), text_column="review", split_column="part", label_ids={"no": 0, "yes": 1}
    )
    assert len(data.test) == 15
    assert sorted(data.train.texts) == sorted(ROWS["text"][:30])
    assert all(
        int(text.split()[1]) % 2 == label for text, label in zip(data.train.texts, data.train.labels, strict=True)
    )
    assert data.train.texts != tuple(ROWS["text"][:30]), "the first rows are no sample"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("text,label\n", "no rows"),
        ("words,label\na,1\n", "no column 'text', found words, label"),
        ("text,label\na,maybe\n", "label 'maybe' is neither a class number"),
        ("text,label\na,0.5\n", "label '0.5' is neither a class number"),
        ("text,label\na,\n", "empty text or label cells"),
    ],
)
def test_bad_files(tmp_path: Path, content, message):
    (tmp_path / "d.csv").write_text(content)
    with pytest.raises(AnatomyError, match=message):
        load_dataset(str(tmp_path / "d.csv"))


def test_missing_file_and_unknown_format(tmp_path: Path):
    with pytest.raises(AnatomyError, match="no such file"):
        load_dataset(str(tmp_path / "d.csv"))
    (tmp_path / "d.xls").write_text("x")
    with pytest.raises(AnatomyError, match=r"unknown format '\.xls'"):
        load_dataset(str(tmp_path / "d.xls"))


def test_labels_beyond_the_models_classes(tmp_path: Path):
    ROWS.assign(label=7).to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(AnatomyError, match="label 7 is out of range for a model with 2 classes"):
        load_dataset(str(tmp_path / "d.csv")).check_labels(2)
