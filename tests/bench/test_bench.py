"""`anatomy-bench` on tiny models: raw values, removed share and closure, files, bad input, the paper's job."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import files_that_tell, saved_dense, tiny_checkpoint

from anatomy_export.bench import paper
from anatomy_export.bench.contestants import Contestant
from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.placement import check_placement
from anatomy_export.bench.rounds import Samples
from anatomy_export.bench.tables import TERMINAL_HEADINGS, bench_rows
from anatomy_export.bench.variants import Variant
from anatomy_export.cli import main
from anatomy_export.core.errors import ProviderError
from anatomy_export.data.loading import Dataset, Examples
from anatomy_export.models.flops import count_flops


def invoke(*arguments, code: int = 0):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == code, (done.stderr, done.exception)
    return done


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny BERT directory, with an empty cache of its own for the module."""
    folder = tmp_path_factory.mktemp("bench")
    before = os.environ.get("ANATOMY_CACHE")
    os.environ["ANATOMY_CACHE"] = str(folder / "cache")
    yield saved_dense(tiny_checkpoint("bert"), folder / "tiny-bert")
    os.environ.pop("ANATOMY_CACHE")
    if before is not None:
        os.environ["ANATOMY_CACHE"] = before


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory) -> tuple[dict, Path]:
    output = tmp_path_factory.mktemp("out") / "result"
    arguments = [
        "--model",
        tiny,
        "--backend",
        "torch,ort",
        "--batch",
        "1,2",
        "--seq-len",
        "8",
        "--keep-ratio",
        "0.75,0.5",
        "--align",
        "1",
    ]
    done = invoke("bench", *arguments, "--repeats", 10, "--threads", 1, "--output", output, "--json")
    return json.loads(done.stdout), output


def result_of(body: dict, worker: str, batch: int = 1) -> dict:
    return next(one for one in body["results"] if (one["worker"], one["batch"]) == (worker, batch))


def test_dense_mask_and_slice_are_timed_with_raw_values(measured, tiny):
    body, output = measured
    assert body["settings"]["model"] == "tiny-bert" and files_that_tell(output, tiny.parent) == []
    names = ["dense", "mask 0.75", "mask 0.5", "slice 0.75", "slice 0.5"]
    expected = [f"{engine} {name}" for engine in ("torch", "ort") for name in names]
    assert [one["worker"] for one in body["results"]] == expected * 2
    assert json.loads((output / "bench.json").read_text()) == body
    assert not body["partial"] and not body["failures"]
    dense, sliced = result_of(body, "ort dense"), result_of(body, "ort slice 0.5")
    assert len(sliced["times_s"]) == 10 and len(sliced["warmup_s"]) >= 3
    assert sliced["median_s"] == statistics.median(sliced["times_s"]) and sliced["p99_s"] is None
    ratios = [a / b for a, b in zip(dense["times_s"], sliced["times_s"], strict=True)]
    assert sliced["speedup"] == pytest.approx(statistics.median(ratios), rel=0.05)
    low, high = sliced["speedup_interval"]
    assert low <= sliced["speedup"] <= high
    assert (dense["speedup"], dense["closure"]) == (1.0, None)
    assert {"cpu", "threads", "versions", "commit", "governor", "load_average"} <= body["environment"].keys()
    assert body["roofline"]["flops_per_s"] > 1e8
    assert all(one["peak_rss_bytes"] > 1e7 for one in body["results"])


def test_removed_share_and_closure(measured, tiny):
    body, _ = measured
    batch, length, layers, hidden, width = 2, 8, 3, 16, 24
    ffn = layers * 4 * hidden * width * batch * length
    projections = layers * 4 * 2 * hidden * hidden * batch * length
    attention = layers * 4 * hidden * length * length * batch
    head = 2 * (hidden * hidden + hidden * 2) * batch
    total = ffn + projections + attention + head
    assert count_flops(tiny_checkpoint("bert").model).total(batch, length) == total
    for variant in ("mask 0.5", "slice 0.5"):
        one = result_of(body, f"torch {variant}", batch)
        assert one["removed_share"] == pytest.approx(0.5 * ffn / total)
        assert one["closure"] == pytest.approx((1 - 1 / one["speedup"]) / one["removed_share"])
    assert result_of(body, "ort mask 0.5", batch)["flops"] == total
    assert result_of(body, "ort slice 0.5", batch)["flops"] == total - ffn // 2


