"""Plans by calibration at the command line: criteria, repairs, budgets, and what travels with the plan."""

import io
import json
from itertools import chain, repeat
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import WORDS, with_bad_labels
from rich.console import Console

from anatomy_export.cli import main
from anatomy_export.commands.options import CRITERION_NAMES
from anatomy_export.core.progress import Progress
from anatomy_export.criteria.registry import CRITERIA
from anatomy_export.data.loading import Dataset, Examples
from anatomy_export.evaluation.metrics import ValidationDrop
from anatomy_export.plan_files.plan import read_plan
from anatomy_export.planning.defaults import resolve_options, score_options
from anatomy_export.planning.latency_table import LatencyTable

VALIDATION_DROP = "anatomy_export.planning.accuracy_budget.validation_drop"


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    rows = [f"the {WORDS[i % 20]} film {WORDS[(i * 7) % 20]} {WORDS[i // 20]},{i % 2}" for i in range(90)]
    path = tmp_path / "data.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def export(*arguments, code: int = 0):
    done = CliRunner().invoke(main, with_bad_labels(["export", *arguments]))
    assert done.exit_code == code, (done.stderr, done.exception)
    return done


def test_the_command_line_knows_every_criterion():
    assert set(CRITERION_NAMES) == set(CRITERIA)


def test_repaired_bundle_replays_its_repair_or_is_refused(bert_directory, data_file, tmp_path):
    common = ["--model", bert_directory, "--data", data_file, "--align", 1]
    chosen = ["--criterion", "obs-gradient", "--allocate", "sensitivity", "--compensate", "least-squares"]
    export(*common, *chosen, "--keep-ratio", 0.5, "--output", tmp_path / "a")
    plan = read_plan(tmp_path / "a" / "plan.json")
    assert (plan.criterion, sum(plan.kept_widths)) == ("obs-gradient", 36)
    assert [layer["mode"] for layer in plan.parameters["repair"]] == ["least-squares"] * 3
    shown = CliRunner(env={"COLUMNS": "120"}).invoke(main, ["plan", "show", str(tmp_path / "a" / "plan.json")]).stdout
    assert "error left, %" in shown and shown.count("least-squares") == 4 and "threshold" not in shown
    manifest = json.loads((tmp_path / "a" / "bundle.json").read_text())
    assert manifest["files"]["repair.safetensors"] == plan.repair["sha256"]
    for mode in ("--slice", "--mask"):
        export(*common[:4], mode, "--plan", tmp_path / "a" / "plan.json", "--output", tmp_path / mode)
        replayed = json.loads((tmp_path / mode / "bundle.json").read_text())
        for one, other in zip(manifest["references"], replayed["references"], strict=True):
            assert one["logits"] == pytest.approx(other["logits"], abs=1e-4)
    (tmp_path / "a" / "repair.safetensors").unlink()
    done = export(*common[:4], "--plan", tmp_path / "a" / "plan.json", "--output", tmp_path / "b", code=1)
    assert "the plan is void without it" in done.stderr and not (tmp_path / "b").exists()


@pytest.mark.usefixtures("plan_only")
def test_defaults_by_what_can_be_measured(bert_directory, data_file, tmp_path):
    data = ["--model", bert_directory, "--data", data_file]
    export(*data, "--max-accuracy-drop", 60, "--align", 1, "--output", tmp_path / "searched")
    plan = read_plan(tmp_path / "searched" / "plan.json")
    assert (plan.criterion, plan.parameters["compensate"]) == ("obs-gradient", "auto")
    assert (plan.parameters["allocate"], plan.parameters["max_accuracy_drop"]) == ("sensitivity", 60)
    done = export(*data, "--keep-ratio", 0.9, "--calibration-examples", 12, "--output", tmp_path / "few")
    assert "fewer calibration tokens than neurons in layer 2: the ridge holds" in " ".join(done.stderr.split())
    ranked = (*data, "--keep-ratio", 0.1, "--align", 1, "--compensate", "none", "--calibration-examples", 12)
    leans = "fewer calibration tokens than neurons in layer 2: the ranking leans on its ridge"
    done = export(*ranked, "--criterion", "obs", "--allocate", "uniform", "--output", tmp_path / "obs")
    assert leans in " ".join(done.stderr.split()) and "the ridge holds" not in done.stderr
    done = export(*ranked, "--criterion", "magnitude", "--allocate", "uniform", "--output", tmp_path / "magnitude")
    assert "leans" not in done.stderr
    done = export("--model", bert_directory, "--align", 1, "--output", tmp_path / "plain")
    plan = read_plan(tmp_path / "plain" / "plan.json")
    assert (plan.criterion, plan.kept_widths, plan.repair) == ("anatomy", [12, 12, 12], None)
    assert "half of the neurons stay (--keep-ratio 0.5), ranked by anatomy alone" in " ".join(done.stderr.split())
    export("--model", bert_directory, "--preset", "bert-1", "--output", tmp_path / "paper")
    assert read_plan(tmp_path / "paper" / "plan.json").parameters["threshold_rule"] == "bert"


