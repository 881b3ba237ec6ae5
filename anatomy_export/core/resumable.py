"""A result file that grows while a study runs, so that the same command goes on where an interrupted one was."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from anatomy_export.core.files import write_atomic
from anatomy_export.core.json_files import JsonFile

STUDY, PARETO = "study.json", "pareto.json"
NEXT_STEP = "choose another --output, or remove this one"


@dataclass(frozen=True)
class ResultFile:
    """One JSON object with `settings` that two runs must share to stand in one file, and entries that are added to.

    Attributes:
        path: the file. kind: what it says of itself. entries: the field that grows, an object by name.
        entry: the type of one that was not `refused`.
        format_version: of the whole.
        free: settings that may differ between runs.
    """

    path: Path
    kind: str
    entries: str
    entry: type
    format_version: int = 1
    free: tuple[str, ...] = ()

    def earlier(self, settings: dict) -> dict[str, Any] | None:
        """The whole object of an earlier run with the same settings, None where there was none.

        Raises:
            AnatomyError: the file is damaged, of another kind or version, of another model, or of other settings.
        """
        if not self.path.exists():
            return None
        file = JsonFile(self.path, NEXT_STEP)
        body = file.read_object(format_version=self.format_version)
        if body.get("kind") != self.kind:
            raise file.error(f"a result of anatomy {body.get('kind')}, not of anatomy {self.kind}")
        fields = [("settings", dict[str, Any]), (self.entries, dict[str, dict[str, Any]])]
        file.convert(body, msgspec.defstruct("Result", fields))
        for name, entry in body[self.entries].items():
            if "refused" not in entry:
                JsonFile(self.path, NEXT_STEP, f"{self.path}, {name}").convert(entry, self.entry)
        self._check_settings(file, body["settings"], settings)
        return body

    def _check_settings(self, file: JsonFile, before: dict, settings: dict) -> None:
        if before.get("fingerprint") != settings["fingerprint"]:
            was, here = str(before.get("fingerprint"))[:12], settings["fingerprint"][:12]
            raise file.error(f"made with another model ({was}…, this one is {here}…)")
        for name in sorted((before.keys() | settings.keys()) - set(self.free)):
            there, here = before.get(name), settings.get(name)
            if there != here:
                raise file.error(f"made with other settings ({name}: {there!r} there, {here!r} now)")

    def write(self, body: dict) -> None:
        """Replace the file as a whole."""
        write_atomic(self.path, json.dumps(body, indent=1, allow_nan=False) + "\n")
