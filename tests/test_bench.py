"""The timing keeps raw values, pairs them by round, and says what it compared."""

import json
import statistics
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import tiny_checkpoint

from anatomy_export.cli import main
from anatomy_export.exporter.onnx_export import export_onnx


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A graph whose vocabulary takes the bench's token ids."""
    checkpoint = tiny_checkpoint("distilbert")
    checkpoint.model.resize_token_embeddings(5000)
    export_onnx(checkpoint, tmp_path / "model.onnx", metadata={})
    return tmp_path / "model.onnx"


def test_raw_values_and_paired_ratios(model_file, tmp_path):
    arguments = ["bench", "--bundle", model_file, "--bundle", model_file, "--batch", "1,2", "--seq-len", "8"]
    arguments += ["--repeats", "5", "--threads", "1", "--json", "--output", tmp_path / "bench.json"]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.stderr
    body = json.loads(done.stdout)
    assert json.loads((tmp_path / "bench.json").read_text()) == body
    assert [(one["batch"], one["seq_len"]) for one in body["results"]] == [(1, 8), (1, 8), (2, 8), (2, 8)]
    first, second = body["results"][:2]
    assert len(first["times_s"]) == 5 and len(first["warmup_s"]) == 3
    assert first["speedup"] == 1
    paired = [a / b for a, b in zip(first["times_s"], second["times_s"], strict=True)]
    assert second["speedup"] == statistics.median(paired)
    assert second["median_s"] == statistics.median(second["times_s"])


def test_bad_input():
    done = CliRunner().invoke(main, ["bench", "--bundle", "nowhere"])
    assert done.exit_code == 1
    assert "nowhere: neither a bundle nor an .onnx file" in done.stderr
    assert CliRunner().invoke(main, ["bench", "--bundle", "x", "--batch", "0"]).exit_code == 2
