"""One HTML file that needs nothing else: figures, texts and tables of every source."""

import html
import json
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from anatomy_export.core.errors import MissingExtraError
from anatomy_export.core.names import public_name
from anatomy_export.core.version import __version__
from anatomy_export.report.figure import ALL, Figure, HeatMap, Panel, Part, Row, TextTable, seen_at_first
from anatomy_export.report.interactive import heat_plot, panel_plot
from anatomy_export.report.overview import facts, footer_facts
from anatomy_export.report.sources import Score, Source, Study
from anatomy_export.report.wording import shortened

GENERATOR = "anatomy report"
LONG, MANY = 60, 5


def plotly_script() -> str:
    """The source of plotly.js, about 4.5 MB.

    Raises:
        MissingExtraError: the package plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("plotly", "report") from error
    return get_plotlyjs()


def report_page(sources: Sequence[Source], figures: Sequence[Figure], title: str) -> str:
    """The page's text."""
    here = files("anatomy_export.report")
    plots: list[dict] = []
    sections = "\n".join(_sections(sources, figures, plots))
    return Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        generator=f"{GENERATOR} {__version__}",
        title=html.escape(title),
        css=(here / "page.css").read_text(encoding="utf-8"),
        sources="\n".join(_source_card(source) for source in sources),
        choices=_choices(sources),
        sections=sections,
        footer=_footer(sources),
        plots=json.dumps(plots, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        plotly=plotly_script(),
        js=(here / "page.js").read_text(encoding="utf-8"),
    )


def _prose(text: str) -> str:
    """Text as HTML, in which no line breaks between a number and its unit."""
    return html.escape(text).replace(" %", "\u00a0%").replace(" ×", "\u00a0×").replace(" s ", "\u00a0s ")


def _scores(sources: Sequence[Source]) -> list[Score]:
    scores = [source.score if isinstance(source, Study) else source for source in sources]
    return [score for score in scores if isinstance(score, Score)]


def _source_card(source: Source) -> str:
    rows = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{_prose(value)}</dd></div>" for name, value in facts(source))
    label = html.escape(source.label)
    return f'<article class="card" data-of="{label}"><h3>{label}</h3><dl>{rows}</dl>{_probes(source)}</article>'


def _probes(source: Source) -> str:
    probes = [probe for score in _scores([source]) for probe in score.probes]
    if not probes:
        return ""
    rows = "".join(
        f'<tr><td class="number" data-heading="probe">{number}</td>'
        f'<td data-heading="text">{html.escape(probe.text)}</td>'
        f'<td data-heading="task">{html.escape(probe.task or "–")}</td></tr>'
        for number, probe in enumerate(probes, start=1)
    )
    head = '<thead><tr><th class="number">probe</th><th>text</th><th>task</th></tr></thead>'
    table = f'<div class="table"><table>{head}<tbody>{rows}</tbody></table></div>'
    return f"<details><summary>The {len(probes)} probes</summary>{table}</details>"


def _choices(sources: Sequence[Source]) -> str:
    scores = _scores(sources)
    parts = []
    if scores:
        widest = max(scores, key=lambda score: len(score.probes)).anatomy.probes
        same = all(score.anatomy.probes == widest for score in scores)
        texts = [f": {shortened(text, 40)}" if same else "" for text in widest]
        probes = [(ALL, "all"), *((index, f"{index + 1}{text}") for index, text in enumerate(texts))]
        most = max(len(score.widths) for score in scores)
        layers = [(ALL, "all"), *((layer, str(layer)) for layer in range(most))]
        parts += [_select("probe", "Probe", probes), _select("layer", "Layer", layers)]
    if len(sources) > 1:
        boxes = "".join(
            f'<label><input type="checkbox" data-source="{html.escape(label)}" checked>{html.escape(label)}</label>'
            for label in dict.fromkeys(source.label for source in sources)
        )
        parts.append(f"<fieldset><legend>Side by side</legend>{boxes}</fieldset>")
    return "".join(parts)


def _select(kind: str, label: str, options: Sequence[tuple[int, str]]) -> str:
    listed = "".join(f'<option value="{value}">{html.escape(text)}</option>' for value, text in options)
    return f'<label>{label} <select data-choice="{kind}" aria-label="{label}">{listed}</select></label>'


