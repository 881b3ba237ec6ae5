"""`anatomy export`: score, prune, export, verify."""

import json
from collections.abc import Iterator, Sequence

import click
from cloup import option, option_group
from cloup.constraints import Equal, IsSet, mutually_exclusive

from anatomy_export.commands.contradictions import refuse, refuse_beside, refuse_without
from anatomy_export.commands.guard import command
from anatomy_export.commands.options import (
    ALLOCATIONS,
    CRITERION_NAMES,
    MODEL_NAMES,
    REPAIRS,
    bad_labels_option,
    data_options,
    eval_examples_option,
    force_option,
    json_option,
    max_length_option,
    pop_data,
    pop_precision,
    precision_options,
    precision_rules,
    seed_option,
    strong_threshold_option,
    together,
)
from anatomy_export.commands.parameter_types import (
    FINITE,
    FROM_1,
    FROM_2,
    LAYERS,
    PATH,
    POINTS,
    SHARE,
    Multiple,
    PlanFile,
)
from anatomy_export.commands.terminal import print_table, quiet_libraries
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
CHOOSING = (
    *BUDGETS, "batch", "seq_len", *PAPERS_OWN, "criterion", "compensate", "allocate", "align", "seed", *OF_ANATOMY
)  # fmt: skip
OF_DATA = ("text_column", "label_column", "split_column", "allow_bad_labels", "unlabelled")
OF_LABELS = ("label_column", "split_column", "eval_examples", "allow_bad_labels", "max_precision_drop")
OTHER_CRITERION = IsSet("criterion") & ~Equal("criterion", "anatomy") & ~Equal("criterion", "anatomy-activation")
DEFAULT_GRAPH = Equal("fuse", "ort") & Equal("exporter", "dynamo")

rules = together(
    refuse_beside("dense", "prunes nothing", ("plan", *CHOOSING)),
    refuse_beside("plan", "already says which neurons stay", CHOOSING),
    refuse(
        OTHER_CRITERION,
        (*PAPERS_OWN, *OF_ANATOMY),
        "--criterion {criterion} is not the paper's rule, so {first} cannot stand beside it.",
    ),
    refuse_without("--data", IsSet("data"), OF_DATA),
    refuse_beside("unlabelled", "measures no accuracy", OF_LABELS),
    precision_rules,
    refuse(
        ~Equal("precision", "fp32"), ["target_speedup"], "--target-speedup is timed in fp32: leave --precision out."
    ),
    refuse_beside("mask", "is as slow as the dense model", ["target_speedup"]),
    refuse(
        ~DEFAULT_GRAPH,
        ["target_speedup"],
        "--target-speedup is timed on the default graph: leave --fuse and --exporter out.",
    ),
    refuse_without("--target-speedup", IsSet("target_speedup"), ("batch", "seq_len")),
    *(refuse_beside(budget, "ranks neurons without a threshold", ("alpha", "beta")) for budget in BUDGETS),
    *(refuse_beside(budget, "is a budget", [other for other in BUDGETS if other != budget]) for budget in BUDGETS),
)


def _two_modes(violation) -> str:
    first, second, *_ = (param.opts[0] for param in violation.params if violation.ctx.params[param.name])
    return f"{first} cannot stand beside {second}."


