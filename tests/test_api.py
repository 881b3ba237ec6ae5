"""The functions at the top of the package: their examples run, and the notebook that tours them."""

import doctest
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint

import anatomy_export
from anatomy_export.core.errors import AnatomyError
from anatomy_export.paper.scoring import score_anatomy

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.mark.parametrize("name", ["score", "plan", "slice_neurons"])
def test_docstring_examples(name):
    checkpoint = tiny_checkpoint("bert")
    names = {**vars(anatomy_export), "model": checkpoint.model, "tokenizer": checkpoint.tokenizer}
    [example] = doctest.DocTestFinder(recurse=False).find(getattr(anatomy_export, name), name, globs=names)
    runner = doctest.DocTestRunner()
    runner.run(example)
    assert runner.tries > 2 and runner.failures == 0


def test_score_is_that_of_the_command_and_leaves_the_mode(family_name):
    checkpoint = tiny_checkpoint(family_name)
    checkpoint.model.train()
    anatomy = anatomy_export.score(checkpoint.model, checkpoint.tokenizer, ["the film is good"], max_length=64)
    assert checkpoint.model.training
    checkpoint.model.eval()
    expected = score_anatomy(checkpoint, ["the film is good"], max_length=64)
    np.testing.assert_array_equal(anatomy.layer_similarity, expected.layer_similarity)
    plan = anatomy_export.plan(checkpoint.model, anatomy, keep_ratio=0.5, align=8)
    assert plan.kept_widths == [16, 16, 16]
    inputs = checkpoint.tokenizer("a bad plot", return_tensors="pt")
    sliced = anatomy_export.slice_neurons(checkpoint.model, plan)
    assert not torch.equal(sliced(**inputs).logits, checkpoint.model(**inputs).logits)


def test_a_tokenizer_that_gives_more_than_the_model_takes():
    checkpoint, other = tiny_checkpoint("gpt2"), tiny_checkpoint("bert")
    assert "token_type_ids" in other.tokenizer("a")
    anatomy = anatomy_export.score(checkpoint.model, other.tokenizer, ["the film"], max_length=64)
    expected = anatomy_export.score(checkpoint.model, checkpoint.tokenizer, ["the film"], max_length=64)
    np.testing.assert_array_equal(anatomy.layer_similarity, expected.layer_similarity)


def test_what_the_functions_refuse():
    checkpoint = tiny_checkpoint("bert")
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    with pytest.raises(AnatomyError, match="one string, expected a sequence"):
        anatomy_export.score(model, tokenizer, "the film is good")
    with pytest.raises(AnatomyError, match="no probes"):
        anatomy_export.score(model, tokenizer, [])
    with pytest.raises(AnatomyError, match="max_length is 99, this model takes at most 66 tokens"):
        anatomy_export.score(model, tokenizer, max_length=99)
    anatomy = anatomy_export.score(model, tokenizer)
    with pytest.raises(AnatomyError, match="leave out alpha and beta"):
        anatomy_export.plan(model, anatomy, keep_ratio=0.5, alpha=1)
    with pytest.raises(AnatomyError, match="plan was made for the model"):
        anatomy_export.slice_neurons(tiny_checkpoint("bert", seed=1).model, anatomy_export.plan(model, anatomy))
    with pytest.raises(AnatomyError, match=r"is bfloat16 on cpu, expected float32 on cpu; next step"):
        anatomy_export.score(model.to(torch.bfloat16), tokenizer)


def test_importing_the_package_imports_no_torch():
    code = "import sys, anatomy_export, anatomy_export.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_tour_runs(tmp_path, monkeypatch):
    cells = [cell for cell in json.loads(TOUR.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5 and not any(cell["outputs"] for cell in cells), "what it prints is not stored"
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["sliced"].config.num_labels == 2 and names["difference"] < 1e-4
    assert names["again"].probes == names["anatomy"].probes