def _sections(sources: Sequence[Source], figures: Sequence[Figure], plots: list[dict]):
    reach = {score.label: (len(score.probes), len(score.widths)) for score in _scores(sources)}
    for topic in dict.fromkeys(figure.topic for figure in figures):
        group = [figure for figure in figures if figure.topic == topic]
        cards = "\n".join(_card(figure, reach.get(figure.source, (0, 0)), plots) for figure in group)
        parts = group[0].parts
        wide = len(group) > 1 or len(parts) > 1 or any(_is_wide(part) for part in parts)
        kind = ' class="wide"' if wide else ""
        yield f'<section{kind}><h2>{html.escape(topic)}</h2><div class="grid">{cards}</div></section>'


def _is_wide(part: Part) -> bool:
    """Does a part want the whole page's width?"""
    return part.x_hidden if isinstance(part, Panel) else isinstance(part, TextTable) and len(part.headings) > MANY


def _card(figure: Figure, reach: tuple[int, int], plots: list[dict]) -> str:
    name = f"{figure.name} " if figure.number else ""
    heading = f'<h3>{html.escape(name)}<span class="of">{html.escape(figure.source)}</span></h3>'
    summary = f'<p class="summary">{_prose(figure.summary)}</p>'
    notes = "".join(f'<p class="note">{_prose(note)}</p>' for note in figure.notes)
    parts = "".join(_part(part, figure, reach, plots) for part in figure.parts)
    parts = f'<div class="parts">{parts}</div>' if len(figure.parts) > 1 else parts
    tables_only = all(isinstance(part, TextTable) for part in figure.parts)
    body = f"{summary}{notes}{parts}" if tables_only else f"{parts}{summary}{notes}"
    return f'<article class="card" data-of="{html.escape(figure.source)}">{heading}{body}</article>'


def _part(part: Part, figure: Figure, reach: tuple[int, int], plots: list[dict]) -> str:
    if isinstance(part, TextTable):
        return _table(part, reach)
    label = f"{figure.title}, {figure.source}"
    plot = panel_plot(part, label) if isinstance(part, Panel) else heat_plot(part, label)
    plots.append({**plot, "probes": reach[0], "layers": reach[1]})
    square = " square" if isinstance(part, HeatMap) else ""
    head = f"<h4>{html.escape(part.title)}</h4>" if isinstance(part, Panel) and part.title else ""
    drawn = (
        f'<div class="plot{square}" role="img" aria-label="{html.escape(label)}" data-plot="{len(plots) - 1}"></div>'
    )
    return f"<div>{head}{drawn}</div>" if head else drawn


def _table(table: TextTable, reach: tuple[int, int]) -> str:
    head = "".join(f"<th{_aligned(table, at)}>{html.escape(text)}</th>" for at, text in enumerate(table.headings))
    rows = "".join(_row(table, row, reach) for row in table.rows)
    many = " many" if len(table.headings) > MANY else ""
    return f'<div class="table{many}"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(table: TextTable, row: Row, reach: tuple[int, int]) -> str:
    cells = "".join(
        f'<td{_aligned(table, at, text)} data-heading="{html.escape(table.headings[at])}">{html.escape(text)}</td>'
        for at, text in enumerate(row.cells)
    )
    if row.probes is None and row.layers is None:
        return f"<tr>{cells}</tr>"
    hidden = "" if seen_at_first(row.probes, row.layers) else " hidden"
    choices = {"probes": row.probes, "layers": row.layers, "reach": reach}
    return f"<tr data-choices='{json.dumps(choices, separators=(',', ':'))}'{hidden}>{cells}</tr>"


def _aligned(table: TextTable, column: int, text: str = "") -> str:
    kind = "number" if column in table.numeric else "long" if len(text) > LONG else ""
    return f' class="{kind}"' if kind else ""


def _footer(sources: Sequence[Source]) -> str:
    lines = [f"Made by anatomy-export {__version__} from {', '.join(public_name(source.path) for source in sources)}."]
    lines += [fact for source in sources for fact in footer_facts(source)]
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)
