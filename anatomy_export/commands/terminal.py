"""What commands print: on standard output one JSON object, or tables and lines for people."""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import click


@dataclass(frozen=True)
class Table:
    """Rows of cells, and lines between them where a row is None.

    Columns whose headings are in `left` start at the left, the others end at the right. A `compact` table has no frame,
    and only its first column is wrapped.
    """

    headings: Sequence[str]
    rows: Iterable[Sequence[str] | None]
    title: str | None = None
    left: Collection[str] = ()
    compact: bool = False


def print_answer(as_json: bool, body: dict, parts: Callable[[], Iterable[str | Table]]) -> None:
    """Print `body` as one JSON object, or else the lines and tables that `parts` makes."""
    if as_json:
        click.echo(json.dumps(body))
        return
    for part in parts():
        print_table(part) if isinstance(part, Table) else click.echo(part)


def print_table(table: Table) -> None:
    """Print a table. Its cells and title are text, never markup: names come from files that others wrote."""
    from rich import box, console
    from rich import table as rich_table

    frame = {"box": box.SIMPLE_HEAD, "padding": 0, "show_edge": False} if table.compact else {}
    shown = rich_table.Table(title=table.title, **frame)  # type: ignore[arg-type]
    for index, heading in enumerate(table.headings):
        left = heading in table.left
        shown.add_column(
            heading,
            justify="left" if left else "right",
            overflow="fold" if left and not table.compact else "ellipsis",
            no_wrap=table.compact and index > 0,
        )
    for row in table.rows:
        shown.add_section() if row is None else shown.add_row(*row)
    console.Console(markup=False, emoji=False).print(shown)


def quiet_libraries() -> None:
    """Keep transformers' warnings and bars off the terminal, where it is installed."""
    if find_spec("transformers"):
        import transformers

        transformers.utils.logging.set_verbosity_error()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # an attempt that fails is tried again
        transformers.utils.logging.disable_progress_bar()
