"""Rows put into train, validation and test: as a column says, or seeded, by class, equal texts together."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.examples import SPLIT_SEED, SPLITS, Examples, examples_of
from anatomy_export.data.tables import Column, row_error

SHARES = {"test": 0.2, "train": 0.7, "validation": 0.1}  # of equal claims the first is met
SPLIT_NAMES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("val", "valid", "dev", "development"), "validation"),
    "training": "train",
    "testing": "test",
}
Row = tuple[str, int]


def split_rows(rows: Sequence[Row], given: Column | None, path: Path) -> dict[str, Examples]:
    """The three splits of (text, label) rows, each in seeded random order, so that its first examples are a sample.

    Args:
        given: the split of each row by name; None for a seeded 70, 10 and 20 % of each class, in which rows of the
            same text stay together.

    Raises:
        AnatomyError: an unknown split, or none left for test.
    """
    names = _seeded(rows) if given is None else _given_names(given, path)
    splits: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row, name in zip(rows, names, strict=True):
        splits[name].append(row)
    if not splits["test"]:
        distinct = len({_same(text) for text, _ in rows})
        what = f"{len(rows):,} rows of {distinct:,} different texts leave none for the test split; next step: pass more"
        of_column = "no row is for test by the split column; next step: name some so, or leave --split-column out"
        raise AnatomyError(f"data {path}: {what if given is None else of_column}")
    for part in splits.values():
        random.Random(SPLIT_SEED).shuffle(part)
    return {split: examples_of(part) for split, part in splits.items()}


def _given_names(given: Column, path: Path) -> list[str]:
    names = []
    for cell, row in zip(given.cells, given.rows, strict=True):
        name = SPLIT_NAMES.get(str(cell).strip().lower())
        if name is None:
            what = f"unknown split '{'' if cell is None else cell}' in the split column"
            raise row_error(path, row, what, f"name it {', '.join(SPLITS)} (or val, valid, dev)")
        names.append(name)
    return names


def _seeded(rows: Sequence[Row]) -> list[str]:
    """The split of each row: texts class by class in random order, each to the split that is furthest behind."""
    together: dict[str, list[int]] = defaultdict(list)
    for index, (text, _) in enumerate(rows):
        together[_same(text)].append(index)
    groups = list(together.values())
    random.Random(SPLIT_SEED).shuffle(groups)
    groups.sort(key=lambda group: rows[group[0]][1])
    names, filled, seen = [""] * len(rows), Counter[str](), 0
    for group in groups:
        seen += len(group)
        name = max(SHARES, key=lambda split: SHARES[split] * seen - filled[split])
        filled[name] += len(group)
        for index in group:
            names[index] = name
    return names


def _same(text: str) -> str:
    """Texts that differ in white space only are the same."""
    return " ".join(text.split())


def repetition_notes(rows: Sequence[Row], splits: dict[str, Examples], given: bool) -> list[str]:
    """What is to be said of texts that stand there more than once."""
    labels: dict[str, set[int]] = defaultdict(set)
    for text, label in rows:
        labels[_same(text)].add(label)
    notes = []
    repeated, unclear = len(rows) - len(labels), sum(len(of_text) > 1 for of_text in labels.values())
    if repeated and not given:
        notes.append(f"{repeated:,} of {len(rows):,} rows repeat a text; equal texts are kept in one split")
    if unclear:
        notes.append(f"{unclear:,} of {len(labels):,} texts stand there with different labels")
    seen = {_same(text) for text in splits["train"].texts}
    for split in ("validation", "test") if given else ():
        texts = splits[split].texts
        known = sum(_same(text) in seen for text in texts)
        if known:
            notes.append(f"{known:,} of {len(texts):,} {split} texts also stand in train")
    return notes
