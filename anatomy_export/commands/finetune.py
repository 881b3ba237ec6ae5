"""`anatomy finetune`: a head for models that come without one."""

import json

import click
from cloup import option, option_group

from anatomy_export.commands.guard import command
from anatomy_export.commands.options import data_options, force_option, json_option, max_length_option, seed_option
from anatomy_export.commands.parameter_types import ABOVE_0, FROM_1, PATH
from anatomy_export.commands.terminal import quiet_libraries
from anatomy_export.core.progress import Progress


@command("finetune")
@option_group(
    "Model and data",
    option("--model", required=True, help="A checkpoint directory or hub id."),
    data_options(required=True),
    max_length_option,
)
@option_group(
    "Recipe",
    option("--epochs", type=ABOVE_0, default=2.0, help="Passes over the train texts."),
    option("--learning-rate", type=ABOVE_0, default=5e-5, help="The highest; it falls to 0."),
    option("--batch-size", type=FROM_1, default=8, help="Texts of a step."),
    seed_option("Of the order of texts and of a new head."),
)
@option_group("Output", option("--output", required=True, type=PATH, help="Directory."), force_option, json_option)
def finetune(as_json: bool, **options) -> None:
    """Fine-tune a classifier by the paper's recipe, for models that come without a head."""
    from anatomy_export.jobs.finetune import run_finetune
    from anatomy_export.zoo.finetune import Recipe

    quiet_libraries()
    recipe = Recipe(**{name: options.pop(name) for name in ("epochs", "learning_rate", "batch_size", "seed")})
    result = run_finetune(recipe=recipe, progress=Progress(), **options)
    accuracy = "n/a" if result["accuracy"] is None else f"{100 * result['accuracy']:.2f} %"
    click.echo(json.dumps(result) if as_json else f"accuracy on test {accuracy}\nwrote {result['output']}")
