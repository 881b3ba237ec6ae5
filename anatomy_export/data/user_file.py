"""A user's own file as a data set: its texts and labels checked row by row."""

import random
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.examples import SPLIT_SEED, Dataset, Examples
from anatomy_export.data.labels import describe_labels, read_labels
from anatomy_export.data.splits import repetition_notes, split_rows
from anatomy_export.data.tables import Table, read_table, row_error

NOTHING = Examples((), ())
INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def labelled_file(
    path: Path,
    *,
    text_column: str,
    label_column: str,
    split_column: str | None,
    class_names: Sequence[str],
    name_labels: bool,
) -> Dataset:
    """See `load_dataset`."""
    columns = [text_column, label_column, *([split_column] if split_column else [])]
    table = read_table(path, columns)
    texts = _texts(table, text_column)
    labels = read_labels(table.column(label_column), path, class_names, name_labels=name_labels)
    rows = list(zip(texts, labels.ids, strict=True))
    if len(set(labels.ids)) == 1:
        raise AnatomyError(
            f"data {path}: all {len(rows):,} rows have the label '{table.column(label_column).cells[0]}', and of one "
            "class accuracy means nothing; next step: pass rows of other classes, check --label-column, or pass text "
            "alone to anatomy-export as --unlabelled"
        )
    given = table.column(split_column) if split_column else None
    splits = split_rows(rows, given, path)
    notes = [
        *table.notes,
        *_not_read(table, columns),
        *(_swallowed(table, text_column, label_column) if table.path.suffix.lower() == ".csv" else ()),
        describe_labels(labels.ids, labels.names, labels.reading),
        *repetition_notes(rows, splits, given is not None),
    ]
    return Dataset(str(path), **splits, label_names=labels.names, notes=tuple(notes))


def unlabelled_file(path: Path, *, text_column: str) -> Dataset:
    """See `load_texts`."""
    table = read_table(path, [text_column])
    texts = _texts(table, text_column)
    random.Random(SPLIT_SEED).shuffle(texts)
    notes = (*table.notes, *_not_read(table, [text_column]))
    return Dataset(str(path), Examples(tuple(texts), ()), NOTHING, NOTHING, (), notes)


def _texts(table: Table, name: str) -> list[str]:
    """The cells of a column that are all text.

    Raises:
        AnatomyError: one is empty, no text, or no whole characters.
    """
    column = table.column(name)
    for cell, row in zip(column.cells, column.rows, strict=True):
        if cell is None or (isinstance(cell, str) and not any(map(_is_visible, cell))):
            raise row_error(table.path, row, "the text is empty", "fill it in or drop the row")
        if not isinstance(cell, str):
            raise row_error(
                table.path,
                row,
                f"the text is a {type(cell).__name__} ({str(cell)[:40]})",
                "write it as text, in quotes",
            )
        if HALF_CHARACTER.search(cell):
            raise row_error(table.path, row, "the text has half a character (a lone surrogate)", "take it out")
    return list(column.cells)


def _swallowed(table: Table, text_column: str, label_column: str) -> list[str]:
    """A note on texts of a CSV file that hold the end of another row: a separator, a label and a line end."""
    labels = {str(cell) for cell in table.column(label_column).cells}
    row_end = re.compile(rf"""[,;\t]"?({"|".join(map(re.escape, sorted(labels)))})"?\r?\n""")
    texts = table.column(text_column)
    rows = [row for text, row in zip(texts.cells, texts.rows, strict=True) if "\n" in text and row_end.search(text)]
    if not rows:
        return []
    return [
        f"{len(rows):,} texts hold a label and a line end, as rows do, first in row {rows[0]}: is a quote not closed?"
    ]


def _is_visible(character: str) -> bool:
    """Neither white space nor a control: characters that are newer than Python's tables are visible too."""
    return unicodedata.category(character) not in INVISIBLE


def _not_read(table: Table, read: Sequence[str]) -> list[str]:
    others = [name or "(no name)" for name in table.columns if name not in read]
    if not others:
        return []
    return [f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} not read; one text a row, in {read[0]}"]
