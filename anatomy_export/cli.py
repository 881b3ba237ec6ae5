"""The command line: parse, call one function, print."""

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from anatomy_export.commands.bench import bench, doctor
from anatomy_export.commands.common import (
    CRITERION_NAMES,
    HELP_NAMES,
    MAX_LENGTH_HELP,
    PRESET_NAMES,
    AnatomyCommand,
    AnatomyGroup,
    alignment,
    bad_labels_option,
    data_options,
    finite,
    integers,
    print_table,
    quiet_libraries,
    refuse_alone,
    refuse_together,
    share,
)
from anatomy_export.commands.precision_options import precision_of, precision_options, refuse_precision_alone
from anatomy_export.commands.report import report
from anatomy_export.commands.slice_onnx import slice_onnx
from anatomy_export.commands.study import pareto, score, study
from anatomy_export.commands.verify import verify
from anatomy_export.core.progress import Progress
from anatomy_export.core.version import __version__


@click.group(cls=AnatomyGroup, context_settings=HELP_NAMES)
@click.version_option(__version__)
def main() -> None:
    """Prune transformer classifiers without training, slice them, export verified ONNX."""


MODES = ("slice", "mask", "dense")
_EXPORT_EPILOG = """\b
Examples:
  anatomy-export --model bert --slice
  anatomy-export --model ./my-classifier --data reviews.csv --keep-ratio 0.5
  anatomy-export --model bert --max-accuracy-drop 1 --criterion fisher
  anatomy-export --model bert-base --data movie-reviews --target-speedup 1.5 --seq-len 128
  anatomy-export --model gpt2 --preset gpt2-3 --json
  anatomy-export --model bert --plan exports/bert-slice/plan.json --mask
  anatomy-export --model bert --precision int8
"""