@command("export", epilog=EXAMPLES)
@option_group(
    "Model and data",
    option("--model", required=True, help=MODEL_NAMES),
    option("--allow-random-head", is_flag=True, help="Export a checkpoint that has no classification head."),
    data_options(),
    bad_labels_option,
    option("--unlabelled", is_flag=True, help="The text of --data has no labels: calibrate on it, accuracy is n/a."),
    max_length_option,
    eval_examples_option,
    option(
        "--calibration-examples",
        type=FROM_2,
        help="Train texts to measure and repair neurons on (default 1024, or fewer of 65,536 tokens) and to verify the "
        "export on (default 32).",
    ),
)
@option_group(
    "What becomes of pruned neurons",
    option("--slice", is_flag=True, help="Cut them out (default)."),
    option("--mask", is_flag=True, help="Zero them, full size, as the paper did."),
    option("--dense", is_flag=True, help="Prune nothing."),
    constraint=mutually_exclusive.rephrased(error=_two_modes),
)
@option_group(
    "What to remove",
    option(
        "--criterion", type=click.Choice(CRITERION_NAMES), help="What neurons are ranked by. Default: obs-gradient."
    ),
    option(
        "--compensate",
        type=click.Choice(REPAIRS),
        help="How W2 and b2 are repaired. Default: auto, which decides layer by layer on held-out text.",
    ),
    option(
        "--allocate",
        type=click.Choice(ALLOCATIONS),
        help="How a budget is spread over the layers. Default: sensitivity.",
    ),
    option(
        "--align",
        type=Multiple(),
        help="Round widths up to a multiple. Default: auto (16 on a CPU, 64 with CUDA); 1 by the paper's rule.",
    ),
    seed_option("Of calibration and of the random criterion."),
    option("--plan", type=PlanFile(), help="Replay a plan.json, or that of a bundle."),
)
@option_group(
    "By the paper's rule",
    option(
        "--preset",
        type=click.Choice(PRESET_NAMES),
        metavar="NAME",
        help="The paper's rule and thresholds: bert-1 … bert-9, gpt2-1 … gpt2-7. Beside a budget, its ranking.",
    ),
    option("--alpha", type=FINITE, help="The paper's rule, with another alpha."),
    option("--beta", type=FINITE, help="The paper's rule, with another beta."),
    option("--focus", type=LAYERS, help="The paper's rule, with other layers in focus (comma-separated)."),
    strong_threshold_option("Stronger neurons always stay, by the anatomy criteria. Default: 0.35.", default=None),
    option(
        "--probes",
        help="Of the anatomy criteria: a text file, one a line. Default: ten film reviews, or texts of --data for "
        "other classes.",
    ),
    option(
        "--probe-reduction",
        type=click.Choice(["first", "mean"]),
        help="Over probes, by the anatomy criteria. Default: mean.",
    ),
)
@option_group(
    "Budget, one at most",
    option("--keep-ratio", type=SHARE, help="Share of the neurons that stays."),
    option("--flops-ratio", type=SHARE, help="Share of the model's FLOPs that stays, at the mean length of --data."),
    option(
        "--max-accuracy-drop",
        type=POINTS,
        help="Points of accuracy on validation, measured and expected: the smallest of 15 sizes within them. "
        "Default: 0.5.",
    ),
    option(
        "--target-speedup",
        type=click.FloatRange(min=1, min_open=True),
        help="Times the dense model's speed, through ONNX Runtime on this device.",
    ),
    option("--batch", type=FROM_1, help="Of --target-speedup. Default: 1."),
    option("--seq-len", type=FROM_2, help="Tokens of --target-speedup. Default: 128, or what the model takes."),
)
@option_group("Precision", precision_options)
@option_group(
    "Output",
    option("--output", type=PATH, help="Default: exports/<model>-<mode>."),
    force_option,
    option(
        "--fuse", type=click.Choice(["ort", "none"]), default="ort", help="Fuse the graph for ONNX Runtime, or not."
    ),
    option("--exporter", type=click.Choice(["dynamo", "optimum"]), default="dynamo", help="What makes the graph."),
    option("--ort-format", is_flag=True, help="Also write model.ort, ONNX Runtime's own format, for phones."),
    option("--with-checkpoint", is_flag=True, help="Keep the torch checkpoint in the bundle."),
    json_option,
)
@rules
def export(as_json: bool, **options) -> None:
    """Score, prune, export to ONNX, verify, and write a directory that ships."""
    from anatomy_export.jobs.export import run_export
    from anatomy_export.jobs.export_request import ExportRequest
    from anatomy_export.planning.allocate import width_multiple
    from anatomy_export.planning.options import ScoreOptions

    if options["align"] is not None:
        options["align"] = width_multiple(options["align"])
    modes = [mode for mode in MODES if options.pop(mode)]
    score = {name: options.pop(name) for name in ScoreOptions.__dataclass_fields__}
    request = ExportRequest(
        mode=modes[0] if modes else "slice",
        score={name: value for name, value in score.items() if value is not None},
        precision=pop_precision(options),
        data=pop_data(options),
        **options,
    )
    quiet_libraries()
    result = run_export(request, Progress())
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        print_table(("", "dense", "pruned", "change"), _measure_rows(result), left=("",))
        click.echo(f"wrote {result.output}")


def _measure_rows(result) -> Iterator[Sequence[str]]:
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