def test_the_table_fits_a_terminal_of_eighty_columns(measured):
    body, _ = measured
    rows = bench_rows(body, intervals=False)
    widths = [max(map(len, column)) for column in zip(TERMINAL_HEADINGS, *rows, strict=True)]
    assert sum(widths) + len(widths) < 80


def test_second_run_finds_the_cache_and_files_are_for_people(measured, tiny, tmp_path):
    _, output = measured
    assert (output / "bench.md").read_text().startswith("| engine | variant |")
    assert b"<svg" in (output / "bench.svg").read_bytes()
    arguments = [
        "--model",
        tiny,
        "--backend",
        "ort",
        "--seq-len",
        8,
        "--keep-ratio",
        "0.5",
        "--repeats",
        2,
        "--threads",
        1,
        "--align",
        1,
    ]
    done = invoke("bench", *arguments, "--output", tmp_path / "again")
    assert "making" not in done.stderr
    assert "closure" in done.stdout and "GFLOP/s in the same run" in done.stdout
    invoke("bench", *arguments, "--output", tmp_path / "again", code=1)
    invoke("bench", *arguments, "--output", tmp_path / "again", "--force")


def test_bundles_as_shipped(tiny, tmp_path):
    invoke("export", "--model", tiny, "--dense", "--output", tmp_path / "dense")
    invoke("export", "--model", tiny, "--slice", "--output", tmp_path / "slice", "--keep-ratio", 0.5)
    arguments = [
        "--bundle",
        tmp_path / "dense",
        "--bundle",
        tmp_path / "slice",
        "--bundle",
        tmp_path / "slice/model.onnx",
    ]
    arguments += ["--seq-len", 8, "--repeats", 5, "--threads", 1, "--json", "--output", tmp_path / "result"]
    body = json.loads(invoke("bench", *arguments, "--backend", "ort").stdout)
    assert [one["name"] for one in body["results"]] == ["dense", "slice", "model"]
    assert [one["closure"] is None for one in body["results"]] == [True, False, True]
    assert body["results"][0]["speedup"] == 1.0
    alone = json.loads(invoke("bench", *arguments[2:4], *arguments[6:-1], tmp_path / "one", "--backend", "ort").stdout)
    assert [(one["speedup"], one["closure"]) for one in alone["results"]] == [(None, None)]
    done = invoke("bench", *arguments[:-2], "--output", tmp_path / "other", "--backend", "torch", code=1)
    assert "holds no checkpoint" in done.stderr and not (tmp_path / "other").exists()


