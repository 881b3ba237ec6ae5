"""The docs: every figure is what the committed results give, and what they say is supported is tested."""

import configparser
import importlib
import json
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


DECISIONS = sorted(f"docs/adr/{path.name}" for path in (ROOT / "docs" / "adr").glob("*.md"))


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", *DECISIONS])
def test_files_that_pages_name_are_there(name):
    quoted = re.findall(r"`([\w./-]+/[\w.-]*)`", (ROOT / name).read_text(encoding="utf-8"))
    places = (ROOT, ROOT / "anatomy_export", ROOT / "benchmarks")
    assert quoted
    assert [file for file in quoted if not any((place / file).exists() for place in places)] == []


def test_the_decision_on_fusion_has_the_measured_ratios():
    text = (ROOT / "docs" / "adr" / "0002-fusion.md").read_text(encoding="utf-8")
    for body in json.loads((ROOT / "benchmarks" / "fusion.json").read_text(encoding="utf-8")).values():
        for result in body["results"]:
            if result["speedup_interval"]:
                low, high = result["speedup_interval"]
                assert f"{result['speedup']:.3f} [{low:.2f}, {high:.2f}]" in text, result["name"]


def test_the_decision_on_the_exporter_has_the_measured_figures():
    text = (ROOT / "docs" / "adr" / "0006-exporter.md").read_text(encoding="utf-8")
    for study in json.loads((ROOT / "benchmarks" / "exporters.json").read_text(encoding="utf-8"))["models"].values():
        for export in study["exports"].values():
            nodes = " / ".join(map(str, export["fused_nodes"].values()))
            cells = (nodes, export["nodes"], f"{export['max_abs_error']:.1e}", f"{export['export_s']:.1f}")
            assert f"| {' | '.join(map(str, cells))} |" in text
        for result in study["bench"]["results"]:
            if result["speedup_interval"]:
                low, high = result["speedup_interval"]
                assert f"{result['speedup']:.3f} [{low:.2f}, {high:.2f}]" in text, result["name"]


def test_the_architecture_names_every_room_in_its_order():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    layers = config["importlinter:contract:rooms"]["layers"]
    rooms = [name.removeprefix("anatomy_export.") for name in re.findall(r"anatomy_export\.\w+", layers)]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.M)
    assert re.findall(r"\w+", " ".join(rows)) == rooms
    adr = (ROOT / "docs" / "adr" / "0004-rooms.md").read_text(encoding="utf-8")
    order = re.search(r"From the top:\n\n(.*?)\n\n", adr, re.S).group(1)
    assert re.findall(r"\w+", order) == rooms
    folders = {path.parent.name for path in (ROOT / "anatomy_export").glob("*/__init__.py")} | {"cli"}
    assert set(rooms) == folders


@pytest.fixture(scope="module")
def summarize():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("summarize")


def test_a_frontier_is_summarized_by_sentence(summarize):
    def run(flipped, agreement):
        return {"flipped": flipped, "agreement": agreement, "probability_change": 0.1}

    raw = {
        "settings": {"examples": 8},
        "labels": "1100",
        "dense": "1101",
        "runs": {
            "0/fisher/uniform/none/0.5": run([0, 3], 0.5),
            "1/fisher/uniform/none/0.5": run([0, 1], 0.5),
            "0/fisher/uniform/auto/0.5": run([3], 0.75),
            "0/fisher/uniform/none/0.7": {"refused": "why"},
        },
    }
    summary = summarize.summarize_frontier(raw)
    assert (summary["texts"], summary["dense_accuracy"]) == (4, 0.75)
    plain, repaired = summary["ways"]["fisher/uniform/none/0.5"], summary["ways"]["fisher/uniform/auto/0.5"]
    assert (plain["seeds"], plain["drop"][0]) == (2, 25)  # of the four sentences 1 1 1 0, right are 0 1 1 1 and 0 0 1 0
    assert (repaired["seeds"], repaired["drop"][0], repaired["agreement"]) == (1, -25, 0.75)
    assert summary["repair_gains"]["fisher/uniform/none/0.5"][0] == 25  # over the seed that was run both ways
    assert summary["refused"] == {"fisher/uniform/none/0.7": "why"}
    assert summary["default_against_unrepaired"] == {}


def test_what_is_kept_of_a_bench_body(summarize, tmp_path):
    result = {"worker": "ort dense", "median_s": 0.1, "times_s": [0.1, 0.1], "warmup_s": [0.3]}
    roofline = {"flops_per_s": 1e9, "by_input": {"1x128": 1e9}, "times_s": {}}
    body = {"kind": "bench", "orders": {}, "launches": {"1x128": [0, 1]}, "roofline": roofline, "results": [result]}
    without = summarize.without_rounds(body)
    assert without == {
        "kind": "bench",
        "roofline": {"flops_per_s": 1e9},
        "results": [{"worker": "ort dense", "median_s": 0.1}],
    }
    kept = summarize.without_rounds(body, keep_times=True)
    assert kept["launches"] == {"1x128": [0, 1]} and kept["results"][0]["times_s"] == [0.1, 0.1]
    summarize.write_json(tmp_path / "body.json", body)
    assert json.loads((tmp_path / "body.json").read_text(encoding="utf-8")) == body
