"""What the tables share: the committed files, and numbers as text."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BAR_HEADINGS = ("bar", "asked", "measured", "met")

Bar = tuple[str, str, str, str]


def load(name: str) -> Any:
    """The content of a JSON file of this folder."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def interval(value: float, half: float) -> str:
    """A number and its interval, of half that width on either side."""
    return f"{value:+.2f} [{value - half:+.2f}, {value + half:+.2f}]"


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def yes(met: bool) -> str:
    return "yes" if met else "**no**"
