"""`anatomy report`: figures of results in one HTML file."""

import json

import click
from cloup import argument, option

from anatomy_export.commands.guard import command
from anatomy_export.commands.options import json_option
from anatomy_export.commands.parameter_types import PATH, some_of
from anatomy_export.core.progress import Progress

EXAMPLES = """\b
Examples:
  anatomy report study-bert --output report.html
  anatomy report study-bert study-gpt2 --output both.html      # side by side
  anatomy report study-bert exports/bert-slice pareto-bert --output all.html --figures figures
"""


@command("report", epilog=EXAMPLES)
@argument("directories", metavar="DIR...", nargs=-1, required=True, type=PATH)
@option("--output", required=True, type=PATH, help="The HTML file.")
@option("--figures", type=PATH, help="Directory for every figure as files, for papers.")
@option("--formats", default="png,svg", type=some_of("png", "svg"), help="Of --figures.")
@option("--title", help="Default: the directories' names.")
@option("--force", is_flag=True, help="Replace an earlier report and its figures.")
@json_option
def report(as_json: bool, **options) -> None:
    """One HTML file with the figures of studies, scores, bundles, benchmarks and pareto runs.

    It opens offline and asks nothing of any server. Directories given together stand side by side.
    """
    from anatomy_export.jobs.report import ReportRequest, run_report

    written = run_report(ReportRequest(**options), Progress())
    if as_json:
        click.echo(json.dumps(written))
        return
    for figure in written["figures"]:
        number = f"figure {figure['number']}, " if figure["number"] else ""
        click.echo(f"{number}{figure['title']} ({figure['source']})\n  {figure['summary']}")
    more = f" and {written['figures_directory']}" if written["figures_directory"] else ""
    click.echo(f"wrote {written['output']} ({written['size_bytes'] / 1e6:.1f} MB){more}")