@pytest.mark.usefixtures("plan_only")
def test_text_without_labels_is_calibrated_on(bert_directory, tmp_path):
    (tmp_path / "d.csv").write_text("text\n" + "\n".join(f"the film is very good {word}" for word in "abcdefgh"))
    common = [
        "--model",
        bert_directory,
        "--data",
        tmp_path / "d.csv",
        "--unlabelled",
        "--align",
        1,
        "--output",
        tmp_path / "o",
    ]
    done = export(*common)
    plan = read_plan(tmp_path / "o" / "plan.json")
    assert (plan.criterion, plan.parameters["keep_ratio"], plan.parameters["calibration_examples"]) == (
        "obs-gradient",
        0.5,
        8,
    )
    assert plan.repair is not None
    assert "accuracy cannot be measured (--data has no labels)" in " ".join(done.stderr.split())
    assert "n/a" in done.stdout
    refused = {
        "fisher needs labelled calibration text": (1, "--criterion", "fisher", "--keep-ratio", 0.5),
        "--max-accuracy-drop needs accuracy on validation text": (1, "--max-accuracy-drop", 1),
        "--label-column cannot stand beside it": (2, "--label-column", "y"),
    }
    for message, (code, *more) in refused.items():
        done = export(*common[:-1], tmp_path / "x", *more, code=code)
        assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "x").exists()


def test_default_options():
    found = {
        (calibrated, measured): score_options({}, calibrated=calibrated, measured=measured, align=16)
        for calibrated, measured in ((True, True), (True, False), (False, False))
    }
    default, unmeasured, plain = found.values()
    assert (default.max_accuracy_drop, default.keep_ratio, default.align) == (0.5, None, 16)
    assert (unmeasured.max_accuracy_drop, unmeasured.keep_ratio, unmeasured.criterion) == (None, 0.5, "obs-gradient")
    assert (plain.keep_ratio, plain.criterion, plain.compensate) == (0.5, "anatomy", "none")
    other = score_options({"keep_ratio": 0.3}, calibrated=True, measured=True, align=16)
    assert (other.keep_ratio, other.max_accuracy_drop) == (0.3, None)
    paper = score_options({"preset": "bert-2"}, calibrated=True, measured=True, align=16)
    assert paper.by_thresholds and (paper.criterion, paper.compensate, paper.align) == ("anatomy", "none", 1)


@pytest.mark.parametrize(
    ("given", "validation", "expected", "note"),
    [
        ({}, 99, (0.5, None), "note: a search takes 100 validation texts, --data leaves 99, so half of the neurons"),
        ({}, 0, (0.5, None), "note: accuracy cannot be measured (--data leaves no row for validation), so half"),
        ({"keep_ratio": 0.3}, 0, (0.3, None), None),
        ({}, 200, (None, 0.5), None),
        ({}, 100, (None, 0.5), "note: one of 100 validation texts is 1.00 points, the budget is 0.5"),
        ({"keep_ratio": 0.3}, 9, (0.3, None), None),
        ({"max_accuracy_drop": 2.0}, 9, (None, 2.0), "note: one of 9 validation texts is 11.11 points"),
    ],
)
def test_a_search_takes_enough_validation_texts_or_is_asked_for(given, validation, expected, note):
    texts, labels = tuple(map(str, range(300))), (0, 1) * 150
    whole = Examples(texts, labels)
    data = Dataset("d.csv", whole, whole.head(validation), whole, ("a", "b"))
    progress = Progress(Console(file=io.StringIO()))
    options = resolve_options(given, data, random_weights=False, progress=progress)
    assert (options.keep_ratio, options.max_accuracy_drop) == expected
    assert (options.criterion, options.compensate) == ("obs-gradient", "auto")
    assert len(progress.notes) == (note is not None) and "".join(progress.notes).startswith(note or "")