def test_compare(measured, tmp_path):
    body, output = measured
    done = invoke("bench", "compare", output / "bench.json", output, "--json")
    rows = json.loads(done.stdout)["results"]
    assert len(rows) == len(body["results"]) and {row["ratio"] for row in rows} == {1.0}
    assert all(row["ratio_interval"] is None and row["ratio_void"] and row["launches"] == [1, 1] for row in rows)
    shown = invoke("bench", "compare", output, output).stdout
    assert "1.00?" in shown and "No interval: of a run of one launch nobody knows what was luck" in shown
    launched = json.loads(json.dumps(body))
    launched["launches"] = {key: [0] * 4 + [1] * 6 for key in body["launches"]}
    (tmp_path / "launched.json").write_text(json.dumps(launched))
    done = invoke("bench", "compare", tmp_path / "launched.json", tmp_path / "launched.json", "--json")
    for row in json.loads(done.stdout)["results"]:
        assert row["launches"] == [2, 2] and row["ratio_interval"][0] <= 1 <= row["ratio_interval"][1]
    other = json.loads(json.dumps(body))
    for one, clock in ((body, "1500"), (other, "900")):
        one["environment"]["gpus"] = [{"name": "T4", "driver_version": "1", "clocks.sm": clock}]
    for name, one in (("a", body), ("b", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(one))
    invoke("bench", "compare", tmp_path / "a.json", tmp_path / "b.json")
    other["environment"]["cpu"] = "another CPU"
    other["inputs_sha256"] = "0"
    other["settings"]["model_fingerprint"] = "0"
    (tmp_path / "b.json").write_text(json.dumps(other))
    done = invoke("bench", "compare", output, tmp_path / "b.json", code=1)
    assert "environment.cpu" in done.stderr and "inputs_sha256" in done.stderr
    assert "settings.model_fingerprint" in done.stderr
    assert "first ÷ second" in invoke("bench", "compare", output, tmp_path / "b.json", "--allow-different").stdout
    bad = [("{", "not valid JSON, so damaged"), ('{"format_version": 99}', "format version 99")]
    bad += [
        (json.dumps({**body, "results": [{"worker": "x"}]}), "a result: a field is missing or of the wrong kind: $[0]")
    ]
    for text, message in bad:
        (tmp_path / "bad.json").write_text(text)
        assert message in invoke("bench", "compare", tmp_path / "bad.json", tmp_path / "bad.json", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--bundle", "nowhere"], 1, "nowhere: neither a bundle nor an .onnx file"),
        (["--batch", "0"], 2, "above 0"),
        (["--backend", "tensorflow"], 2, "out of torch, torch-compile, ort, openvino"),
        (["--keep-ratio", "0"], 2, "above 0 and at most 1"),
        (["--io-binding", "on"], 2, "needs --provider cuda"),
        (["--batch", "8", "paper"], 2, "put the subcommand first"),
        (["--provider", "cuda", "--backend", "ort"], 3, "CUDAExecutionProvider"),
        (["paper", "--removed", "1"], 2, "from 0 to below 1"),
        (["--bundle", "x", "--keep-ratio", "0.5"], 2, "--bundle already says what --keep-ratio would"),
        (["--provider", "cuda", "--cuda-graph", "on"], 2, "needs --io-binding on"),
        (["--provider", "cuda", "--backend", "openvino"], 2, "runs on the CPU only"),
        (["--provider", "cuda", "--backend", "torch"], 3, "finds no CUDA device"),
        (["--timeout", "0"], 2, "--timeout"),
    ],
)
def test_bad_input(arguments, code, message, tmp_path, monkeypatch):
    if code == 3 and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    monkeypatch.chdir(tmp_path)
    done = invoke("bench", *arguments, code=code)
    assert message in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


def test_sequences_longer_than_the_model_takes(tiny, tmp_path):
    done = invoke("bench", "--model", tiny, "--seq-len", "500", "--output", tmp_path / "x", code=1)
    assert "at most 66 tokens" in done.stderr


class _Session:
    """What ONNX Runtime says when some nodes fell back to the CPU."""

    def __init__(self, **nodes):
        self.nodes = nodes

    def get_provider_graph_assignment_info(self):
        return [_Subgraph(provider, operators) for provider, operators in self.nodes.items()]


class _Subgraph:
    def __init__(self, provider, operators):
        self.ep_name = provider
        self.get_nodes = lambda: [type("Node", (), {"op_type": operator})() for operator in operators]


def test_a_product_that_fell_back_to_the_cpu_is_an_error():
    cuda = "CUDAExecutionProvider"
    counts = check_placement(_Session(**{cuda: ["MatMul", "Gelu"], "CPUExecutionProvider": ["Shape"]}), cuda, Path("m"))
    assert counts[cuda] == {"MatMul": 1, "Gelu": 1}
    for session in (
        _Session(**{cuda: ["MatMul"], "CPUExecutionProvider": ["MatMul"]}),
        _Session(CPUExecutionProvider=["MatMul"]),
        object(),
    ):
        with pytest.raises(ProviderError):
            check_placement(session, cuda, Path("m"))


