"""What commands print."""

import logging
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str] | None],
    *,
    title: str | None = None,
    left: Collection[str] = (),
    compact: bool = False,
) -> None:
    """Print a table whose cells and title are text, never markup: names come from files that others wrote.

    Args:
        rows: cells of each row; None draws a line.
        left: headings of the columns that start at the left; the others end at the right.
        compact: without a frame, and only the first column is wrapped.
    """
    from rich.box import HEAVY_HEAD, SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    frame = {"box": SIMPLE_HEAD, "padding": 0, "show_edge": False} if compact else {"box": HEAVY_HEAD}
    table = Table(title=title, **frame)  # type: ignore[arg-type]
    for index, heading in enumerate(headings):
        table.add_column(
            heading,
            justify="left" if heading in left else "right",
            overflow="fold" if heading in left and not compact else "ellipsis",
            no_wrap=compact and index > 0,
        )
    for row in rows:
        table.add_section() if row is None else table.add_row(*row)
    Console(markup=False, emoji=False).print(table)


def quiet_libraries() -> None:
    """Keep transformers' warnings and bars off the terminal, where it is installed."""
    if find_spec("transformers"):
        import transformers

        transformers.utils.logging.set_verbosity_error()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # an attempt that fails is tried again
        transformers.utils.logging.disable_progress_bar()
