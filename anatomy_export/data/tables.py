"""Files of rows, read as they are written: no cell is taken for a number, a date or a missing value.

A row has the number that a person counts in the file: the header of a CSV or TSV file is row 1, the first line of a
JSONL file and the first row of a Parquet file are row 1.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anatomy_export.core.errors import AnatomyError, MissingExtraError, first_line
from anatomy_export.core.names import first_names

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
LARGEST_FIELD = 2**31 - 1
BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
LINE_END = re.compile("\r\n|\n|\r")
NAMES_SHOWN, NAME_SHOWN = 8, 40


@dataclass(frozen=True)
class Column:
    """The cells of one column and, index by index, the rows of the file that they are in."""

    cells: tuple[Any, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """A file's columns by name; each record is (row number, cells by column). `notes` say what was guessed."""

    path: Path
    columns: tuple[str, ...]
    records: tuple[tuple[int, dict[str, Any]], ...]
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """Cells are None where a record has none."""
        return Column(
            tuple(cells.get(name) for _, cells in self.records),
            tuple(row for row, _ in self.records),
        )


def row_error(path: Path, row: int, what: str, next_step: str) -> AnatomyError:
    """The error of one row of a file."""
    return AnatomyError(f"data {path}, row {row}: {what}; next step: {next_step}")


def read_table(path: Path, wanted: Sequence[str]) -> Table:
    """The rows of a CSV, TSV, JSONL or Parquet file that has the columns `wanted`.

    A CSV file may also be separated by semicolons or tabs, where only then it has those columns. TSV knows no quotes.

    Raises:
        AnatomyError: no such file, another format or encoding, a column that is missing or there twice, a row that is
            damaged or has another number of fields than the header, or no rows. MissingExtraError: Parquet without
            pandas.
    """
    readers: dict[str, Callable[[Path, Sequence[str]], Table]] = {
        ".csv": _read_csv,
        ".tsv": _read_tsv,
        ".jsonl": _read_jsonl,
        ".parquet": _read_parquet,
    }
    if not path.is_file():
        raise AnatomyError(
            f"data {path}: no such file; next step: pass movie-reviews, imdb, or a CSV, TSV, JSONL or Parquet file"
        )
    if path.suffix.lower() not in readers:
        raise AnatomyError(
            f"data {path}: unknown format '{path.suffix}', expected {', '.join(readers)}; next step: write it so"
        )
    if path.stat().st_size == 0:
        raise AnatomyError(f"data {path}: the file is empty; next step: pass a file with examples")
    table = readers[path.suffix.lower()](path, wanted)
    if not table.columns:
        raise AnatomyError(f"data {path}: no rows; next step: pass a file with examples")
    _check_columns(table, wanted)
    if not table.records:
        raise AnatomyError(f"data {path}: no rows; next step: pass a file with examples")
    return table