@pytest.mark.usefixtures("plan_only")
def test_a_drop_of_exactly_the_budget_is_within_it(bert_directory, data_file, tmp_path, monkeypatch):
    monkeypatch.setattr(VALIDATION_DROP, lambda *_: ValidationDrop(0.859, 0.854, 0.004))
    data = ["--model", bert_directory, "--data", data_file, "--align", 1]
    assert 100 * (0.859 - 0.854) > 0.5, "as floats come out"
    done = export(*data, "--max-accuracy-drop", 0.5, "--output", tmp_path / "o")
    plan = read_plan(tmp_path / "o" / "plan.json")
    assert sum(plan.kept_widths) == 3
    assert "on 9 validation texts 85.90 → 85.40 %, expected drop 0.40 points" in " ".join(done.stderr.split())
    assert plan.parameters["validation_accuracy_pruned"] == 0.854


@pytest.mark.usefixtures("plan_only")
def test_an_accuracy_that_cannot_be_kept(bert_directory, data_file, tmp_path, monkeypatch):
    drops = chain([(0.9, 0.8, 0.0), (0.9, 0.88, 0.05)], repeat((0.9, 0.7, 0.0)))
    monkeypatch.setattr(VALIDATION_DROP, lambda *_: ValidationDrop(*next(drops)))
    data = ["--model", bert_directory, "--data", data_file, "--align", 1]
    done = export(*data, "--max-accuracy-drop", 1, "--output", tmp_path / "o", code=1)
    assert (
        "cannot be kept" in done.stderr
        and "the best loses 2.00 points on 9 validation texts (expected 5.00)" in done.stderr
    )
    assert not (tmp_path / "o").exists()


def table(batch: int = 1, seq_len: int = 64) -> LatencyTable:
    return LatencyTable((0.1, 0.5, 1.0), (0.4, 0.6, 1.0), 0.1, batch, seq_len, "a machine")


@pytest.mark.usefixtures("plan_only")
def test_a_speedup_is_looked_up_in_the_table_of_this_device(bert_directory, data_file, tmp_path, monkeypatch):
    asked = []

    def measured(checkpoint, *, batch, seq_len, progress):
        asked.append((batch, seq_len))
        return table(batch, seq_len)

    monkeypatch.setattr("anatomy_export.jobs.export.latency_table", measured)
    common = ["--model", bert_directory, "--data", data_file, "--align", 1, "--allocate", "uniform"]
    export(*common, "--target-speedup", 1.5, "--batch", 4, "--seq-len", 32, "--output", tmp_path / "o")
    plan = read_plan(tmp_path / "o" / "plan.json")
    assert asked == [(4, 32)]
    assert plan.kept_widths == [14, 14, 14], "time 1 / 1.5 is between 0.6 and 1: a share of 0.583"
    assert plan.parameters["predicted_speedup"] == pytest.approx(1.5, abs=0.01)
    done = export(*common, "--target-speedup", 3, "--output", tmp_path / "x", code=1)
    assert "this model is 2.50 times as fast at batch 1" in " ".join(done.stderr.split())
    assert not (tmp_path / "x").exists()


def test_prediction_weighs_layers_by_their_width():
    assert table().relative_time([24, 24], [24, 24]) == 1
    assert table().relative_time([12, 24], [24, 24]) == pytest.approx(0.8)
    assert table().relative_time([5, 30], [10, 30]) == pytest.approx((0.6 + 3) / 4)
    assert table().speedup([1, 1], [100, 100]) == pytest.approx(2.5), "below the table its first entry holds"


@pytest.mark.usefixtures("plan_only")
def test_the_papers_thresholds_can_be_repaired_too(bert_directory, data_file, tmp_path):
    common = ["--model", bert_directory, "--data", data_file, "--alpha", 0.3]
    export(*common, "--output", tmp_path / "plain")
    export(*common, "--compensate", "auto", "--output", tmp_path / "repaired")
    plain, repaired = (read_plan(tmp_path / name / "plan.json") for name in ("plain", "repaired"))
    assert plain.layers == repaired.layers and plain.removed > 0
    assert plain.repair is None and repaired.repair is not None


