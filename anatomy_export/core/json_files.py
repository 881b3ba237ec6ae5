"""JSON files read strictly: what is missing or of another kind is an error with file, field and what was found."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from anatomy_export.core.errors import AnatomyError

T = TypeVar("T")
FOUND_SHOWN, REASON_SHOWN = 60, 200
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

    def read(self, kind: type[T]) -> T:
        """What the file holds, as a value of `kind`; see `convert`.

        Raises:
            AnatomyError: it is missing, no JSON (which has neither NaN nor infinity), or no such value.
        """
        try:
            body = json.loads(self.path.read_text(encoding="utf-8"), parse_constant=_no_constant)
        except OSError as error:
            raise self.error(error.strerror or str(error)) from error
        except (ValueError, RecursionError) as error:
            reason = str(error)[:REASON_SHOWN]
            raise self.error(f"not valid JSON, so damaged or half-written ({reason})") from error
        return self.convert(body, kind)

    def read_object(self, *, format_version: int | None = None, kind: str | None = None) -> dict[str, Any]:
        """The object that the file holds, of this `format_version` and `kind` where they are given.

        Raises:
            AnatomyError: see `read`; or it is of another version or kind.
        """
        body = self.read(dict[str, Any])
        for field, expected in (("format_version", format_version), ("kind", kind)):
            found = body.get(field)
            if expected is not None and (found != expected or type(found) is not type(expected)):
                raise self.error(f"{field.replace('_', ' ')} {shortened(found)}, expected {expected!r}")
        return body

    def convert(self, body: Any, kind: type[T]) -> T:
        """`body`, as JSON gives it, as a value of the type `kind`: a dataclass, `msgspec.Struct`, or of plain ones.

        No text is taken for a number, nor a truth value; fields that `kind` does not have are passed over.

        Raises:
            AnatomyError: a field is missing, or of another kind; `$` is the whole file in its place.
        """
        try:
            return msgspec.convert(body, kind, strict=True)
        except (msgspec.ValidationError, UnicodeError, RecursionError) as error:
            what = str(error).encode(errors="backslashreplace").decode()
            raise self.error(f"a field is missing or of the wrong kind: {what}{_found(body, what)}") from error

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


def _found(body: Any, message: str) -> str:
    """Where the message does not say it: what stands in the place that it names."""
    if ", got " in message or " - at `$" not in message:
        return ""
    value = body
    for name, index in STEP.findall(message.rpartition("`$")[2].rstrip("`")):
        try:
            value = value[name or int(index)]
        except (LookupError, TypeError):
            return ""
    return f" is {shortened(value)}"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
