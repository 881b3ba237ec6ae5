"""Options that several commands take, and the values that jobs make of them."""

from dataclasses import fields

import click
from cloup import option
from cloup.constraints import Equal

from anatomy_export.commands.contradictions import refuse_without
from anatomy_export.commands.parameter_types import FINITE, FROM_0, FROM_1, FROM_2, PATH, POINTS

PRECISIONS = ("fp32", "fp16", "int8")
TARGET_CPUS = ("portable", "native")
REPAIRS = ("none", "bias", "least-squares", "auto")
ALLOCATIONS = ("uniform", "global", "sensitivity")
CRITERION_NAMES = (
    "anatomy",
    "anatomy-activation",
    "random",
    "magnitude",
    "activation",
    "fluctuation",
    "fisher",
    "obs",
    "obs-greedy",
    "obs-gradient",
)
MODEL_NAMES = "bert, gpt2, bert-base, gpt2-base, a checkpoint directory, or a hub id."


def together(*decorators):
    """One decorator of a command that does what these do, in this order in `--help`."""

    def decorate(command):
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def data_options(*, required: bool = False):
    """Decorate a command with the options that name labelled text."""
    return together(
        option("--data", required=required, help="movie-reviews, imdb, or a CSV, TSV, JSONL or Parquet file."),
        option("--text-column", default="text", help="Of --data."),
        option("--label-column", default="label", help="The model's own label names, else class numbers from 0."),
        option(
            "--split-column",
            help="Column with train, validation (val, valid, dev), test; else a seeded 70/10/20 split.",
        ),
    )


bad_labels_option = option(
    "--allow-bad-labels",
    is_flag=True,
    help="Go on where the dense model is right no more often than by naming one class.",
)
max_length_option = option(
    "--max-length",
    type=FROM_2,
    help="Tokens that a text is cut off at. Default: what the model and its tokenizer take.",
)
eval_examples_option = option("--eval-examples", type=FROM_1, help="Test texts for accuracy. Default: all.")
seq_len_option = option("--seq-len", type=FROM_2, help="Tokens, likewise. Default: 128, or what the model takes.")
force_option = option("--force", is_flag=True, help="Replace an earlier output, or an empty directory.")
resumed_output_option = option("--output", required=True, type=PATH, help="Directory; one of the same run goes on.")
json_option = option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")


def seed_option(help: str):
    """Decorate a command with the seed `--seed`, 0 by default."""
    return option("--seed", type=FROM_0, default=0, help=help)


def strong_threshold_option(help: str, default: float | None = 0.35):
    """Decorate a command with `--strong-threshold`, a similarity."""
    return option("--strong-threshold", type=FINITE, default=default, help=help)


precision_options = together(
    option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="fp32",
        help="Of the file that ships: fp16 for CUDA, int8 for CPUs. Converted once the fp32 file is verified.",
    ),
    option(
        "--int8",
        type=click.Choice(["dynamic", "static"]),
        help="Ranges of activations: of each call (default), or fixed.",
    ),
    option(
        "--int8-calibration",
        type=click.Choice(["percentile", "entropy"]),
        help="Of --int8 static. Default: percentile.",
    ),
    option(
        "--target-cpu",
        type=click.Choice(TARGET_CPUS),
        help="Of --precision int8: weights that every CPU computes right (portable, default), or CPUs like this one.",
    ),
    option(
        "--max-precision-drop",
        type=POINTS,
        help="Points of accuracy that --precision may lose against the fp32 file. Default: 1.",
    ),
)
precision_rules = together(
    refuse_without("--precision int8", Equal("precision", "int8"), ("int8", "target_cpu")),
    refuse_without("--int8 static", Equal("int8", "static"), ("int8_calibration",)),
    refuse_without("--precision fp16 or int8", ~Equal("precision", "fp32"), ("max_precision_drop",)),
)


def pop_precision(options: dict):
    """The `Precision` that `precision_options` ask for; they are taken out of `options`."""
    from anatomy_export.evaluation.precision_gate import chosen_precision

    return chosen_precision(
        options.pop("precision"),
        int8=options.pop("int8"),
        calibration=options.pop("int8_calibration"),
        max_drop=options.pop("max_precision_drop"),
        target_cpu=options.pop("target_cpu"),
    )


def pop_data(options: dict):
    """The `DataOptions` that the options of these names ask for; they are taken out of `options`."""
    from anatomy_export.jobs.source_data import DataOptions

    names = [field.name for field in fields(DataOptions) if field.name in options]
    return DataOptions(**{name: options.pop(name) for name in names})
