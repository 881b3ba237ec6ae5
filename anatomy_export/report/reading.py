"""Directories that a report is made of: recognised by their files, read strictly."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from anatomy_export.bench.results import read_results
from anatomy_export.bundle.manifest import read_manifest
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.names import public_name
from anatomy_export.paper.anatomy_file import read_anatomy
from anatomy_export.plans.plan import read_plan
from anatomy_export.report.fields import Fields, read_fields
from anatomy_export.report.sources import Bench, Bundle, Comparison, Pareto, Score, Seconds, Setup, Source, Study

SCORE_COMMAND, STUDY_COMMAND = "anatomy score", "anatomy study"


def read_sources(directories: Sequence[Path]) -> list[Source]:
    """Everything that the directories hold, in their order.

    Raises:
        AnatomyError: a directory is missing or holds nothing known, or a file in it is damaged.
    """
    labels = _labels(directories)
    return [source for directory, label in zip(directories, labels, strict=True) for source in _read(directory, label)]


def _labels(directories: Sequence[Path]) -> list[str]:
    """The directories' names; where two have the same one, with as many of their parents as tell them apart."""
    paths = [Path(os.path.abspath(one)) for one in directories]
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
        raise AnatomyError(f"{directory} {what}; next step: pass what score, study, pareto, export or bench wrote")
    found = {mark: read for mark, read in READERS.items() if (directory / mark).exists()}
    if "study.json" in found:
        found.pop("anatomy.json", None)
    if not found:
        inside = "is empty" if not any(directory.iterdir()) else "holds none of " + ", ".join(READERS)
        raise AnatomyError(f"{directory} {inside}; next step: pass what score, study, pareto, export or bench wrote")
    return [read(directory, label) for read in found.values()]


def read_score(directory: Path, label: str, command: str = SCORE_COMMAND) -> Score:
    """`anatomy.json` and `anatomy.npz`."""
    fields = read_fields(directory / "anatomy.json", command, kind="anatomy")
    probes = fields.objects("probes")
    summary = fields.inside("summary")
    rule = fields.text("rule")
    if rule not in ("bert", "gpt2"):
        raise fields.wrong("rule", "'bert' or 'gpt2'")
    widths = fields.wholes("widths")
    if not probes or not widths:
        raise fields.error("has no probes or no layers")
    fields.number("strong_threshold"), fields.text("fingerprint"), fields.text("arrays_sha256")
    for probe in probes:
        probe.text("text")
    return Score(
        label=label,
        path=directory,
        anatomy=read_anatomy(directory, command),
        model=public_name(fields.text("model")),
        family=fields.text("family"),
        rule=rule,
        widths=widths,
        tasks=tuple(probe.optional("task", "text") for probe in probes),
        jaccard_chance=summary.optional("jaccard_chance", "number"),
        quantile_threshold=summary.optional("quantile_threshold", "number"),
        quantile_share=summary.optional("quantile_share", "number"),
    )


def read_study(directory: Path, label: str) -> Study | Score:
    """`study.json`, and the score beside it; the score alone where nothing was measured yet."""
    fields = read_fields(directory / "study.json", STUDY_COMMAND, kind="study")
    score = read_score(directory, label, STUDY_COMMAND)
    settings = fields.inside("settings").body
    if settings.get("fingerprint") != score.anatomy.fingerprint:
        raise fields.error("it is of another model than the anatomy.json beside it")
    if not isinstance(fields.body.get("partial"), bool):
        raise fields.wrong("partial", "true or false")
    if "dense" in fields.body and fields.body["dense"] is None:
        return score
    dense = fields.inside("dense")
    return Study(
        score=score,
        settings=settings,
        environment=None if fields.body.get("environment") is None else fields.inside("environment").body,
        partial=fields.body["partial"],
        dense_accuracy=dense.number("accuracy"),
        dense_interval=dense.pair("interval"),
        examples=dense.whole("examples"),
        dense_seconds=_seconds(dense),
        setups=tuple(_setup(name, one, len(score.widths)) for name, one in fields.by_name("setups").items()),
    )