@pytest.mark.usefixtures("plan_only")
def test_budgets(bert_directory, data_file, tmp_path):
    common = ["--model", bert_directory, "--data", data_file, "--criterion", "activation", "--json", "--align", 1]
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
        (["--criterion", "obs", "--preset", "bert-1"], 2, "--criterion obs is not the paper's rule"),
        (["--criterion", "anatomy-activation", "--preset", "bert-1"], 1, "has no thresholds"),
        (["--preset", "bert-1", "--allocate", "global"], 1, "--allocate global: the paper's thresholds already say"),
        (["--alpha", "0.1", "--allocate", "sensitivity"], 1, "the paper's thresholds already say"),
        (["--mask", "--target-speedup", "2"], 2, "--mask is as slow as the dense model"),
        (["--fuse", "none", "--target-speedup", "2"], 2, "timed on the default graph"),
        (["--max-accuracy-drop", "1"], 1, "needs accuracy on validation text, but there is no --data"),
        (["--keep-ratio", "0.5", "--batch", "8"], 2, "--batch means something beside --target-speedup only"),
        (["--target-speedup", "1"], 2, "--target-speedup"),
        (["--target-speedup", "2", "--flops-ratio", "0.5"], 2, "is a budget"),
        (["--keep-ratio", "0.5", "--flops-ratio", "0.5"], 2, "--keep-ratio is a budget"),
        (["--plan", "p.json", "--compensate", "auto"], 2, "already says which neurons stay"),
        (["--max-accuracy-drop", "-1"], 2, "--max-accuracy-drop"),
        (["--target-speedup", "2"], 1, "--target-speedup by --criterion"),
        (["--plan", "p.json", "--strong-threshold", "0.5"], 2, "already says which neurons stay"),
        (["--dense", "--seed", "3"], 2, "--dense prunes nothing, so --seed cannot stand beside it"),
        (["--dense", "--mask"], 2, "--mask cannot stand beside --dense"),
        (["--text-column", "t", "--keep-ratio", "0.5"], 2, "--text-column means something beside --data only"),
        (["--criterion", "obs", "--strong-threshold", "0.2"], 2, "--criterion obs is not the paper's rule"),
        (["--seed", "-1"], 2, "-1 is not in the range"),
    ],
)
def test_bad_requests(bert_directory, tmp_path, arguments, code, message):
    done = export("--model", bert_directory, *arguments, "--output", tmp_path / "o", code=code)
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "o").exists()


@pytest.mark.usefixtures("plan_only")
@pytest.mark.parametrize("option", [("--strong-threshold", "0.2"), ("--probe-reduction", "first")])
def test_an_option_of_the_anatomy_criteria_is_not_ignored_in_silence(bert_directory, data_file, tmp_path, option):
    common = ("--model", bert_directory, *option, "--keep-ratio", "0.5", "--output", tmp_path / "o")
    done = export(*common, "--data", data_file, code=1)
    assert f"{option[0]} is of the anatomy criteria, but obs-gradient ranks" in " ".join(done.stderr.split())
    assert not (tmp_path / "o").exists()
    export(*common)
    assert read_plan(tmp_path / "o" / "plan.json").criterion == "anatomy"


@pytest.mark.usefixtures("plan_only")
@pytest.mark.parametrize("criterion", ["anatomy", "anatomy-activation"])
def test_a_plan_by_anatomy_records_what_ranked_and_what_was_protected(criterion, bert_directory, data_file, tmp_path):
    arguments = ("--model", bert_directory, "--data", data_file, "--criterion", criterion, "--allocate", "sensitivity")
    export(*arguments, "--keep-ratio", 0.9, "--strong-threshold", 0.45, "--align", 1, "--output", tmp_path / "o")
    plan = read_plan(tmp_path / "o" / "plan.json")
    assert plan.parameters["strong_threshold"] == 0.45
    assert plan.parameters["threshold_rule"] == "bert" and plan.parameters["allocate"] == "sensitivity"
    assert any(layer.protected for layer in plan.layers)
    assert all(set(layer.protected) <= set(layer.keep) for layer in plan.layers)
