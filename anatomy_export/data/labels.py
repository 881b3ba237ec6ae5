"""What the labels of a file mean: class names as a model has them, or class numbers from 0."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anatomy_export.core.errors import AnatomyError
from anatomy_export.data.tables import Column, row_error

GENERIC = re.compile(r"LABEL_\d+")
CLASS_NUMBER = re.compile(r"(0|[1-9]\d{0,8})(\.0+)?")
NAMES_SHOWN = 8
NAMED_CLASSES_AT_LEAST, ROWS_A_CLASS = 10, 2
RENAME = "write the model's own names, number classes from 0, or check --label-column"


@dataclass(frozen=True)
class Labels:
    """The class of each row, and what is known of the classes: their names in class order, and how they were read."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    reading: str


def class_names(config: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """A model's class names in the order of its logits, from the `id2label` and `label2id` of its config.

    Where only one of them has names, or only `label2id` counts from 1, the other is not asked. Empty where there is
    neither.

    Raises:
        AnatomyError: they contradict each other, or do not number the classes from 0.
    """
    by_id = _numbered((config.get("id2label") or {}).items(), source, "id2label")
    by_name = _numbered(((index, name) for name, index in (config.get("label2id") or {}).items()), source, "label2id")
    named = [names for names in (by_id, by_name) if not all(GENERIC.fullmatch(name) for name in names)]
    if len(named) == 2 and sorted(by_id) == sorted(by_name) and by_id != by_name:
        position = next(index for index, pair in enumerate(zip(by_id, by_name, strict=True)) if pair[0] != pair[1])
        raise AnatomyError(
            f"model {source}: class {position} is '{by_id[position]}' by id2label and '{by_name[position]}' by "
            "label2id; next step: make them agree in its config.json"
        )
    return (named or [by_id, by_name])[0] or by_name


def _numbered(pairs, source: str, what: str) -> tuple[str, ...]:
    """The names in the order of their ids: from 0, or in `label2id` from 1, without a gap."""
    try:
        names = sorted((int(index), str(name)) for index, name in pairs)
    except (TypeError, ValueError) as error:
        raise AnatomyError(
            f"model {source}: {what} holds an id that is no number ({error}); next step: mend its config.json"
        ) from error
    ids = [index for index, _ in names]
    first = 1 if what == "label2id" and ids[:1] == [1] else 0
    if what == "id2label" and ids != list(range(len(ids))):
        raise AnatomyError(
            f"model {source}: {what} numbers the classes {_listed(ids)}, expected 0–{len(ids) - 1}; "
            "next step: number them from 0 in its config.json"
        )
    return tuple(name for _, name in names) if ids == list(range(first, first + len(ids))) else ()


def is_generic(names: Sequence[str]) -> bool:
    """Do the names say nothing of the classes: none, LABEL_0, LABEL_1 …, or their own numbers?"""
    return all(GENERIC.fullmatch(name) or name == str(index) for index, name in enumerate(names))


def read_labels(column: Column, path: Path, names: Sequence[str], *, name_labels: bool = False) -> Labels:
    """The labels of a file: all of them names as written, else all of them class numbers.

    Args:
        names: of the model's classes, in class order.
        name_labels: the model's classes are still free, so that other names make classes, in sorted order.

    Raises:
        AnatomyError: a label is empty or neither, or may be read as either.
    """
    written = [_written(cell, row, path, names) for cell, row in zip(column.cells, column.rows, strict=True)]
    rows: dict[str, int] = {}
    for label, row in zip(written, column.rows, strict=True):
        rows.setdefault(label, row)
    by_name = {label: [index for index, name in enumerate(names) if name == label] for label in rows}
    by_number = {label: int(match[1]) for label in rows if (match := CLASS_NUMBER.fullmatch(label))}
    named = all(by_name.values())
    if name_labels and not named:
        _refuse_no_classes(rows, by_number, len(column.rows), path)
    if named:
        _refuse_shared_names(by_name, rows, path)
        ids, reading = {label: places[0] for label, places in by_name.items()}, "by name"
    elif name_labels and not _numbers_all_classes(rows, by_number):
        ids, names = _new_classes(rows, by_number)
        reading = "by name"
    else:
        _refuse_strangers(rows, by_name, by_number, names, path)
        if not name_labels:
            _refuse_large_numbers(rows, by_number, len(names), path)
        ids, reading = by_number, "by number"
    return Labels(tuple(ids[label] for label in written), tuple(names), reading)


def _written(cell: Any, row: int, path: Path, names: Sequence[str]) -> str:
    """A label as text: a float that is a whole number as that number, a truth value as the model writes it."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise row_error(path, row, "the label is empty", "fill it in or drop the row")
    if isinstance(cell, bool):
        return next((name for name in names if name.lower() == str(cell).lower()), str(cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, str | int | float):
        return str(cell)
    raise row_error(path, row, f"label '{cell}' is a {type(cell).__name__}, expected a name or a number", RENAME)


def _refuse_shared_names(by_name: dict[str, list[int]], rows: dict[str, int], path: Path) -> None:
    for label, places in by_name.items():
        if len(places) > 1:
            raise row_error(
                path,
                rows[label],
                f"label '{label}' is the name of the model's classes {_listed(places)}",
                "number classes from 0, or give each class a name of its own in the model's config.json",
            )


def _refuse_strangers(
    rows: dict[str, int], by_name: dict[str, list[int]], by_number: dict[str, int], names: Sequence[str], path: Path
) -> None:
    """Raise AnatomyError unless all labels are class numbers, and none the name of another class."""
    known = _listed(names) or "none"
    for label, row in rows.items():
        if label in by_number or by_name[label]:
            continue
        if label.lower() in ("true", "false"):
            what = f"label '{label}' is a truth value, and the model has no class of that name ({known})"
        else:
            what = f"label '{label}' is neither a class number from 0 nor one of the model's labels ({known})"
        raise row_error(path, row, what, RENAME)
    other = next(label for label in rows if not by_name[label])
    for label, row in rows.items():
        if label not in by_number:
            raise row_error(
                path, row, f"label '{label}' is a name of the model's, '{other}' (row {rows[other]}) a number", RENAME
            )
        if by_name[label] and by_name[label] != [by_number[label]]:
            raise row_error(
                path,
                row,
                f"label '{label}' is the name of class {by_name[label][0]} or the number of class {by_number[label]}, "
                f"and '{other}' (row {rows[other]}) is a number only",
                RENAME,
            )


def _refuse_large_numbers(rows: dict[str, int], by_number: dict[str, int], count: int, path: Path) -> None:
    for label, row in rows.items() if count > 1 else ():
        if by_number[label] >= count:
            raise row_error(
                path,
                row,
                f"label {label} is out of range for a model with {count} classes (valid 0–{count - 1})",
                "number classes from 0, check --label-column, or use the model it was made for",
            )


def _numbers_all_classes(rows: Mapping[str, int], by_number: Mapping[str, int]) -> bool:
    """Are all labels class numbers, without a gap from 0?"""
    numbers = set(by_number.values())
    return len(by_number) == len(rows) and numbers == set(range(len(numbers)))


def _new_classes(rows: Mapping[str, int], by_number: Mapping[str, int]) -> tuple[dict[str, int], tuple[str, ...]]:
    """A class for each label and the classes' names: numbers in their order where all are numbers, else sorted."""
    if len(by_number) < len(rows):
        names = tuple(sorted(rows))
        return {label: names.index(label) for label in rows}, names
    numbers = sorted(set(by_number.values()))
    return {label: numbers.index(number) for label, number in by_number.items()}, tuple(map(str, numbers))


def _refuse_no_classes(rows: dict[str, int], by_number: dict[str, int], count: int, path: Path) -> None:
    for label, row in rows.items():
        if label not in by_number and _is_number(label):
            raise row_error(
                path, row, f"label '{label}' is neither a class number from 0 nor a name", "check --label-column"
            )
    if len(rows) > NAMED_CLASSES_AT_LEAST and ROWS_A_CLASS * len(rows) > count:
        raise AnatomyError(
            f"data {path}: {len(rows):,} different labels in {count:,} rows are no classes; "
            "next step: check --label-column"
        )


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _listed(values: Sequence) -> str:
    """The values, the middle ones left out where there are many."""
    shown = list(map(str, values))
    if len(shown) > NAMES_SHOWN:
        shown = [*shown[: NAMES_SHOWN - 1], "…", shown[-1]]
    return ", ".join(shown)


def describe_labels(labels: Sequence[int], names: Sequence[str], reading: str) -> str:
    """The classes in their order, each with its number and how many rows it has."""
    counts = Counter(labels)
    width = max(len(names), max(counts, default=-1) + 1)
    named = [f"{name} is " if name != f"LABEL_{index}" else "" for index, name in enumerate(names)]
    classes = [f"{named[index] if index < len(named) else ''}class {index}" for index in range(width)]
    return f"labels read {reading}: {_listed([f'{shown} ({counts[index]:,})' for index, shown in enumerate(classes)])}"
