"""`anatomy report`: figures of results in one HTML file."""

from cloup import argument, command, option

from anatomy_export.commands import kinds, options
from anatomy_export.commands.terminal import print_answer
from anatomy_export.core.progress import Progress

EXAMPLES = """\b
Examples:
  anatomy report study-bert --output report.html
  anatomy report study-bert study-gpt2 --output both.html      # side by side
  anatomy report study-bert exports/bert-slice pareto-bert --output all.html --figures figures
"""


@command("report", epilog=EXAMPLES)
@argument("directories", metavar="DIR...", nargs=-1, required=True, type=kinds.PATH)
@option("--output", required=True, type=kinds.PATH, help="The HTML file.")
@option("--figures", type=kinds.PATH, help="Directory for every figure as files, for papers.")
@option("--formats", default="png,svg", type=kinds.some_of("png", "svg"), help="Of --figures.")
@option("--title", help="Default: the directories' names.")
@option("--force", is_flag=True, help="Replace an earlier report and its figures.")
@options.as_json
def report(as_json: bool, **given) -> None:
    """One HTML file with the figures of studies, scores, bundles, benchmarks and pareto runs.

    It opens offline and asks nothing of any server. Directories given together stand side by side.
    """
    from anatomy_export.jobs.report import ReportRequest, run_report

    written = run_report(ReportRequest(**given), Progress())
    more = f" and {written['figures_directory']}" if written["figures_directory"] else ""
    end = f"wrote {written['output']} ({written['size_bytes'] / 1e6:.1f} MB){more}"
    print_answer(as_json, written, lambda: (*map(_figure_lines, written["figures"]), end))


def _figure_lines(figure: dict) -> str:
    number = f"figure {figure['number']}, " if figure["number"] else ""
    return f"{number}{figure['title']} ({figure['source']})\n  {figure['summary']}"
