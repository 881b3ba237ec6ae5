"""Every option and argument of version 0.1 is there, with the same default; and every `--help` says its groups."""

import json
from pathlib import Path

import click
import cloup
import pytest
from click.testing import CliRunner
from conftest import run

from anatomy_export.cli import main
from anatomy_export.commands import export
from anatomy_export.core.platform import usable_cores
from anatomy_export.planning import options as planning

OLD = json.loads((Path(__file__).parents[1] / "fixtures" / "v0.1" / "commands.json").read_text())
NOTHING = "Sentinel.UNSET"  # how the file writes that an option has no default


def tree(command: click.Command, path: str) -> dict[str, click.Command]:
    """The command and all that are below it, by what a user writes."""
    commands = {path: command}
    for name, below in getattr(command, "commands", {}).items():
        commands |= tree(below, f"{path} {name}")
    return commands


COMMANDS = tree(main, "anatomy")


def test_names_are_those_that_the_jobs_know():
    assert export.BUDGETS == planning.BUDGETS
    assert (export.PAPERS_OWN, export.OF_ANATOMY) == (planning.PAPERS_OWN, planning.OF_ANATOMY)


def test_no_command_is_gone():
    assert COMMANDS.keys() >= OLD.keys()


@pytest.mark.parametrize("path", OLD)
def test_no_option_is_gone_and_none_has_another_default(path):
    command, old = COMMANDS[path], OLD[path]
    options = {name: param for param in command.params if isinstance(param, click.Option) for name in param.opts}
    assert options.keys() >= set(old["options"])
    assert [param.name for param in command.params if isinstance(param, click.Argument)] == old["arguments"]
    context = click.Context(command)
    for name, default in old["defaults"].items():
        here = options[name].get_default(context)
        if name == "--threads":
            assert here == usable_cores()
        elif default == NOTHING:
            assert here in (None, False, ()) or str(here) == NOTHING, name
        else:
            assert here == default, name


@pytest.mark.parametrize("path", COMMANDS)
def test_help_shows_the_groups(path):
    command = COMMANDS[path]
    result = run(*path.split()[1:], "--help")
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout == run(*path.split()[1:], "-h").stdout
    groups = [group.title for group in getattr(command, "option_groups", ())]
    assert all(f"\n{title}:" in result.stdout for title in groups)
    below = getattr(command, "commands", {})
    assert all(f"\n  {name} " in result.stdout for name in below)
    assert all(param.help for param in command.params if isinstance(param, click.Option)), "an option without help"
    if len(command.params) > 8:
        assert isinstance(command, cloup.Command) and not command.ungrouped_options and len(groups) > 2


@pytest.mark.parametrize("width", [60, 100])
@pytest.mark.parametrize("path", COMMANDS)
def test_help_fits_the_terminal(path, width):
    """All lines but those of examples."""
    shown = CliRunner().invoke(main, [*path.split()[1:], "--help"], terminal_width=width).stdout
    lines = shown.partition("\nExamples:")[0].splitlines()
    assert [line for line in lines if len(line) > width] == []
