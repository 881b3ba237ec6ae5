"""Every figure of the docs is what benchmarks/render.py writes from the committed JSON files."""

import importlib
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
