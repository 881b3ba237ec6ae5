"""The docs: every figure is what the committed results give, and what they say is supported is tested."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pages():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("render").pages()


@pytest.mark.parametrize("name", ["README.md", "docs/RESULTS.md", "docs/PAPER.md", "docs/T4.md"])
def test_docs_are_what_the_committed_results_give(pages, name):
    assert (ROOT / name).read_text(encoding="utf-8") == pages[ROOT / name]


def supported_rows() -> list[tuple[str, str, str, str]]:
    """What, outcome, the quoted part of a message, and the test, of each row of docs/guide/supported.md."""
    lines = (ROOT / "docs" / "guide" / "supported.md").read_text(encoding="utf-8").splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    return [tuple(cell.strip() for cell in row) for row in rows if "::" in row[-1]]


def test_supported_has_rows_of_every_outcome():
    assert {outcome.split(",")[0] for _, outcome, _, _ in supported_rows()} >= {"read", "refused", "noted", "cut"}


@pytest.mark.parametrize("row", supported_rows(), ids=lambda row: row[0][:60])
def test_what_is_supported_is_tested(row):
    """The test is there, and the message that the page quotes is one that it asks for."""
    what, outcome, message, test = row
    file, name = test.strip("`").split("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {name.split('[')[0]}\(", source, re.M), test
    if "[" in name:
        assert name.split("[")[1].rstrip("]") in source, test
    if outcome.startswith("refused"):
        assert message.startswith("`"), what
    helpers = [ROOT / "tests" / f"{module}.py" for module in re.findall(r"^from (\w+) import", source, re.M)]
    asked = "".join([source, *(helper.read_text(encoding="utf-8") for helper in helpers if helper.is_file())])
    joined = re.sub(r'"\s*\n\s*f?r?"', "", asked).replace('\\"', '"')
    assert all(quoted.replace("\\|", "|") in joined for quoted in re.findall(r"`([^`]+)`", message)), (test, message)
