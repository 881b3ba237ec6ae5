"""`anatomy slice-onnx`: cut an ONNX file that is there already, without torch."""

import json
from collections.abc import Iterator, Sequence

import click
from cloup import argument, option, option_group
from cloup.constraints import Equal, IsSet, RequireExactly, constrained_params

from anatomy_export.commands.contradictions import refuse, refuse_beside, refuse_without
from anatomy_export.commands.guard import command
from anatomy_export.commands.options import (
    CRITERION_NAMES,
    data_options,
    eval_examples_option,
    json_option,
    pop_data,
    pop_precision,
    precision_options,
    precision_rules,
    seed_option,
    strong_threshold_option,
    together,
)
from anatomy_export.commands.parameter_types import FROM_1, FROM_2, PATH, SHARE, PlanFile
from anatomy_export.commands.terminal import print_table
from anatomy_export.core.progress import Progress

EXAMPLES = """\b
Examples:
  anatomy slice-onnx model.onnx --plan exports/bert-slice/plan.json -o sliced.onnx
  anatomy slice-onnx model.onnx --plan plan.json --dry-run
  anatomy slice-onnx model.onnx --keep-ratio 0.5 --criterion magnitude --save-plan plan.json -o sliced.onnx
  anatomy slice-onnx model.onnx --plan plan.json --precision int8 --data reviews.csv -o sliced-int8.onnx
  anatomy slice-onnx model.onnx --keep-ratio 0.5 --criterion anatomy --tokenizer tokenizer.json -o sliced.onnx
"""
HEADINGS = ("layer", "width", "kept", "found as")
OF_RATIO = ("criterion", "align", "seed", "probes", "strong_threshold", "save_plan", "allow_uncut")
OF_DATA = ("text_column", "label_column", "split_column", "eval_examples", "max_precision_drop")
BY_ANATOMY = Equal("criterion", "anatomy")

either_plan_or_ratio = RequireExactly(1).rephrased(error="Give either --plan or --keep-ratio.")
rules = together(
    refuse_beside("plan", "already says which neurons stay", OF_RATIO),
    refuse_without("--criterion random", Equal("criterion", "random"), ["seed"]),
    refuse_without("--criterion anatomy", BY_ANATOMY, ("probes", "strong_threshold")),
    precision_rules,
    refuse(
        ~IsSet("data") & Equal("int8", "static"), ["int8"], "--int8 static takes its ranges from text: pass --data."
    ),
    refuse_without("--data", IsSet("data"), OF_DATA),
    refuse_without("--data or --criterion anatomy", IsSet("data") | BY_ANATOMY, ("tokenizer", "max_length")),
)


@command("slice-onnx", epilog=EXAMPLES)
@argument("model", type=PATH)
@option_group(
    "What to remove",
    constrained_params(
        either_plan_or_ratio,
        option(
            "--plan", type=PlanFile(), help="A plan.json, or that of a bundle; a repair that it names lies beside it."
        ),
        option("--keep-ratio", type=SHARE, help="Without a plan: share of the neurons that stays."),
    ),
    option(
        "--criterion",
        type=click.Choice(CRITERION_NAMES),
        default="magnitude",
        help="Of --keep-ratio: magnitude, random, or anatomy (extra edge); the others need the torch model.",
    ),
    option("--align", type=FROM_1, default=16, help="Of --keep-ratio: round widths up to a multiple."),
    seed_option("Of --criterion random."),
    option(
        "--probes", help="Of --criterion anatomy: a text file, one a line. Default: ten reviews, or texts of --data."
    ),
    strong_threshold_option("Of --criterion anatomy."),
    option("--allow-uncut", is_flag=True, help="Without a plan: cut the others where an FFN cannot be."),
)
@option_group("Precision", precision_options)
@option_group(
    "Data",
    data_options(),
    option("--max-length", type=FROM_2, help="Tokens of a text that are read. Default: what the model takes."),
    eval_examples_option,
    option(
        "--tokenizer",
        type=PATH,
        help="A tokenizer.json, for --data and --criterion anatomy. Default: beside MODEL, or above its onnx/.",
    ),
)
@option_group(
    "Output",
    option("-o", "--output", type=PATH, help="The .onnx file to write."),
    option("--save-plan", type=PATH, help="Write the plan of --keep-ratio too."),
    option("--force", is_flag=True, help="Replace an earlier output."),
    option("--dry-run", is_flag=True, help="Find the FFNs and check the plan; write nothing."),
    json_option,
)
@rules
def slice_onnx(as_json: bool, **options) -> None:
    """Cut the FFNs of an ONNX file by a plan, whatever exported it. With --data, accuracy is measured before and
    after."""
    if options["dry_run"]:
        options.update(output=None, save_plan=None)
    elif options["output"] is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    from anatomy_export.jobs.slice_onnx import SliceRequest, run_slice

    limits_drop = options["max_precision_drop"] is not None
    request = SliceRequest(precision=pop_precision(options), limits_drop=limits_drop, data=pop_data(options), **options)
    result = run_slice(request, Progress())
    if as_json:
        click.echo(json.dumps(result.as_dict()))
        return
    removed = sum(layer.width - layer.kept for layer in result.layers)
    print_table(HEADINGS, _rows(result), title=f"{removed:,} FFN neurons removed", left=("found as",))
    click.echo(f"wrote {result.output}" if result.output else "dry run: nothing was written")


def _rows(result) -> Iterator[Sequence[str] | None]:
    """One row a layer; then size and accuracy before and after, where they are known."""
    for layer in result.layers:
        yield str(layer.layer), f"{layer.width:,}", f"{layer.kept:,}", layer.found_as
    before, after = result.size_bytes
    if after is not None:
        yield None
        yield "MB", f"{before / 1e6:,.2f}", f"{after / 1e6:,.2f}", f"{(after - before) / before:+.1%}"
    if None not in result.accuracy:
        dense, pruned = (100 * accuracy for accuracy in result.accuracy)
        yield "accuracy, %", f"{dense:.2f}", f"{pruned:.2f}", f"{pruned - dense:+.2f} points"
    judged = result.judged
    if judged is not None:
        agreed = f"{judged.agreement:.1%} the same class on {judged.texts:,} texts of test"
        accuracies = (f"{100 * accuracy:.2f}" for accuracy in (judged.accuracy_fp32, judged.accuracy))
        yield (f"{result.precision} alone", *accuracies, agreed)
