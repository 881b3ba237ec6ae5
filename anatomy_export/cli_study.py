"""The commands that study a model rather than export it: parse, call one function, print."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from anatomy_export.cli_common import (
    CRITERION_NAMES,
    AnatomyCommand,
    data_options,
    one_or_more_of,
    quiet_libraries,
    removed_shares,
)
from anatomy_export.errors import MissingExtraError, Terminated
from anatomy_export.progress import Progress

_PARETO_EPILOG = """\b
Examples:
  anatomy pareto --model bert --output pareto-bert
  anatomy pareto --model ./my-classifier --data reviews.csv --criteria obs-gradient,fisher --removed 0.5,0.7 --output p
"""


@click.command("pareto", cls=AnatomyCommand, epilog=_PARETO_EPILOG)
@click.option("--model", required=True, help="bert, gpt2, a checkpoint directory, or a hub id.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Directory; one of the same run goes on."
)
@data_options
@click.option("--criteria", default=",".join(CRITERION_NAMES), callback=one_or_more_of(*CRITERION_NAMES), help="All.")
@click.option(
    "--compensate",
    default="none,auto",
    show_default=True,
    callback=one_or_more_of("none", "bias", "least-squares", "auto"),
)
@click.option(
    "--allocate",
    default="sensitivity",
    show_default=True,
    callback=one_or_more_of("uniform", "global", "sensitivity"),
)
@click.option(
    "--removed",
    default="0.3,0.5,0.7,0.85,0.95",
    show_default=True,
    callback=removed_shares,
    help="Shares of the neurons that go.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="What latency is measured at.")
@click.option("--seq-len", type=click.IntRange(min=2), help="Tokens, likewise. Default: 128, or what the model takes.")
@click.option(
    "--max-length", type=click.IntRange(min=2), help="Tokens of a text. Default: 128, or what the model takes."
)
@click.option("--calibration-examples", type=click.IntRange(min=2), help="Train texts. Default: 512.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def pareto(**options) -> None:
    """Accuracy against measured latency: which ways to prune a model no other way beats."""
    from anatomy_export.bench.plots import pareto_plot
    from anatomy_export.exporter.pareto import ParetoRequest, run_pareto
    from anatomy_export.exporter.request import DataOptions
    from anatomy_export.files import write_atomic

    as_json = options.pop("as_json")
    data = {name: options.pop(name) for name in list(options) if name in DataOptions.__dataclass_fields__}
    request = ParetoRequest(data=DataOptions(**data), **options)
    quiet_libraries()
    progress = Progress()
    try:
        body = run_pareto(request, progress)
    except (KeyboardInterrupt, Terminated) as interrupt:
        click.echo(f"interrupted; the same command goes on from what {request.output} holds", err=True)
        raise click.exceptions.Exit(130 if isinstance(interrupt, KeyboardInterrupt) else 143) from None
    try:
        write_atomic(request.output / "pareto.svg", pareto_plot(body).decode("utf-8"))
    except MissingExtraError as error:
        progress.note(f"note: no plot ({error})")
    if as_json:
        click.echo(json.dumps(body))
    else:
        Console().print(_pareto_table(body))
        click.echo(f"wrote {request.output}")


def _pareto_table(body: dict) -> Table:
    table = Table(title="what no other way beats")
    for heading in ("way", "removed, %", "× dense", "validation, %", "test, %", "agreement, %"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name in body["non_dominated"]:
        one, test = body["results"][name], body["test"][name]
        table.add_row(
            name.rsplit("/", 1)[0],
            f"{100 * one['removed']:.0f}",
            f"{one['speedup']:.2f}",
            f"{100 * one['accuracy']:.2f}",
            f"{100 * test['accuracy']:.2f}",
            f"{100 * test['agreement']:.1f}",
        )
    return table
