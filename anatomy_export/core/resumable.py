"""A result file that grows while a study runs, so that the same command goes on where an interrupted one was."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import write_atomic

STUDY, PARETO = "study.json", "pareto.json"


@dataclass(frozen=True)
class ResultFile:
    """One JSON object with `settings` that two runs must share to stand in one file, and entries that are added to.

    Attributes:
        path: the file. kind: what it says of itself. entries: the field that grows, an object by name.
        format_version: of the whole.
        free: settings that may differ between runs.
    """

    path: Path
    kind: str
    entries: str
    format_version: int = 1
    free: tuple[str, ...] = ()

    def earlier(self, settings: dict, check: Callable[[dict], None] = lambda entry: None) -> dict[str, Any] | None:
        """The whole object of an earlier run with the same settings, None where there was none.

        `check` raises KeyError, TypeError or ValueError for an entry that is not as it should be.

        Raises:
            AnatomyError: the file is damaged, of another kind or version, of another model, or of other settings.
        """
        if not self.path.exists():
            return None
        try:
            body = json.loads(self.path.read_text(encoding="utf-8"))
            kind, before, entries = body["kind"], dict(body["settings"]), body[self.entries].values()
            for one in entries:
                check(one)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._refused(f"not a result of anatomy {self.kind}, or a damaged one ({_said(error)})") from error
        if kind != self.kind:
            raise self._refused(f"a result of anatomy {kind}, not of anatomy {self.kind}")
        if body.get("format_version") != self.format_version:
            raise self._refused(f"format version {body.get('format_version')!r}, expected {self.format_version}")
        if before.get("fingerprint") != settings["fingerprint"]:
            was, now = str(before.get("fingerprint"))[:12], settings["fingerprint"][:12]
            raise self._refused(f"made with another model ({was}…, this one is {now}…)")
        names = sorted((before.keys() | settings.keys()) - set(self.free))
        different = [name for name in names if before.get(name) != settings.get(name)]
        if different:
            there, here = (one.get(different[0]) for one in (before, settings))
            raise self._refused(f"made with other settings ({different[0]}: {there!r} there, {here!r} now)")
        return body

    def write(self, body: dict) -> None:
        """Replace the file as a whole."""
        write_atomic(self.path, json.dumps(body, indent=1, allow_nan=False) + "\n")

    def _refused(self, what: str) -> AnatomyError:
        return AnatomyError(f"{self.path}: {what}; next step: choose another --output, or remove this one")


def _said(error: Exception) -> str:
    return f"lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
