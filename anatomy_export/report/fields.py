"""Strict reading of JSON: what is missing or of another kind is an error that names file, field and what was found."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anatomy_export.core.errors import AnatomyError


@dataclass(frozen=True)
class Fields:
    """An object of a JSON file, with where in the file it stands and which command writes such a file."""

    body: dict
    file: Path
    command: str
    where: str = ""

    def error(self, what: str) -> AnatomyError:
        return AnatomyError(f"{self.file}: {what}; next step: make it again with {self.command}")

    def wrong(self, name: str, expected: str) -> AnatomyError:
        found = repr(self.body[name])[:60] if name in self.body else "missing"
        return self.error(f"'{self.where}{name}' is {found}, expected {expected}")

    def text(self, name: str) -> str:
        value = self.body.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return value

    def number(self, name: str) -> float:
        value = self.body.get(name)
        if not _is_number(value):
            raise self.wrong(name, "a finite number")
        return value  # type: ignore[return-value]

    def whole(self, name: str) -> int:
        value = self.body.get(name)
        if type(value) is not int or value < 0:
            raise self.wrong(name, "a whole number from 0")
        return value

    def optional(self, name: str, read: str) -> Any:
        """What the method `read` gives for a field, None where it is missing or null."""
        return None if self.body.get(name) is None else getattr(self, read)(name)

    def numbers(self, name: str, count: int | None = None) -> tuple[float, ...]:
        value = self.body.get(name)
        if not isinstance(value, list) or not all(_is_number(one) for one in value):
            raise self.wrong(name, "a list of finite numbers")
        if count is not None and len(value) != count:
            raise self.error(f"'{self.where}{name}' has {len(value)} numbers, expected {count}")
        return tuple(value)

    def wholes(self, name: str) -> tuple[int, ...]:
        if any(type(one) is not int or one < 0 for one in self.numbers(name)):
            raise self.wrong(name, "a list of whole numbers from 0")
        return tuple(self.body[name])

    def pair(self, name: str) -> tuple[float, float]:
        low, high = self.numbers(name, 2)
        return low, high

    def objects(self, name: str) -> list["Fields"]:
        value = self.body.get(name)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.wrong(name, "a list of objects")
        return [self._inner(one, f"{name}[{index}]") for index, one in enumerate(value)]

    def inside(self, name: str) -> "Fields":
        value = self.body.get(name)
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return self._inner(value, name)

    def by_name(self, name: str) -> dict[str, "Fields"]:
        """The objects of an object, by name."""
        inner = self.inside(name)
        return {one: inner.inside(one) for one in inner.body}

    def _inner(self, body: dict, name: str) -> "Fields":
        return Fields(body, self.file, self.command, f"{self.where}{name}.")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_fields(file: Path, command: str, *, kind: str | None, format_version: int | None = 1) -> Fields:
    """The object that a JSON file holds, of this kind and format version (None: files of its kind name none).

    Raises:
        AnatomyError: missing, unreadable, half-written, of another kind or version.
    """
    fields = Fields({}, file, command)
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise fields.error(error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise fields.error(f"not valid JSON, so damaged or half-written ({error})") from error
    if not isinstance(body, dict):
        raise fields.error("holds no JSON object")
    if format_version is not None and body.get("format_version") != format_version:
        raise fields.error(f"format version {body.get('format_version')!r}, expected {format_version}")
    if kind is not None and body.get("kind") != kind:
        raise fields.error(f"kind {body.get('kind')!r}, expected {kind!r}")
    return Fields(body, file, command)
