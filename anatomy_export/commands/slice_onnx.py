"""The commands that work on an existing ONNX file, without torch: parse, call one function, print."""

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from anatomy_export.commands.common import (
    CRITERION_NAMES,
    AnatomyCommand,
    data_options,
    finite,
    print_table,
    refuse_alone,
    refuse_together,
    share,
)
from anatomy_export.commands.precision_options import precision_of, precision_options, refuse_precision_alone
from anatomy_export.core.progress import Progress

OF_ANATOMY = ("probes", "strong_threshold")
OF_DATA = ("data", "text_column", "label_column", "split_column", "max_length", "eval_examples")
_SLICE_EPILOG = """\b
Examples:
  anatomy slice-onnx model.onnx --plan exports/bert-slice/plan.json -o sliced.onnx
  anatomy slice-onnx model.onnx --plan plan.json --dry-run
  anatomy slice-onnx model.onnx --keep-ratio 0.5 --criterion magnitude --save-plan plan.json -o sliced.onnx
  anatomy slice-onnx model.onnx --plan plan.json --precision int8 --data reviews.csv -o sliced-int8.onnx
  anatomy slice-onnx model.onnx --keep-ratio 0.5 --criterion anatomy --tokenizer tokenizer.json -o sliced.onnx
"""


@click.command("slice-onnx", cls=AnatomyCommand, epilog=_SLICE_EPILOG)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--plan", type=click.Path(path_type=Path), help="A plan.json; a repair that it names lies beside it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The .onnx file to write.")
@click.option("--keep-ratio", type=float, callback=share, help="Without a plan: share of the neurons that stays.")
@click.option(
    "--criterion",
    type=click.Choice(CRITERION_NAMES),
    default="magnitude",
    show_default=True,
    help="Of --keep-ratio: magnitude, random, or anatomy (extra edge); the others need the torch model.",
)
@click.option("--align", type=click.IntRange(min=1), default=16, show_default=True, help="Of --keep-ratio.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of --criterion random.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json, for --data and --criterion anatomy. [default: beside MODEL, or above its onnx/]",
)
@click.option(
    "--probes",
    help="Of --criterion anatomy: a text file, one a line. [default: ten reviews, or texts of --data]",
)
@click.option(
    "--strong-threshold", type=float, callback=finite, default=0.35, show_default=True, help="Of --criterion anatomy."
)
@precision_options
@data_options
@click.option(
    "--max-length", type=click.IntRange(min=2), help="Tokens of a text that are read. Default: what the model takes."
)
@click.option("--eval-examples", type=click.IntRange(min=1), help="Of --data: test examples. Default: all.")
@click.option("--allow-uncut", is_flag=True, help="Without a plan: cut the others where an FFN cannot be.")
@click.option("--save-plan", type=click.Path(path_type=Path), help="Write the plan of --keep-ratio too.")
@click.option("--force", is_flag=True, help="Replace an earlier output.")
@click.option("--dry-run", is_flag=True, help="Find the FFNs and check the plan; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def slice_onnx(**options) -> None:
    """Cut the FFNs of an ONNX file by a plan, whatever exported it. With --data, accuracy is measured before and
    after."""
    _refuse_contradictions(options)
    from anatomy_export.data.options import DataOptions
    from anatomy_export.jobs.slice_onnx import SliceRequest, run_slice

    taken: dict[str, Any] = {"precision": precision_of(options)}
    taken["limits_drop"] = options["max_precision_drop"] is not None
    taken["data"] = DataOptions(**{name: options[name] for name in OF_DATA})
    names = SliceRequest.__dataclass_fields__.keys() - taken.keys()
    result = run_slice(SliceRequest(**{name: options[name] for name in names}, **taken), Progress())
    if options["as_json"]:
        click.echo(json.dumps(result.as_dict()))
        return
    print_table(_table(result))
    click.echo(f"wrote {result.output}" if result.output else "dry run: nothing was written")


def _refuse_contradictions(options: dict) -> None:
    if (options["plan"] is None) == (options["keep_ratio"] is None):
        raise click.UsageError("Give either --plan or --keep-ratio.")
    if options["plan"]:
        refuse_together(
            "--plan",
            "already says which neurons stay",
            ("criterion", "align", "seed", *OF_ANATOMY, "save_plan", "allow_uncut"),
        )
    for criterion, names in (("random", ("seed",)), ("anatomy", OF_ANATOMY)):
        for name in names if options["plan"] is None and options["criterion"] != criterion else ():
            refuse_alone(name, f"--criterion {criterion}")
    refuse_precision_alone(options)
    if options["data"] is None:
        if options["int8"] == "static":
            raise click.UsageError("--int8 static takes its ranges from text: pass --data.")
        for name in ("text_column", "label_column", "split_column", "eval_examples", "max_precision_drop"):
            refuse_alone(name, "--data")
        if options["plan"] or options["criterion"] != "anatomy":
            for name in ("tokenizer", "max_length"):
                refuse_alone(name, "--data or --criterion anatomy")
    if options["dry_run"]:
        options.update(output=None, save_plan=None)
    elif options["output"] is None:
        raise click.UsageError("Missing option '-o' / '--output'.")


def _table(result) -> Table:
    table = Table(title=f"{sum(one.width - one.kept for one in result.layers):,} FFN neurons removed")
    for heading, side in (("layer", "right"), ("width", "right"), ("kept", "right"), ("found as", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for one in result.layers:
        table.add_row(str(one.layer), f"{one.width:,}", f"{one.kept:,}", one.found_as)
    before, after = result.size_bytes
    if after is not None:
        table.add_section()
        table.add_row("MB", f"{before / 1e6:,.2f}", f"{after / 1e6:,.2f}", f"{(after - before) / before:+.1%}")
    if None not in result.accuracy:
        dense, pruned = (100 * one for one in result.accuracy)
        table.add_row("accuracy, %", f"{dense:.2f}", f"{pruned:.2f}", f"{pruned - dense:+.2f} points")
    if result.judged is not None:
        agreed = f"{result.judged.agreement:.1%} the same class on {result.judged.texts:,} texts of test"
        alone = (f"{100 * one:.2f}" for one in (result.judged.accuracy_fp32, result.judged.accuracy))
        table.add_row(f"{result.precision} alone", *alone, agreed)
    return table
