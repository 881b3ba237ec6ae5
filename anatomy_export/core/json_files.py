"""JSON files read strictly: what is missing or of another kind is an error with file, field and what was found."""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from anatomy_export.core.errors import AnatomyError

T = TypeVar("T")
FOUND_SHOWN, REASON_SHOWN = 60, 200
MISSING = "Object missing required field "
STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


@dataclass(frozen=True)
class JsonFile:
    """A UTF-8 JSON file; `next_step` and `title`, else the path, are what its errors say of it."""

    path: Path
    next_step: str
    title: str = ""

    def error(self, what: str) -> AnatomyError:
        """The error that says `what` of this file."""
        return AnatomyError(f"{self.title or self.path}: {what}; next step: {self.next_step}")

    def read_object(self, *, format_version: int | None = None, kind: str | None = None) -> dict[str, Any]:
        """The object that the file holds, of this `format_version` and `kind` where they are given.

        Raises:
            AnatomyError: it is missing, no JSON (which has neither NaN nor infinity), no object, or of another
                version or kind.
        """
        body = self._load()
        if not isinstance(body, dict):
            raise self.error(f"holds {shortened(body)}, expected an object")
        for field, expected in (("format_version", format_version), ("kind", kind)):
            value = body.get(field)
            if expected is not None and (value != expected or type(value) is not type(expected)):
                raise self.error(f"{field.replace('_', ' ')} {shortened(value)}, expected {expected!r}")
        return body

    def convert(self, body: Any, kind: type[T]) -> T:
        """`body`, as JSON gives it, as a value of the type `kind`: a dataclass, `msgspec.Struct`, or of plain ones.

        No text is taken for a number, nor a truth value. A field that is left out has its default, where it has one;
        those that `kind` does not have are passed over.

        Raises:
            AnatomyError: a field is missing, or of another kind; of its place `$` is the whole.
        """
        try:
            return msgspec.convert(body, kind, strict=True)
        except (msgspec.ValidationError, UnicodeError, RecursionError) as error:
            raise self.error(f"a field is missing or of the wrong kind: {_explained(error, body)}") from error

    def _load(self) -> Any:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"), parse_constant=_no_constant, parse_float=_finite)
        except OSError as error:
            raise self.error(error.strerror or str(error)) from error
        except (ValueError, RecursionError) as error:
            reason = str(error)[:REASON_SHOWN]
            raise self.error(f"not valid JSON, so damaged or half-written ({reason})") from error

    def check_seal(self, body: dict) -> None:
        """Raise AnatomyError unless the field `checksum` is that of the rest of `body`."""
        if body.get("checksum") != checksum(body):
            raise self.error(
                f"checksum {shortened(body.get('checksum'))} is not that of its content; it was altered, or an earlier "
                "release wrote it"
            )


def checksum(body: dict) -> str:
    """SHA-256 over an object without its field `checksum`, in one canonical form."""
    unsealed = {name: value for name, value in body.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(unsealed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def shortened(value: object) -> str:
    """A value in an error: a list or an object by its size."""
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)[: FOUND_SHOWN + 2]


def _explained(error: Exception, body: Any) -> str:
    """What msgspec says, and before it the place and what stands there."""
    what, _, place = str(error).replace("`", "").partition(" - at ")
    if what.startswith(MISSING):
        return f"{place or '$'} lacks {what.removeprefix(MISSING)}"
    try:
        for name, index in STEP.findall(place):
            body = body[name or int(index)]
    except (LookupError, TypeError):  # a name with a dot, or the place of a key
        return f"{place}: {what}"
    return f"{place or '$'} is {shortened(body)}, {what[:1].lower()}{what[1:]}"


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is past the range of numbers")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
