"""What `anatomy report` does: read, draw, write."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import require_free, require_free_file, staged_directory, staged_file
from anatomy_export.core.names import markdown_text
from anatomy_export.core.progress import Progress
from anatomy_export.report.anatomy_figures import anatomy_figures
from anatomy_export.report.delivery_figures import bench_figures, bundle_figures, pareto_figures
from anatomy_export.report.figure import Figure, share_ranges
from anatomy_export.report.page import GENERATOR, plotly_script, report_page
from anatomy_export.report.reading import read_sources
from anatomy_export.report.sources import Bench, Bundle, Pareto, Score, Source, Study
from anatomy_export.report.static import static_figure
from anatomy_export.report.study_figures import study_figures

FORMATS = ("png", "svg")
INDEX = "figures.md"
HEAD_BYTES = 400


@dataclass(frozen=True)
class ReportRequest:
    """Everything that `anatomy report` was asked for; `figures`: directory for figures in `formats`, None for none."""

    directories: tuple[Path, ...]
    output: Path
    figures: Path | None = None
    formats: tuple[str, ...] = FORMATS
    title: str | None = None
    force: bool = False


def run_report(request: ReportRequest, progress: Progress) -> dict:
    """Write the report (and the figures); what was written, as plain values.

    Raises:
        AnatomyError: a directory is not one of ours or damaged, nothing is in it to draw, or an output is refused.
        MissingExtraError: plotly or, for figures, matplotlib is not installed.
    """
    _require_report(request.output, request.force)
    if request.figures:
        require_free(request.figures, request.force, (INDEX,))
    plotly_script()
    with progress.stage("read results"):
        sources = read_sources(request.directories)
    figures = share_ranges([figure for source in sources for figure in figures_of(source)])
    if not figures:
        raise AnatomyError(
            "nothing to draw: no setup has been measured yet; next step: let the command that writes it run on"
        )
    title = request.title or f"Anatomy report: {', '.join(dict.fromkeys(source.label for source in sources))}"
    with progress.stage("draw the report"):
        page = report_page(sources, figures, title)
    with ExitStack() as stack:
        names: list[list[str]] = [[] for _ in figures]
        if request.figures:
            staging = stack.enter_context(staged_directory(request.figures, request.force, (INDEX,)))
            names = _write_figures(figures, staging, request.formats, progress)
        _write_page(request.output, page, request.force)
    return _written(request, sources, figures, names, len(page.encode()))


def figures_of(source: Source) -> list[Figure]:
    """Every figure that one source has."""
    if isinstance(source, Study):
        return [*anatomy_figures(source.score), *study_figures(source)]
    if isinstance(source, Score):
        return anatomy_figures(source)
    if isinstance(source, Bundle):
        return bundle_figures(source)
    if isinstance(source, Bench):
        return bench_figures(source)
    return pareto_figures(source) if isinstance(source, Pareto) else []


def _require_report(output: Path, force: bool) -> None:
    """Raise AnatomyError where `output` is a directory, or a file that `force` does not allow to replace."""
    require_free_file(output, force)
    if not output.exists():
        return
    with open(output, "rb") as file:
        ours = f'content="{GENERATOR} '.encode() in file.read(HEAD_BYTES)
    if not ours:
        raise AnatomyError(
            f"output {output} is no report, so --force does not replace it; next step: choose another --output, or "
            "remove it yourself"
        )


def _write_page(output: Path, page: str, force: bool) -> None:
    _require_report(output, force)
    if not output.absolute().parent.is_dir():
        raise AnatomyError(f"cannot write {output}: No such file or directory; next step: choose another --output")
    with staged_file(output, force) as staged:
        staged.write_bytes(page.encode())


def _write_figures(
    figures: Sequence[Figure], directory: Path, formats: tuple[str, ...], progress: Progress
) -> list[list[str]]:
    """Names of the files of every figure; `figures.md` says what each shows."""
    names: list[list[str]] = []
    taken: set[str] = set()
    with progress.bar("draw the figures", len(figures)) as tick:
        for figure in figures:
            stem = _stem(figure, taken)
            drawn = static_figure(figure, formats)
            for ending, content in drawn.items():
                (directory / f"{stem}.{ending}").write_bytes(content)
            names.append([f"{stem}.{ending}" for ending in drawn])
            tick()
    listed = "\n".join(_described(figure, files) for figure, files in zip(figures, names, strict=True))
    (directory / INDEX).write_text(f"# Figures\n\n{listed}", encoding="utf-8")
    return names


def _described(figure: Figure, names: Sequence[str]) -> str:
    notes = markdown_text(" ".join((figure.summary, *figure.notes)))
    number = f"{figure.name}. " if figure.number else ""
    heading = markdown_text(f"{number}{figure.title} ({figure.source})")
    return f"## {heading}\n\n{markdown_text(', '.join(names))}\n\n{notes}\n"


def _stem(figure: Figure, taken: set[str]) -> str:
    """A file name that says number, topic and source, different for every figure."""
    number = ("table-" if figure.number == "5a" else "figure-") + figure.number if figure.number else ""
    words = "-".join(part for part in (number, figure.topic, figure.source) if part)
    base = re.sub(r"[^\w.]+", "-", words.lower()).strip("-.")
    stem = next(stem for stem in chain([base], (f"{base}-{number}" for number in count(2))) if stem not in taken)
    taken.add(stem)
    return stem


def _written(
    request: ReportRequest, sources: Sequence[Source], figures: Sequence[Figure], names: list[list[str]], size: int
) -> dict:
    return {
        "output": str(request.output),
        "size_bytes": size,
        "figures_directory": str(request.figures) if request.figures else None,
        "sources": [{"label": source.label, "kind": source.source, "path": str(source.path)} for source in sources],
        "figures": [
            {
                "number": figure.number or None,
                "title": figure.title,
                "source": figure.source,
                "summary": figure.summary,
                "notes": list(figure.notes),
                "files": files,
            }
            for figure, files in zip(figures, names, strict=True)
        ],
    }