@main.command("export", cls=AnatomyCommand, epilog=_EXPORT_EPILOG, context_settings=HELP_NAMES)
@click.option("--model", required=True, help="bert, gpt2, bert-base, gpt2-base, a checkpoint directory, or a hub id.")
@click.option("--slice", "slice_", is_flag=True, help="Cut pruned neurons out (default).")
@click.option("--mask", is_flag=True, help="Zero them, full size, as the paper did.")
@click.option("--dense", is_flag=True, help="Prune nothing.")
@click.option("--output", type=click.Path(path_type=Path), help="Default: exports/<model>-<mode>.")
@click.option("--force", is_flag=True, help="Replace an earlier output, or an empty directory.")
@data_options
@bad_labels_option
@click.option("--unlabelled", is_flag=True, help="The text of --data has no labels: calibrate on it, accuracy is n/a.")
@click.option("--max-length", type=click.IntRange(min=2), help=MAX_LENGTH_HELP)
@click.option("--eval-examples", type=click.IntRange(min=1), help="Test texts for accuracy. Default: all.")
@click.option(
    "--calibration-examples",
    type=click.IntRange(min=2),
    help="Train texts to measure and repair neurons on (default 1024, or fewer of 65,536 tokens) and to "
    "verify the export on (default 32).",
)
@click.option(
    "--probes",
    help="Of the anatomy criteria: a text file, one a line. Default: ten film reviews, or texts of --data for other "
    "classes.",
)
@click.option(
    "--criterion", type=click.Choice(CRITERION_NAMES), help="What neurons are ranked by. Default: obs-gradient."
)
@click.option(
    "--compensate",
    type=click.Choice(["none", "bias", "least-squares", "auto"]),
    help="How W2 and b2 are repaired. Default: auto, which decides layer by layer on held-out text.",
)
@click.option(
    "--allocate",
    type=click.Choice(["uniform", "global", "sensitivity"]),
    help="How a budget is spread over the layers. Default: sensitivity.",
)
@click.option(
    "--preset",
    type=click.Choice(PRESET_NAMES),
    metavar="NAME",
    help="The paper's rule and thresholds: bert-1 … bert-9, gpt2-1 … gpt2-7. Beside a budget, its ranking.",
)
@click.option("--alpha", type=float, callback=finite, help="The paper's rule, with another alpha.")
@click.option("--beta", type=float, callback=finite, help="The paper's rule, with another beta.")
@click.option("--focus", callback=integers, help="The paper's rule, with other layers in focus (comma-separated).")
@click.option(
    "--strong-threshold",
    type=float,
    callback=finite,
    help="Stronger neurons always stay, by the anatomy criteria. Default: 0.35.",
)
@click.option(
    "--probe-reduction",
    type=click.Choice(["first", "mean"]),
    help="Over probes, by the anatomy criteria. Default: mean.",
)
@click.option("--keep-ratio", type=float, callback=share, help="Share of the neurons that stays.")
@click.option(
    "--flops-ratio",
    type=float,
    callback=share,
    help="Share of the model's FLOPs that stays, at the mean length of --data.",
)
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(min=0, max=100),
    help="Points of accuracy on validation, measured and expected: the smallest of 15 sizes within them. Default: 0.5.",
)
@click.option(
    "--target-speedup",
    type=click.FloatRange(min=1, min_open=True),
    help="Times the dense model's speed, through ONNX Runtime on this device.",
)
@click.option("--batch", type=click.IntRange(min=1), help="Of --target-speedup. Default: 1.")
@click.option(
    "--seq-len", type=click.IntRange(min=2), help="Tokens of --target-speedup. Default: 128, or what the model takes."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of calibration and of the random criterion.",
)
@click.option(
    "--align",
    callback=alignment,
    help="Round widths up to a multiple. Default: auto (16 on a CPU, 64 with CUDA); 1 by the paper's rule.",
)
@click.option("--plan", type=click.Path(path_type=Path), help="Replay a plan.json.")
@click.option("--fuse", type=click.Choice(["ort", "none"]), default="ort", show_default=True)
@click.option("--exporter", type=click.Choice(["dynamo", "optimum"]), default="dynamo", show_default=True)
@precision_options
@click.option("--ort-format", is_flag=True, help="Also write model.ort, ONNX Runtime's own format, for phones.")
@click.option("--with-checkpoint", is_flag=True, help="Keep the torch checkpoint in the bundle.")
@click.option("--allow-random-head", is_flag=True, help="Export a checkpoint that has no classification head.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def export(**options) -> None:
    """Score, prune, export to ONNX, verify, and write a directory that ships."""
    options["mode"] = _mode({name: options.pop(f"{name}_" if name == "slice" else name) for name in MODES})
    _refuse_contradictions(options)
    from anatomy_export.jobs.export import run_export
    from anatomy_export.jobs.export_request import ExportRequest
    from anatomy_export.jobs.source_data import DataOptions
    from anatomy_export.planning.allocation import width_multiple
    from anatomy_export.planning.options import ScoreOptions

    as_json = options.pop("as_json")
    if options["align"] is not None:
        options["align"] = width_multiple(options["align"])
    taken: dict[str, Any] = {"precision": precision_of(options)}
    score = {name: options[name] for name in ScoreOptions.__dataclass_fields__ if options[name] is not None}
    taken["score"] = score
    taken["data"] = DataOptions(**{name: options[name] for name in DataOptions.__dataclass_fields__})
    names = ExportRequest.__dataclass_fields__.keys() - taken.keys() - {"compare_dense"}
    request = ExportRequest(**{name: options[name] for name in names}, **taken)
    quiet_libraries()
    result = run_export(request, Progress())
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        print_table(_result_table(result))
        click.echo(f"wrote {result.output}")


def _mode(flags: dict[str, bool]) -> str:
    given = [name for name, flag in flags.items() if flag]
    if len(given) > 1:
        raise click.UsageError(f"--{given[0]} cannot stand beside --{given[1]}.")
    return given[0] if given else "slice"


def _refuse_contradictions(options: dict) -> None:
    """Options that would be ignored in silence are wrong usage."""
    from anatomy_export.planning.options import BUDGETS, OF_ANATOMY, PAPERS_OWN

    how = ("criterion", "compensate", "allocate", "align", "seed", *OF_ANATOMY)
    choosing = (*BUDGETS, "batch", "seq_len", *PAPERS_OWN, *how)
    if options["mode"] == "dense":
        refuse_together("--dense", "prunes nothing", ("plan", *choosing))
    if options["plan"]:
        refuse_together("--plan", "already says which neurons stay", choosing)
    if options["criterion"] not in (None, "anatomy", "anatomy-activation"):
        refuse_together(f"--criterion {options['criterion']}", "is not the paper's rule", (*PAPERS_OWN, *OF_ANATOMY))
    for name in ("text_column", "label_column", "split_column", "allow_bad_labels") if not options["data"] else ():
        refuse_alone(name, "--data")
    if options["unlabelled"]:
        if not options["data"]:
            refuse_alone("unlabelled", "--data")
        of_labels = ("label_column", "split_column", "eval_examples", "allow_bad_labels", "max_precision_drop")
        refuse_together("--unlabelled", "measures no accuracy", of_labels)
    refuse_precision_alone(options)
    if options["target_speedup"] is not None:
        if options["precision"] != "fp32":
            raise click.UsageError("--target-speedup is timed in fp32: leave --precision out.")
        if options["mode"] == "mask":
            raise click.UsageError("--mask is as slow as the dense model, so --target-speedup cannot stand beside it.")
        if options["fuse"] != "ort" or options["exporter"] != "dynamo":
            raise click.UsageError("--target-speedup is timed on the default graph: leave --fuse and --exporter out.")
    if options["target_speedup"] is None:
        for name in ("batch", "seq_len"):
            refuse_alone(name, "--target-speedup")
    for budget in BUDGETS:
        if options[budget] is not None:
            spelled = f"--{budget.replace('_', '-')}"
            refuse_together(spelled, "ranks neurons without a threshold", ("alpha", "beta"))
            refuse_together(spelled, "is a budget", tuple(other for other in BUDGETS if other != budget))


def _short(number: float) -> str:
    """Two decimals, or where those would say nothing two digits."""
    return f"{number:,.2f}" if number >= 0.1 else f"{number:.2g}"


def _result_table(result) -> Table:
    table = Table(title=None)
    for heading in ("", "dense", "pruned", "change"):
        table.add_column(heading, justify="left" if not heading else "right")
    labels = {
        "neurons": "FFN neurons",
        "parameters": "parameters",
        "flops": f"GFLOPs at {result.flops_tokens} tokens",
        "size_bytes": "model.onnx, MB",
    }
    scale = {"flops": 1e9, "size_bytes": 1e6}
    for name, label in labels.items():
        dense, pruned = getattr(result, name)
        shown = [_short(value / scale[name]) if name in scale else f"{value:,}" for value in (dense, pruned)]
        table.add_row(label, *shown, f"{(pruned - dense) / dense:+.1%}")
    if result.precision is not None:
        table.add_row("precision", "fp32", result.precision.name, f"{result.precision.agreement:.1%} the same class")
    dense, pruned = result.accuracy
    if dense is None:
        table.add_row("accuracy", "n/a", "n/a", "n/a")
    else:
        table.add_row(
            "accuracy, %",
            f"{100 * dense:.2f}",
            f"{100 * pruned:.2f}",
            f"{100 * (pruned - dense):+.2f} points",
        )
    table.add_row(
        "max abs error" if result.precision is None else "max abs error of fp32",
        "",
        f"{result.max_abs_error:.1e}",
        "verified",
    )
    return table


@main.group()
def plan() -> None:
    """Look at prune plans."""


@plan.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def plan_show(file: Path, as_json: bool) -> None:
    """Print a plan.json as a table."""
    from anatomy_export.plans.plan import read_plan

    found = read_plan(file)
    if as_json:
        click.echo(found.to_json(), nl=False)
        return
    print_table(_plan_table(found))
    parameters = ", ".join(f"{name} {value}" for name, value in found.parameters.items() if name != "repair")
    click.echo(f"model {found.fingerprint}\n{parameters}".rstrip())


def _plan_table(found) -> Table:
    """One row a layer; columns that say nothing of this plan are left out."""
    repairs = {one["layer"]: one for one in found.parameters.get("repair", ())}
    columns = {
        "layer": lambda layer: str(layer.layer),
        "width": lambda layer: f"{layer.width:,}",
        "kept": lambda layer: f"{len(layer.keep):,}",
        "kept, %": lambda layer: f"{100 * len(layer.keep) / layer.width:.1f}",
    }
    if any(layer.threshold is not None for layer in found.layers):
        columns["threshold"] = lambda layer: "n/a" if layer.threshold is None else f"{layer.threshold:.5f}"
        columns["rule"] = lambda layer: layer.rule or "n/a"
    if any(layer.protected for layer in found.layers):
        columns["protected"] = lambda layer: str(len(layer.protected))
    if repairs:
        columns["repair"] = lambda layer: repairs[layer.layer]["mode"]
        columns["error left, %"] = lambda layer: _error_left(repairs[layer.layer])
    table = Table(title=f"criterion {found.criterion}, {found.removed:,} of {sum(found.widths):,} neurons removed")
    for heading in columns:
        table.add_column(heading, justify="right")
    for layer in found.layers:
        table.add_row(*(cell(layer) for cell in columns.values()))
    return table


def _error_left(repair: dict) -> str:
    """Held-out error of a layer's output after its repair, of the error before."""
    before = repair["masked_error"]
    return f"{100 * repair['error'] / before:.1f}" if before else "n/a"


@main.command("finetune")
@click.option("--model", required=True, help="A checkpoint directory or hub id.")
@data_options
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace an earlier output, or an empty directory.")
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True)
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=5e-5, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--max-length", type=click.IntRange(min=2), help=MAX_LENGTH_HELP)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def finetune(**options) -> None:
    """Fine-tune a classifier by the paper's recipe, for models that come without a head."""
    from anatomy_export.jobs.finetune import run_finetune
    from anatomy_export.zoo.finetune import Recipe

    quiet_libraries()
    recipe = Recipe(**{name: options.pop(name) for name in ("epochs", "learning_rate", "batch_size", "seed")})
    as_json = options.pop("as_json")
    if options["data"] is None:
        raise click.UsageError("Missing option '--data'.")
    result = run_finetune(recipe=recipe, progress=Progress(), **options)
    accuracy = "n/a" if result["accuracy"] is None else f"{100 * result['accuracy']:.2f} %"
    click.echo(json.dumps(result) if as_json else f"accuracy on test {accuracy}\nwrote {result['output']}")


main.add_command(bench)
main.add_command(doctor)
main.add_command(pareto)
main.add_command(slice_onnx)
main.add_command(score)
main.add_command(study)
main.add_command(report)
main.add_command(verify)


def bench_main() -> None:
    """Console script `anatomy-bench`."""
    bench.main(prog_name="anatomy-bench")


def export_main() -> None:
    """Console script `anatomy-export`."""
    export.main(prog_name="anatomy-export")


if __name__ == "__main__":
    main()
