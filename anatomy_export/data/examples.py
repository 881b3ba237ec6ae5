"""The values that hold text: examples, and a data set of three splits of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from anatomy_export.core.errors import AnatomyError

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
        labels = tuple(self.labels[position] for position in index) if self.labels else ()
        return Examples(tuple(self.texts[position] for position in index), labels)


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits: calibration text comes from train, choices are made on validation, accuracy is on test.

    `label_names` are the class names in class order, empty where they are not known; `notes` say how the text and its
    labels were read, each a line for the user.
    """

    name: str
    train: Examples
    validation: Examples
    test: Examples
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[Examples, Examples, Examples]:
        """In the order of `SPLITS`."""
        return self.train, self.validation, self.test

    @property
    def labels(self) -> tuple[int, ...]:
        """Every label, split by split."""
        return tuple(label for part in self.splits for label in part.labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every text and label, split by split."""
        digest = hashlib.sha256()
        for split, examples in zip(SPLITS, self.splits, strict=True):
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
        for label in self.labels:
            if not 0 <= label < num_labels:
                raise AnatomyError(
                    f"data {self.name}: label {label} is out of range for a model with {num_labels} classes "
                    f"(valid 0–{num_labels - 1}); next step: number classes from 0, check --label-column, or use "
                    "the model it was made for"
                )


def examples_of(rows: Sequence[tuple[str, int]]) -> Examples:
    """(text, label) rows as examples."""
    return Examples(tuple(text for text, _ in rows), tuple(label for _, label in rows))
