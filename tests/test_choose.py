"""Plans by calibration at the command line: criteria, repairs, budgets, and what travels with the plan."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import WORDS

from anatomy_export.cli import CRITERION_NAMES, main
from anatomy_export.exporter.criteria import CRITERIA
from anatomy_export.exporter.plan import read_plan


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    rows = [f"the {WORDS[i % 20]} film {WORDS[(i * 7) % 20]} {WORDS[(i * 3) % 20]},{i % 2}" for i in range(90)]
    path = tmp_path / "data.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def export(*arguments, code: int = 0):
    done = CliRunner().invoke(main, ["export", *map(str, arguments)])
    assert done.exit_code == code, (done.stderr, done.exception)
    return done


def test_the_command_line_knows_every_criterion():
    assert set(CRITERION_NAMES) == set(CRITERIA)


def test_repaired_bundle_replays_its_repair_or_is_refused(bert_directory, data_file, tmp_path):
    common = ["--model", bert_directory, "--data", data_file]
    chosen = ["--criterion", "obs-gradient", "--allocate", "sensitivity", "--compensate", "least-squares"]
    export(*common, *chosen, "--keep-ratio", 0.5, "--output", tmp_path / "a")
    plan = read_plan(tmp_path / "a" / "plan.json")
    assert (plan.criterion, sum(plan.kept_widths)) == ("obs-gradient", 36)
    assert [layer["mode"] for layer in plan.parameters["repair"]] == ["least-squares"] * 3
    manifest = json.loads((tmp_path / "a" / "bundle.json").read_text())
    assert manifest["files"]["repair.safetensors"] == plan.repair["sha256"]
    for mode in ("--slice", "--mask"):
        export(*common, mode, "--plan", tmp_path / "a" / "plan.json", "--output", tmp_path / mode)
        replayed = json.loads((tmp_path / mode / "bundle.json").read_text())
        for one, other in zip(manifest["references"], replayed["references"], strict=True):
            assert one["logits"] == pytest.approx(other["logits"], abs=1e-4)
    (tmp_path / "a" / "repair.safetensors").unlink()
    done = export(*common, "--plan", tmp_path / "a" / "plan.json", "--output", tmp_path / "b", code=1)
    assert "the plan is void without it" in done.stderr and not (tmp_path / "b").exists()


def test_the_papers_thresholds_can_be_repaired_too(bert_directory, data_file, tmp_path):
    common = ["--model", bert_directory, "--data", data_file, "--alpha", 0.3]
    export(*common, "--output", tmp_path / "plain")
    export(*common, "--compensate", "auto", "--output", tmp_path / "repaired")
    plain, repaired = (read_plan(tmp_path / name / "plan.json") for name in ("plain", "repaired"))
    assert plain.layers == repaired.layers and plain.removed > 0
    assert plain.repair is None and repaired.repair is not None


def test_budgets(bert_directory, data_file, tmp_path):
    common = ["--model", bert_directory, "--data", data_file, "--criterion", "activation", "--json"]
    flops = json.loads(export(*common, "--flops-ratio", 0.9, "--output", tmp_path / "f").stdout)["flops"]
    assert flops["pruned"] / flops["dense"] == pytest.approx(0.9, abs=0.02)
    export(*common, "--max-accuracy-drop", 100, "--output", tmp_path / "d")
    plan = read_plan(tmp_path / "d" / "plan.json")
    assert plan.kept_widths == [1, 1, 1]
    assert plan.parameters["validation_examples"] == 9
    done = export(*common, "--flops-ratio", 0.1, "--output", tmp_path / "x", code=1)
    assert "cannot be reached" in done.stderr and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--criterion", "obs", "--keep-ratio", "0.5"], 1, "needs calibration text"),
        (["--criterion", "obs"], 1, "has no thresholds"),
        (["--keep-ratio", "0.5", "--flops-ratio", "0.5"], 2, "--keep-ratio is a budget"),
        (["--plan", "p.json", "--compensate", "auto"], 2, "already says which neurons stay"),
        (["--max-accuracy-drop", "-1"], 2, "--max-accuracy-drop"),
    ],
)
def test_bad_requests(bert_directory, tmp_path, arguments, code, message):
    done = export("--model", bert_directory, *arguments, "--output", tmp_path / "o", code=code)
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "o").exists()