def test_interrupt_leaves_a_partial_file(tiny, tmp_path):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "anatomy_export.cli", "bench", "--model", str(tiny), "--backend", "ort"]
    command += ["--seq-len", "8", "--repeats", "1000000", "--threads", "1", "--output", str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "warm up" in line:
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=240)[1]
    assert process.returncode == 130, rest
    body = json.loads((output / "bench.json").read_text())
    assert body["partial"] and len(body["results"]) == 3
    assert len({len(one["times_s"]) for one in body["results"]}) == 1
    assert "marked partial" in rest and "Traceback" not in rest


def test_the_papers_job(tiny, tmp_path, monkeypatch):
    words = ["the", "film", "is", "a", "good", "bad", "great", "awful", "story", "acting"]
    texts = tuple(" ".join(words[: 1 + index % 10]) for index in range(40))
    examples = Examples(texts, tuple(index % 2 for index in range(40)))
    data = Dataset("fake", examples, examples, examples, ("a", "b"))
    monkeypatch.setattr(paper, "movie_reviews", lambda: data)
    arguments = ["--model", tiny, "--removed", "0.5", "--examples", 20, "--batch", 8, "--seq-len", 16, "--threads", 1]
    done = invoke("bench", "paper", *arguments, "--output", tmp_path / "paper", "--json")
    body = json.loads(done.stdout)
    assert len(body["results"]) == 2 * 2 * 6
    assert "not IMDB itself" in body["texts"]["imdb"]
    bucketed = [one for one in body["results"] if one["layout"] == "bucketed"]
    assert {one["same_classes"] for one in bucketed} == {1.0}
    assert all(one["max_abs_difference"] < 1e-5 for one in bucketed)
    assert b"<svg" in (tmp_path / "paper" / "bench.svg").read_bytes()
    assert body["settings"]["model"] == "tiny-bert" and files_that_tell(tmp_path / "paper", tiny.parent) == []
    assert {one["examples"] for one in body["results"]} == {20}
    assert {len(one["times_s"]) for one in body["results"]} == {3}
    assert (tmp_path / "paper" / "bench.md").read_text().count("| torch | dense | padded |") == 2


def test_a_partial_job_compares_only_what_both_sides_did():
    inputs = [{"input_ids": np.zeros((2, length), dtype=np.int64)} for length in (4, 8)]
    jobs = [paper.Job("reviews", layout, inputs, [[0, 1], [2, 3]]) for layout in ("padded", "bucketed")]
    variant = Variant("dense", "dense", 1.0, {}, source="s")
    contestant = Contestant("torch dense", variant, EngineSpec("torch"))
    rounds = {("padded", 0): 4.0, ("padded", 1): 4.0, ("bucketed", 0): 1.0}
    samples = Samples(
        rounds={f"reviews/{layout}/{index}": [{"torch dense": s}] for (layout, index), s in rounds.items()}
    )
    entry = paper._row(contestant, [contestant], samples, jobs[1], jobs).values()
    assert entry["examples"] == 2 and entry["torch_speedup"] is None
    samples.rounds["reviews/bucketed/1"] = [{"torch dense": 3.0}]
    entry = paper._row(contestant, [contestant], samples, jobs[1], jobs).values()
    assert entry["torch_speedup"] == 2.0


def test_joined_texts_have_the_published_lengths():
    lengths = paper.imdb_lengths(20000)
    assert statistics.mean(lengths) == pytest.approx(paper.IMDB_MEAN_WORDS, rel=0.03)
    assert statistics.pstdev(lengths) == pytest.approx(paper.IMDB_DEVIATION_WORDS, rel=0.06)
    joined = paper.join_to_lengths(["a b c", "d"], [1, 7, 30])
    assert [len(text.split()) for text in joined] == [1, 7, 30]


def test_doctor(tiny):
    body = json.loads(invoke("doctor", "--json").stdout)
    assert body["providers"]["cpu"] == {"available": True, "starts": True, "reason": None}
    assert body["versions"]["onnx"] and body["cpus"] >= 1
    assert "provider cuda" in invoke("doctor").stdout
    assert body["providers"]["cuda"]["starts"] == (body["providers"]["cuda"]["reason"] is None)
    if not torch.cuda.is_available():
        assert "--require cuda" in invoke("doctor", "--require", "cpu,cuda", code=3).stderr
    invoke("doctor", "--require", "vulkan", code=2)
