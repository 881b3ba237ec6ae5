"""Directories that a report is made of: recognised by their files, read strictly."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from anatomy_export.bench.results import FORMAT_VERSION as BENCH_VERSION
from anatomy_export.bundle.manifest import read_manifest
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import MANIFEST
from anatomy_export.core.json_files import JsonFile
from anatomy_export.paper.anatomy_file import read_anatomy
from anatomy_export.plan_files.plan import read_plan
from anatomy_export.report.sources import (
    Bench,
    Bundle,
    MeasuredSetup,
    Measurement,
    Pareto,
    Score,
    Setup,
    Source,
    Study,
)

SCORE_COMMAND, STUDY_COMMAND = "anatomy score", "anatomy study"
NEXT_STEP = "next step: pass what score, study, pareto, export or bench wrote"


def read_sources(directories: Sequence[Path]) -> list[Source]:
    """Everything that the directories hold, in their order.

    Raises:
        AnatomyError: a directory is missing or holds nothing known, or a file in it is damaged.
    """
    labels = _labels(directories)
    return [source for directory, label in zip(directories, labels, strict=True) for source in _read(directory, label)]


def _labels(directories: Sequence[Path]) -> list[str]:
    """The directories' names; where two have the same one, with as many of their parents as tell them apart."""
    paths = [Path(os.path.abspath(directory)) for directory in directories]
    repeated = {path for path in paths if paths.count(path) > 1}
    if repeated:
        raise AnatomyError(f"{min(repeated)} was given twice; next step: name each directory once")
    return [_label(path, paths) for path in paths]


def _label(path: Path, others: Sequence[Path]) -> str:
    for count in range(1, len(path.parts)):
        tail = path.parts[-count:]
        if sum(other.parts[-count:] == tail for other in others) == 1:
            return "/".join(tail)
    return str(path)


def _read(directory: Path, label: str) -> list[Source]:
    directory = Path(directory)
    if not directory.is_dir():
        what = "is a file, expected a directory" if directory.exists() else "does not exist"
        raise AnatomyError(f"{directory} {what}; {NEXT_STEP}")
    readers = {mark: read for mark, read in READERS.items() if (directory / mark).exists()}
    if "study.json" in readers:
        readers.pop("anatomy.json", None)
    if not readers:
        inside = "is empty" if not any(directory.iterdir()) else "holds none of " + ", ".join(READERS)
        raise AnatomyError(f"{directory} {inside}; {NEXT_STEP}")
    return [read(directory, label) for read in readers.values()]


def _json_file(path: Path, command: str, part: str = "") -> JsonFile:
    return JsonFile(path, f"make it again with {command}", f"{path}, {part}" if part else "")


def read_score(directory: Path, label: str, command: str = SCORE_COMMAND) -> Score:
    """`anatomy.json` and `anatomy.npz`."""
    file = _json_file(directory / "anatomy.json", command)
    body = file.read_object(format_version=1, kind="anatomy")
    anatomy = read_anatomy(directory, command)
    return file.convert({**body, "label": label, "path": directory, "anatomy": anatomy}, Score)


def read_study(directory: Path, label: str) -> Study | Score:
    """`study.json`, and the score beside it; the score alone where nothing was measured yet."""
    path = directory / "study.json"
    file = _json_file(path, STUDY_COMMAND)
    body = file.read_object(format_version=1, kind="study")
    score = read_score(directory, label, STUDY_COMMAND)
    body |= {"label": label, "path": directory, "score": score}
    if file.convert(body, Measurement).settings.fingerprint != score.anatomy.fingerprint:
        raise file.error("it is of another model than the anatomy.json beside it")
    if "dense" in body and body["dense"] is None:
        return score
    setups = _json_file(path, STUDY_COMMAND, "setups").convert(body.get("setups"), dict[str, dict[str, Any]])
    study = file.convert({**body, "setups": []}, Study)
    return replace(study, setups=tuple(_setup(path, name, setup, score) for name, setup in setups.items()))


def _setup(path: Path, name: str, body: dict[str, Any], score: Score) -> Setup:
    file = _json_file(path, STUDY_COMMAND, f"setup {name}")
    if body.get("refused") is not None:
        return file.convert({**body, "name": name}, Setup)
    setup = file.convert({**body, "name": name}, MeasuredSetup)
    for field, values in (("thresholds", setup.thresholds), ("removed_per_layer", setup.removed_per_layer)):
        if values is not None and len(values) != len(score.widths):
            raise file.error(f"{field} has {len(values)} values, expected {len(score.widths)}")
    return setup


def read_bundle(directory: Path, label: str) -> Bundle:
    """`bundle.json`, `verify.json` and `plan.json`."""
    command = "anatomy export"
    verified = _json_file(directory / "verify.json", command).read_object()
    body = {
        **read_manifest(directory),
        "label": label,
        "path": directory,
        "comparisons": verified.get("comparisons"),
        "plan": read_plan(directory / "plan.json"),
    }
    return _json_file(directory / MANIFEST, command).convert(body, Bundle)


def read_bench(directory: Path, label: str) -> Bench:
    """`bench.json`, of either measurement."""
    file = _json_file(directory / "bench.json", "anatomy bench")
    body = file.read_object(format_version=BENCH_VERSION)
    return file.convert({**body, "label": label, "path": directory}, Bench)


def read_pareto(directory: Path, label: str) -> Pareto:
    """`pareto.json`."""
    path = directory / "pareto.json"
    file = _json_file(path, "anatomy pareto")
    body = file.read_object(format_version=1, kind="pareto")
    ways = _json_file(path, "anatomy pareto", "results").convert(body.get("results"), dict[str, dict[str, Any]])
    measured = {name: way for name, way in ways.items() if "refused" not in way}
    pareto = file.convert({**body, "label": label, "path": directory, "results": measured, "tried": len(ways)}, Pareto)
    if not set(pareto.non_dominated) <= set(ways):
        raise file.error("non_dominated names ways that are not in results")
    return pareto


READERS: dict[str, Callable[[Path, str], Source]] = {
    "study.json": read_study,
    "anatomy.json": read_score,
    "pareto.json": read_pareto,
    "bench.json": read_bench,
    MANIFEST: read_bundle,
}
