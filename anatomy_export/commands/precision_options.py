"""The options that say what the weights of a written file are: shared by export and surgery."""

import click

from anatomy_export.commands.common import PRECISIONS, decorated, refuse_alone

INT8_METHODS = ("dynamic", "static")
CALIBRATION_METHODS = ("percentile", "entropy")
TARGET_CPUS = ("portable", "native")
_OPTIONS = (
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="fp32",
        show_default=True,
        help="Of the file that ships: fp16 for CUDA, int8 for CPUs. Converted once the fp32 file is verified.",
    ),
    click.option(
        "--int8", type=click.Choice(INT8_METHODS), help="Ranges of activations: of each call (default), or fixed."
    ),
    click.option(
        "--int8-calibration", type=click.Choice(CALIBRATION_METHODS), help="Of --int8 static. Default: percentile."
    ),
    click.option(
        "--target-cpu",
        type=click.Choice(TARGET_CPUS),
        help="Of --precision int8: weights that every CPU computes right (portable, default), or CPUs like this one.",
    ),
    click.option(
        "--max-precision-drop",
        type=click.FloatRange(min=0, max=100),
        help="Points of accuracy that --precision may lose against the fp32 file. Default: 1.",
    ),
)


def precision_options(command):
    """Decorate a command with them."""
    return decorated(command, _OPTIONS)


def precision_of(options: dict):
    """The `Precision` that `precision_options` ask for."""
    from anatomy_export.evaluation.precision_gate import chosen_precision

    return chosen_precision(
        options["precision"],
        int8=options["int8"],
        calibration=options["int8_calibration"],
        max_drop=options["max_precision_drop"],
        target_cpu=options["target_cpu"],
    )


def refuse_precision_alone(options: dict) -> None:
    """Raise UsageError where one of the `precision_options` means nothing beside the others."""
    if options["precision"] != "int8":
        for name in ("int8", "target_cpu"):
            refuse_alone(name, "--precision int8")
    if options["int8"] != "static":
        refuse_alone("int8_calibration", "--int8 static")
    if options["precision"] == "fp32":
        refuse_alone("max_precision_drop", "--precision fp16 or int8")