def _check_columns(table: Table, wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in table.columns:
            named = [f"{column[:NAME_SHOWN]}…" if len(column) > NAME_SHOWN else column for column in table.columns]
            raise AnatomyError(
                f"data {table.path}: no column '{name}', found {first_names(named, NAMES_SHOWN)}; next step: name it "
                "with --text-column, --label-column or --split-column, put the columns' names into a first row where "
                "there is none, or pass text alone to anatomy-export as --unlabelled"
            )
        if table.columns.count(name) > 1:
            raise AnatomyError(
                f"data {table.path}: {table.columns.count(name)} columns are named '{name}'; next step: rename all but "
                "the one that is meant"
            )


def _read_text(path: Path) -> str:
    """The file's characters: UTF-8, or what its byte order mark says."""
    content = path.read_bytes()
    mark = next((mark for mark in BYTE_ORDER_MARKS if content.startswith(mark)), None)
    encoding = "utf-8" if mark is None else BYTE_ORDER_MARKS[mark]
    save_as = "save the file as UTF-8 (iconv -f WINDOWS-1252 -t UTF-8 where that is what it is)"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise AnatomyError(
                f"data {path}: damaged {encoding.upper()} ({first_line(error)}); next step: {save_as}"
            ) from error
        row = 1 + len(LINE_END.findall(content[: error.start].decode("utf-8")))
        raise row_error(path, row, f"byte 0x{content[error.start]:02x} is not UTF-8", save_as) from error
    if "\0" in text:
        row = 1 + len(LINE_END.findall(text[: text.index("\0")]))
        raise row_error(path, row, "a NUL character, as in UTF-16 without its byte order mark", "save it as UTF-8")
    return text


def _read_csv(path: Path, wanted: Sequence[str]) -> Table:
    text = _read_text(path)
    headers = {separator: _csv_header(text, separator) for separator in SEPARATORS}
    fitting = [separator for separator, header in headers.items() if set(wanted) <= set(header)]
    separator = (fitting or [","])[0]
    table = _from_fields(path, _csv_rows(path, text, separator), "put texts that contain the separator into quotes")
    if separator == ",":
        return table
    return Table(
        path, table.columns, table.records, (f"{path.name} is read with a {SEPARATORS[separator]} between fields",)
    )


def _csv_header(text: str, separator: str) -> list[str]:
    try:
        first = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []
    return [name.strip() for name in first]


def _csv_rows(path: Path, text: str, separator: str) -> Iterator[list[str]]:
    csv.field_size_limit(LARGEST_FIELD)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    row = 0
    while True:
        row += 1
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise row_error(
                path, row, f"a quote that is not closed or not doubled ({error})", 'write " inside quotes as ""'
            ) from error
        yield fields


def _read_tsv(path: Path, wanted: Sequence[str]) -> Table:
    rows = (line.split("\t") if line else [] for line in LINE_END.split(_read_text(path)))
    table = _from_fields(path, rows, "take tabs and line ends out of texts, or save them in quotes as CSV")
    quoted = sum(
        any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells.values()) for _, cells in table.records
    )
    if not quoted:
        return table
    note = (
        f"{quoted:,} rows of {path.name} have fields in double quotes, which are part of the text: TSV has no quoting"
    )
    return Table(path, table.columns, table.records, (note,))


def _from_fields(path: Path, rows: Iterator[list[str]], next_step: str) -> Table:
    """A table of rows of fields, the first of which are the names; blank rows are left out."""
    columns: tuple[str, ...] = ()
    records = []
    for row, fields in enumerate(rows, start=1):
        if not fields:
            continue
        if not columns:
            columns = tuple(name.strip() for name in fields)
            continue
        if len(fields) != len(columns):
            raise row_error(path, row, f"{len(fields)} fields, the header names {len(columns)}", next_step)
        records.append((row, dict(zip(columns, fields, strict=True))))
    return Table(path, columns, tuple(records))


def _read_jsonl(path: Path, wanted: Sequence[str]) -> Table:
    columns: dict[str, None] = {}
    records = []
    for row, line in enumerate(LINE_END.split(_read_text(path)), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise row_error(path, row, f"not valid JSON ({first_line(error)})", "write one object a line") from error
        if not isinstance(record, dict):
            raise row_error(path, row, f"{type(record).__name__} instead of an object", "write one object a line")
        columns.update(dict.fromkeys(record))
        records.append((row, record))
    return Table(path, tuple(columns), tuple(records))


def _read_parquet(path: Path, wanted: Sequence[str]) -> Table:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("pandas", "data") from error
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error
    except Exception as error:
        raise AnatomyError(
            f"data {path}: cannot be read as parquet ({first_line(error)}); next step: write it again"
        ) from error
    columns = tuple(map(str, frame.columns))
    used = [(name, frame.iloc[:, columns.index(name)]) for name in wanted if name in columns]
    cells = {name: series.astype(object).where(series.notna(), None).tolist() for name, series in used}
    records = tuple((row + 1, {name: values[row] for name, values in cells.items()}) for row in range(len(frame)))
    return Table(path, columns, records)
