"""The guide: the command line takes every command that it shows, its Python runs, its links lead somewhere."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from conftest import saved_dense, tiny_checkpoint

from anatomy_export.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "web" / "README.md"]
LINKED = [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PROGRAMS = {"anatomy": [], "anatomy-export": ["export"], "anatomy-bench": ["bench"]}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path) -> list[str]:
    """The shell commands of a page that are this toolkit's, continued lines joined, comments left out."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [command for line in lines if (command := re.sub(r"\s+#.*", "", line)).split(" ")[0] in PROGRAMS]


def notebook_commands(notebook: Path) -> list[str]:
    """The commands of a notebook's cells, with a number for what a cell fills in."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = "".join(f"{''.join(cell['source'])}\n" for cell in cells).splitlines()
    return [re.sub(r"{\w+}", "0.5", line.strip()[1:]) for line in lines if line.strip().startswith("!anatomy")]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def parse(command: str) -> list[str]:
    """Parse a command as the console script does, without running it; the names of the commands that it went through.

    Raises:
        click.ClickException: what the command line would refuse.
    """
    program, *arguments = shlex.split(command)
    arguments = PROGRAMS[program] + arguments
    context = main.make_context("anatomy", arguments)
    names: list[str] = []
    while isinstance(context.command, click.Group):
        rest = [*(getattr(context, "_protected_args", None) or context.protected_args), *context.args]
        if not rest and context.command.invoke_without_command:
            break
        name, subcommand, rest = context.command.resolve_command(context, rest)
        names.append(name)
        context = subcommand.make_context(name, rest, parent=context)
    return names


@pytest.mark.parametrize(
    "command", [pytest.param(command, id=f"{name_of(page)}: {command}") for page in PAGES for command in commands(page)]
)
def test_commands_are_taken(command):
    assert parse(command)


@pytest.mark.parametrize("command", notebook_commands(ROOT / "benchmarks" / "t4.ipynb"))
def test_commands_of_the_notebook_are_taken(command):
    assert parse(command)


@pytest.mark.parametrize(
    "command",
    [
        "anatomy-export --model bert --keep-ration 0.5",
        "anatomy-export --model bert --criterion fischer",
        "anatomy-export --slice",
        "anatomy-export --model bert --keep-ratio 2",
        "anatomy slice model.onnx",
        "anatomy-bench compare bench-before",
        "anatomy-bench --variant dens",
        "anatomy plan shown plan.json",
    ],
)
def test_wrong_commands_are_not(command):
    with pytest.raises(click.UsageError):
        parse(command)


def test_every_command_is_in_the_guide():
    shown = {parse(command)[0] for page in PAGES for command in commands(page)}
    assert shown == set(main.commands)


def test_python_runs(tmp_path, monkeypatch):
    """All blocks of python.md in order, where `my-classifier` is a tiny BERT."""
    saved_dense(tiny_checkpoint("bert"), tmp_path / "my-classifier")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks(ROOT / "docs" / "guide" / "python.md", "python"):
        exec(compile(block, "python.md", "exec"), names)
    assert names["plan"].kept_widths == [16, 16, 16]


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not target.startswith(("http:", "https:")):
            file, _, anchor = target.partition("#")
            linked = (page.parent / file).resolve() if file else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
