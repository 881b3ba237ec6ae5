"""The command `report`: parse, call one function, print."""

import json
from pathlib import Path

import click

from anatomy_export.commands.common import AnatomyCommand, one_or_more_of
from anatomy_export.core.progress import Progress

_EPILOG = """\b
Examples:
  anatomy report study-bert --output report.html
  anatomy report study-bert study-gpt2 --output both.html      # side by side
  anatomy report study-bert exports/bert-slice pareto-bert --output all.html --figures figures
"""


@click.command("report", cls=AnatomyCommand, epilog=_EPILOG)
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The HTML file.")
@click.option("--figures", type=click.Path(path_type=Path), help="Directory for every figure as files, for papers.")
@click.option(
    "--formats", default="png,svg", show_default=True, callback=one_or_more_of("png", "svg"), help="Of --figures."
)
@click.option("--title", help="Default: the directories' names.")
@click.option("--force", is_flag=True, help="Replace an earlier report and its figures.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def report(**options) -> None:
    """One HTML file with the figures of studies, scores, bundles, benchmarks and pareto runs.

    It opens offline and asks nothing of any server. Directories given together stand side by side.
    """
    from anatomy_export.jobs.report import ReportRequest, run_report

    as_json = options.pop("as_json")
    written = run_report(ReportRequest(**options), Progress())
    if as_json:
        click.echo(json.dumps(written))
        return
    for figure in written["figures"]:
        number = f"figure {figure['number']}, " if figure["number"] else ""
        click.echo(f"{number}{figure['title']} ({figure['source']})\n  {figure['summary']}")
    more = f" and {written['figures_directory']}" if written["figures_directory"] else ""
    click.echo(f"wrote {written['output']} ({written['size_bytes'] / 1e6:.1f} MB){more}")
