"""Options that would be ignored in silence beside others are wrong usage: constraints that say so in one line."""

import click
from click.core import ParameterSource
from cloup.constraints import Constraint, ConstraintViolated, IsSet, constraint
from cloup.constraints.conditions import Predicate


def given_options(ctx: click.Context, params) -> list[str]:
    """Those of the parameters that stand on the command line, as a user writes them: --keep-ratio."""
    return [param.opts[0] for param in params if ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE]


class Includes(Predicate):
    """Is `item` in the list that the parameter `name` holds?"""

    def __init__(self, name: str, item: str):
        self.name, self.item = name, item

    def description(self, ctx: click.Context) -> str:
        return f"{self.name} includes {self.item}"

    def __call__(self, ctx: click.Context) -> bool:
        return self.item in ctx.params[self.name]


class Refused(Constraint):
    """Options that must not stand on the command line while `condition` holds.

    In `message`, {first} is the first that stands there, {all} are all of them, and a parameter's name is its value.
    """

    def __init__(self, condition: Predicate, message: str):
        self.condition, self.message = condition, message

    def help(self, ctx: click.Context) -> str:
        return self.message

    def check_values(self, params, ctx: click.Context) -> None:
        given = given_options(ctx, params)
        if given and self.condition(ctx):
            message = self.message.format_map({**ctx.params, "first": given[0], "all": ", ".join(given)})
            raise ConstraintViolated(message, ctx=ctx, constraint=self, params=params)


def refuse(condition: Predicate, names, message: str):
    """Decorate a command: the parameters `names` are `Refused`."""
    return constraint(Refused(condition, message), names)


def refuse_beside(name: str, why: str, others):
    """Decorate a command: where the parameter `name` is set, none of `others` may be given."""
    option = f"--{name.replace('_', '-')}"
    return refuse(IsSet(name), others, f"{option} {why}, so {{first}} cannot stand beside it.")


def refuse_without(option: str, condition: Predicate, names):
    """Decorate a command: where `condition` does not hold, which `option` stands for, none of `names` may be given."""
    return refuse(~condition, names, f"{{first}} means something beside {option} only.")
