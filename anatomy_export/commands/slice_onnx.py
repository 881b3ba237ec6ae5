"""`anatomy slice-onnx`: cut an ONNX file that is there already, without torch."""

from collections.abc import Iterator, Sequence

from click import Choice
from cloup import argument, command, option, option_group
from cloup.constraints import Equal, If, IsSet, RequireExactly, constrained_params, constraint, require_all

from anatomy_export.commands import kinds, options
from anatomy_export.commands.contradictions import refuse, refuse_beside, refuse_without
from anatomy_export.commands.terminal import Table, print_answer
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
needs_output = If(~IsSet("dry_run"), require_all).rephrased(error="Missing option '-o' / '--output'.")
rules = options.together(
    refuse_beside("plan", "already says which neurons stay", OF_RATIO),
    refuse_without("--criterion random", Equal("criterion", "random"), ["seed"]),
    refuse_without("--criterion anatomy", BY_ANATOMY, ("probes", "strong_threshold")),
    options.precision_rules,
    refuse(
        ~IsSet("data") & Equal("int8", "static"), ["int8"], "--int8 static takes its ranges from text: pass --data."
    ),
    refuse_without("--data", IsSet("data"), OF_DATA),
    refuse_without("--data or --criterion anatomy", IsSet("data") | BY_ANATOMY, ("tokenizer", "max_length")),
    constraint(needs_output, ["output"]),
)


@command("slice-onnx", epilog=EXAMPLES)
@argument("model", type=kinds.PATH)
@option_group(
    "What to remove",
    constrained_params(
        either_plan_or_ratio,
        option(
            "--plan",
            type=kinds.PlanFile(),
            help="A plan.json, or that of a bundle; a repair that it names lies beside it.",
        ),
        option("--keep-ratio", type=kinds.SHARE, help="Without a plan: share of the neurons that stays."),
    ),
    option(
        "--criterion",
        type=Choice(options.CRITERION_NAMES),
        metavar="NAME",
        default="magnitude",
        help="Of --keep-ratio: magnitude, random, or anatomy (extra edge); the others need the torch model.",
    ),
    option("--align", type=kinds.FROM_1, default=16, help="Of --keep-ratio: round widths up to a multiple."),
    option("--seed", type=kinds.FROM_0, default=0, help="Of --criterion random."),
    option(
        "--probes", help="Of --criterion anatomy: a text file, one a line. Default: ten reviews, or texts of --data."
    ),
    options.strong_threshold("Of --criterion anatomy."),
    option("--allow-uncut", is_flag=True, help="Without a plan: cut the others where an FFN cannot be."),
)
@option_group("Precision", options.precision)
@option_group(
    "Data",
    options.data(),
    option("--max-length", type=kinds.FROM_2, help="Tokens of a text that are read. Default: what the model takes."),
    options.eval_examples,
    option(
        "--tokenizer",
        type=kinds.PATH,
        help="A tokenizer.json, for --data and --criterion anatomy. Default: beside MODEL, or above its onnx/.",
    ),
)
@option_group(
    "Output",
    option("-o", "--output", type=kinds.PATH, help="The .onnx file to write."),
    option("--save-plan", type=kinds.PATH, help="Write the plan of --keep-ratio too."),
    option("--force", is_flag=True, help="Replace an earlier output."),
    option("--dry-run", is_flag=True, help="Find the FFNs and check the plan; write nothing."),
    options.as_json,
)
@rules
def slice_onnx(as_json: bool, **given) -> None:
    """Cut the FFNs of an ONNX file by a plan, whatever exported it. With --data, accuracy is measured before and
    after."""
    if given["dry_run"]:
        given.update(output=None, save_plan=None)
    from anatomy_export.jobs.slice_onnx import SliceRequest, run_slice

    limits_drop = given["max_precision_drop"] is not None
    request = SliceRequest(
        precision=options.pop_precision(given), limits_drop=limits_drop, data=options.pop_data(given), **given
    )
    result = run_slice(request, Progress())
    removed = sum(layer.width - layer.kept for layer in result.layers)
    table = Table(HEADINGS, _rows(result), title=f"{removed:,} FFN neurons removed", left=["found as"])
    end = f"wrote {result.output}" if result.output else "dry run: nothing was written"
    print_answer(as_json, result.as_dict(), lambda: (table, end))


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
