"""`anatomy finetune`: a head for models that come without one."""

from cloup import command, option, option_group

from anatomy_export.commands import kinds, options
from anatomy_export.commands.terminal import print_answer, quiet_libraries
from anatomy_export.core.progress import Progress


@command("finetune")
@option_group(
    "Model and data",
    option("--model", required=True, help="A checkpoint directory or hub id."),
    options.data(required=True),
    options.max_length,
)
@option_group(
    "Recipe",
    option("--epochs", type=kinds.ABOVE_0, default=2.0, help="Passes over the train texts."),
    option("--learning-rate", type=kinds.ABOVE_0, default=5e-5, help="The highest; it falls to 0."),
    option("--batch-size", type=kinds.FROM_1, default=8, help="Texts of a step."),
    option("--seed", type=kinds.FROM_0, default=0, help="Of the order of texts and of a new head."),
)
@option_group(
    "Output",
    option("--output", required=True, type=kinds.PATH, help="Directory of the checkpoint."),
    options.force,
    options.as_json,
)
def finetune(as_json: bool, **given) -> None:
    """Fine-tune a classifier by the paper's recipe, for models that come without a head."""
    from anatomy_export.jobs.finetune import run_finetune
    from anatomy_export.zoo.finetune import Recipe

    quiet_libraries()
    recipe = Recipe(**{name: given.pop(name) for name in ("epochs", "learning_rate", "batch_size", "seed")})
    result = run_finetune(recipe=recipe, progress=Progress(), **given)
    accuracy = "n/a" if result["accuracy"] is None else f"{100 * result['accuracy']:.2f} %"
    print_answer(as_json, result, lambda: (f"accuracy on test {accuracy}", f"wrote {result['output']}"))