def _setup(name: str, fields: Fields, layers: int) -> Setup:
    kind = fields.text("kind")
    if kind not in ("anatomy", "random"):
        raise fields.wrong("kind", "'anatomy' or 'random'")
    asked = Setup(
        name=name,
        kind=kind,
        alpha=fields.optional("alpha", "number"),
        beta=fields.optional("beta", "number"),
        focus=fields.optional("focus", "wholes") or (),
        seed=fields.optional("seed", "whole"),
        matches=fields.optional("matches", "text"),
        share=fields.optional("share", "number"),
        thresholds=None,
        refused=fields.optional("refused", "text"),
    )
    return asked if asked.refused is not None else _with_figures(asked, fields, layers)


def _with_figures(asked: Setup, fields: Fields, layers: int) -> Setup:
    thresholds = None
    if fields.body.get("thresholds") is not None:
        thresholds = tuple((one.number("value"), one.text("rule")) for one in fields.objects("thresholds"))
        if len(thresholds) != layers:
            raise fields.wrong("thresholds", f"{layers} of them")
    removed = fields.wholes("removed_per_layer")
    if len(removed) != layers:
        raise fields.wrong("removed_per_layer", f"{layers} numbers")
    return replace(
        asked,
        thresholds=thresholds,
        removed_per_layer=removed,
        removed=fields.whole("removed"),
        removed_share=fields.number("removed_share"),
        accuracy=fields.number("accuracy"),
        interval=fields.pair("interval"),
        agreement=fields.number("agreement"),
        mean_abs_delta=fields.number("mean_abs_delta"),
        seconds=_seconds(fields),
    )


def _seconds(fields: Fields) -> Seconds | None:
    if fields.body.get("seconds") is None:
        return None
    own = fields.inside("seconds")
    return Seconds(
        median_s=own.number("median_s"),
        interval_s=own.optional("interval_s", "pair"),
        examples=own.whole("examples"),
        engine=own.text("engine"),
        device=own.optional("device", "text") or "",
        dense_ratio=own.optional("dense_ratio", "number"),
        dense_ratio_interval=own.optional("dense_ratio_interval", "pair"),
    )


def read_bundle(directory: Path, label: str) -> Bundle:
    """`bundle.json`, `verify.json` and `plan.json`."""
    command = "anatomy export"
    manifest = Fields(read_manifest(directory), directory / "bundle.json", command)
    verified = read_fields(directory / "verify.json", command, kind=None, format_version=None)
    result = {
        name: (values.optional("dense", "number"), values.optional("pruned", "number"))
        for name, values in manifest.by_name("result").items()
    }
    return Bundle(
        label=label,
        path=directory,
        name=manifest.text("name"),
        mode=manifest.text("mode"),
        result=result,
        comparisons=tuple(_comparison(one) for one in verified.objects("comparisons")),
        plan=read_plan(directory / "plan.json"),
    )


def _comparison(fields: Fields) -> Comparison:
    rows, length = fields.pair("shape")
    return Comparison(
        fields.text("name"), (int(rows), int(length)), fields.number("max_abs_error"), fields.number("tolerance")
    )


def read_bench(directory: Path, label: str) -> Bench:
    """`bench.json`, of either measurement."""
    file = directory / "bench.json"
    fields = Fields(read_results(directory), file, "anatomy bench")
    kind = fields.text("kind")
    time = "total_s" if kind == "paper" else "median_s"
    for one in fields.objects("results"):
        for name in ("engine", "variant", "name"):
            one.text(name)
        one.number(time)
        for name in ("keep_ratio", "removed_share", "speedup"):
            one.optional(name, "number")
    return Bench(label, directory, fields.body)


def read_pareto(directory: Path, label: str) -> Pareto:
    """`pareto.json`."""
    fields = read_fields(directory / "pareto.json", "anatomy pareto", kind="pareto")
    latency = fields.inside("latency")
    latency.whole("batch"), latency.whole("seq_len")
    for one in fields.by_name("results").values():
        if "refused" not in one.body:
            one.number("accuracy"), one.number("speedup"), one.number("removed")
            one.optional("criterion", "text"), one.optional("compensate", "text")
    best = fields.body.get("non_dominated", [])
    if not isinstance(best, list) or any(name not in fields.body["results"] for name in best):
        raise fields.wrong("non_dominated", "a list of names of results")
    return Pareto(label, directory, fields.body)


READERS: dict[str, Callable[[Path, str], Source]] = {
    "study.json": read_study,
    "anatomy.json": read_score,
    "pareto.json": read_pareto,
    "bench.json": read_bench,
    "bundle.json": read_bundle,
}
