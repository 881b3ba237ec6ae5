"""Ways to prune compared: the non-dominated set, resuming, and the latency table that speed is read off."""

import json

import numpy as np
import pytest
from conftest import files_that_tell, run, tiny_checkpoint

from anatomy_export.bench import measure_latency as latency
from anatomy_export.bench.measure import ONE_INPUT
from anatomy_export.bench.plots import pareto_plot
from anatomy_export.bench.rounds import Samples
from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import Examples
from anatomy_export.evaluation.metrics import compare_predictions, expected_drop
from anatomy_export.evaluation.torch_classifier import class_probabilities
from anatomy_export.jobs.pareto import non_dominated
from anatomy_export.planning.latency_table import LatencyTable
from anatomy_export.planning.sweep import Pruned, PruneSpec, Refused, prune_each

TEXTS = ("the film is good", "awful", "a very bad story", "I walked out of cinema", "a great plot", "not good")
TRAIN = Examples(TEXTS, (1, 0, 0, 0, 1, 0))


def test_predictions_compared():
    dense = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    pruned = np.array([[0.8, 0.2], [0.6, 0.4], [0.2, 0.8]])
    found = compare_predictions(dense, pruned, np.array([0, 0, 0]))
    assert found == pytest.approx({"accuracy": 2 / 3, "agreement": 2 / 3, "probability_change": 0.1})
    assert expected_drop(dense, pruned) == pytest.approx((0.6 - 0.4) / 3)
    assert expected_drop(dense, dense) == 0


def test_ways_from_one_calibration(family_name):
    checkpoint = tiny_checkpoint(family_name)
    specs = [
        PruneSpec("magnitude", "uniform", "none", 0.5),
        PruneSpec("magnitude", "uniform", "least-squares", 0.5),
        PruneSpec("obs-gradient", "sensitivity", "auto", 0.25),
        PruneSpec("magnitude", "uniform", "none", 0),
        PruneSpec("magnitude", "none", "none", 0.5),
    ]
    plain, repaired, other, whole, refused = prune_each(checkpoint, TRAIN, specs, seed=0, examples=6, max_length=64)
    assert isinstance(plain, Pruned) and isinstance(repaired, Pruned) and isinstance(other, Pruned)
    assert plain.widths == repaired.widths == [12, 12, 12]
    assert plain.plan.layers == repaired.plan.layers and repaired.repair is not None
    assert sum(other.widths) == 54
    assert isinstance(refused, Refused) and "allocation is 'none', expected one of uniform" in refused.reason
    dense = class_probabilities(checkpoint, checkpoint.model, TEXTS, 64)
    assert isinstance(whole, Pruned)
    np.testing.assert_allclose(class_probabilities(checkpoint, whole.model, TEXTS, 64), dense, atol=1e-6)
    assert np.abs(class_probabilities(checkpoint, plain.model, TEXTS, 64) - dense).max() > 1e-5


def test_non_dominated():
    points = {
        "dense": (1.0, 0.9),
        "a": (2.0, 0.8),
        "worse": (1.9, 0.8),
        "b": (3.0, 0.7),
        "slow": (0.9, 0.9),
        "c": (3, 0.6),
    }
    assert non_dominated(points) == ["dense", "a", "b"]


def test_latency_table_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ANATOMY_CACHE", str(tmp_path))
    monkeypatch.setattr(latency, "SHARES", (0.5, 1.0))
    monkeypatch.setattr(latency, "ROUNDS", 3)
    monkeypatch.setattr(latency, "LAUNCHES", 1)
    checkpoint = tiny_checkpoint("bert", width=64)
    table = latency.latency_table(checkpoint, batch=2, seq_len=16, progress=Progress())
    assert (table.shares, table.relative[-1], table.batch, table.seq_len) == ((0.5, 1.0), 1.0, 2, 16)
    assert 0 < table.relative[0] <= 1 and table.dense_s > 0
    monkeypatch.setattr(latency, "_measure_table", None)
    assert latency.latency_table(checkpoint, batch=2, seq_len=16, progress=Progress()) == table
    assert len(list((tmp_path / "latency").glob("*.json"))) == 1
    (file,) = (tmp_path / "latency").glob("*.json")
    monkeypatch.setattr(latency, "_measure_table", lambda *arguments: table)
    for damaged in (file.read_text()[:20], "{}", "[]", '{"shares": 1, "relative": 2}'):
        file.write_text(damaged)
        assert latency.latency_table(checkpoint, batch=2, seq_len=16, progress=Progress()) == table


def test_the_table_is_time_by_dense_time_and_never_above_it():
    rounds = [{"a": 0.5, "b": 1.1, "1": 1.0} for _ in range(12)]
    samples = Samples(rounds={ONE_INPUT: rounds}, launches={ONE_INPUT: [0] * 6 + [1] * 6})
    table = latency._table(samples, {"a": 0.25, "b": 0.75, "1": 1.0}, 1, 8, "a machine")
    assert table.relative == pytest.approx((0.5, 1.0, 1.0))
    assert (table.dense_s, table.shares) == (1.0, (0.25, 0.75, 1.0))


def test_pareto_command_resumes(bert_directory, data_file, tmp_path, monkeypatch):
    table = LatencyTable((0.1, 1.0), (0.4, 1.0), 0.1, 1, 64, "a machine")
    monkeypatch.setattr("anatomy_export.bench.measure_latency.latency_table", lambda *args, **options: table)
    output = tmp_path / "p"
    common = ["pareto", "--model", bert_directory, "--data", data_file, "--output", output, "--removed"]
    first = run(*common, "0.3", "--criteria", "magnitude,fisher", "--json")
    assert first.exit_code == 0, first.stderr
    body = json.loads(first.stdout)
    names = {f"{one}/sensitivity/{how}/0.3" for one in ("magnitude", "fisher") for how in ("none", "auto")}
    assert set(body["results"]) == names | {"dense"} and not body["partial"]
    assert set(body["test"]) == set(body["non_dominated"]) | {"dense"}
    fastest = body["results"][body["non_dominated"][-1]]
    assert fastest["speedup"] == max(one["speedup"] for one in body["results"].values() if "speedup" in one)
    stored = json.loads((output / "pareto.json").read_text())
    stored["results"]["fisher/sensitivity/none/0.3"]["accuracy"] = 0.123
    (output / "pareto.json").write_text(json.dumps(stored))
    again = json.loads(run(*common, "0.3,0.6", "--criteria", "magnitude,fisher", "--json").stdout)
    assert len(again["results"]) == 9
    assert again["results"]["fisher/sensitivity/none/0.3"]["accuracy"] == 0.123, "not run again"
    fewer = run(*common, "0.3", "--criteria", "magnitude")
    assert fewer.exit_code == 0 and "what no other way beats" in fewer.stdout, fewer.stderr
    other = run(*common, "0.3", "--criteria", "fisher", "--seed", "1")
    assert other.exit_code == 1 and "made with other settings" in other.stderr
    assert b"<svg" in pareto_plot(again)
    assert again["settings"]["model"] == "tiny-bert" and files_that_tell(output, tmp_path) == []


def test_pareto_needs_accuracy(bert_directory, tmp_path):
    done = run("pareto", "--model", bert_directory, "--output", tmp_path / "p")
    assert done.exit_code == 1 and "needs labelled text" in done.stderr
    assert not (tmp_path / "p").exists()
