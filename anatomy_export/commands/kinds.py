"""Kinds of values that options take: what is of another kind is wrong usage, said in one line."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cloup

PATH = cloup.path()
FROM_0, FROM_1, FROM_2 = (click.IntRange(min=least) for least in range(3))
ABOVE_0 = click.FloatRange(min=0, min_open=True)
POINTS = click.FloatRange(min=0, max=100)


class Number(click.types.FloatParamType):
    """A number that `fits`; `expected` says in words which do."""

    def __init__(self, fits: Callable[[float], bool], expected: str):
        self.fits, self.expected = fits, expected

    def convert(self, value, param, ctx) -> float:
        number = super().convert(value, param, ctx)
        return number if self.fits(number) else self.fail(f"{number} is not {self.expected}", param, ctx)


class CommaSeparated(click.ParamType):
    """A comma-separated list, repetitions left out, as a tuple in the order given, or sorted.

    Args:
        item: makes an item of its text, or raises ValueError.
        fits: which items the list may hold; `expected` says it in words.
        blank: may the list be empty, written as blank text?
    """

    name = "list"

    def __init__(
        self, item: Callable[[str], Any], fits: Callable[[Any], bool], expected: str, *, sort=False, blank=False
    ):
        self.item, self.fits, self.expected, self.sort, self.blank = item, fits, expected, sort, blank

    def convert(self, value, param, ctx) -> tuple:
        if isinstance(value, tuple):
            return value
        try:
            items = tuple(dict.fromkeys(self.item(part.strip()) for part in value.split(",") if part.strip()))
        except ValueError:
            items = ()
        blank = self.blank and not value.strip()
        if not (items or blank) or not all(map(self.fits, items)):
            self.fail(f"'{value}' is not a comma-separated list {self.expected}", param, ctx)
        return tuple(sorted(items)) if self.sort else items


class Multiple(click.ParamType):
    """What widths are rounded up to: a whole number above 0, or "auto"; as text."""

    name = "multiple"

    def convert(self, value, param, ctx) -> str:
        if value != "auto" and not (value.isdigit() and int(value) > 0):
            self.fail(f"'{value}' is neither a whole number above 0 nor 'auto'", param, ctx)
        return value


class PlanFile(click.Path):
    """A plan.json; of a directory, as a bundle is, the plan.json in it."""

    def convert(self, value, param, ctx) -> Path:
        path = Path(super().convert(value, param, ctx))  # type: ignore[arg-type]
        return path / "plan.json" if path.is_dir() else path


def some_of(*choices: str, blank: bool = False) -> CommaSeparated:
    """A comma-separated list out of `choices`."""
    return CommaSeparated(str, choices.__contains__, f"out of {', '.join(choices)}", blank=blank)


FINITE = Number(math.isfinite, "a finite number")
SHARE = Number(lambda number: 0 < number <= 1, "more than 0 and at most 1")
SHARES = CommaSeparated(float, lambda number: 0 < number <= 1, "of numbers above 0 and at most 1")
REMOVED_SHARES = CommaSeparated(float, lambda number: 0 <= number < 1, "of numbers from 0 to below 1")
COUNTS = CommaSeparated(int, lambda number: number >= 1, "of whole numbers above 0", sort=True)
SEEDS = CommaSeparated(int, lambda number: number >= 0, "of whole numbers from 0", sort=True)
LAYERS = CommaSeparated(int, lambda number: True, "of whole numbers", sort=True, blank=True)
