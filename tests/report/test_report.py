"""The report: what it reads, what it refuses, what its figures hold."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import refused, run
from report_inputs import write_bench, write_bundle, write_pareto, write_score, write_study

from anatomy_export.core.errors import MissingExtraError
from anatomy_export.jobs.report import figures_of
from anatomy_export.report.figure import ALL, HeatMap, Panel, TextTable, share_ranges
from anatomy_export.report.page import report_page
from anatomy_export.report.reading import read_sources
from anatomy_export.report.sources import Seconds
from anatomy_export.report.static import static_figure
from anatomy_export.report.strong_neuron_graph import LINES, PROBE_LINES

PAPERS = ["1", "1a", "2", "2a", "2a", "4", "4-1", "4a", "5a"]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("inputs") / "study-bert", strong=0.3)


def figures(directory: Path) -> dict:
    return {figure.topic: figure for source in read_sources([directory]) for figure in figures_of(source)}


def plots(page: str) -> list[dict]:
    found = re.search(r'<script type="application/json" id="plots">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def test_a_study_has_every_figure_of_the_paper(study, tmp_path):
    done = run("report", study, "--output", tmp_path / "r.html", "--json")
    assert done.exit_code == 0, done.stderr
    body = json.loads(done.stdout)
    assert [one["number"] for one in body["figures"]] == PAPERS
    assert all(len(one["summary"]) > 40 for one in body["figures"])
    page = (tmp_path / "r.html").read_text()
    assert body["size_bytes"] == len(page.encode()) and "$" not in page[: page.index("<style>")]
    for one in body["figures"]:
        shown = html.escape(one["summary"]).replace(" %", "\u00a0%").replace(" ×", "\u00a0×").replace(" s ", "\u00a0s ")
        assert shown in page


def test_gpt2_has_its_own_numbers(tmp_path):
    found = figures(write_study(tmp_path / "g", rule="gpt2", seconds=False))
    assert [figure.number for figure in found.values()] == ["1", "1a", "3", "3a", "3a", "5", "4a", "5a"]
    assert "Layers without any: 0, 1, 2, 3" in found["Graph of strong neurons"].summary
    assert "GPT-2" in found["Setups"].summary


def test_the_page_asks_nothing_of_any_server(study):
    sources = read_sources([study])
    page = report_page(sources, figures_of(sources[0]), "t")
    own = page[: page.index('id="plots"')] + page[page.rindex("<script>") :]
    assert "default-src 'none'" in own and not re.search(r"https?://|src=|@import|url\(", own)


def test_texts_of_a_probe_stay_texts(tmp_path):
    directory = write_score(tmp_path / "s")
    body = json.loads((directory / "anatomy.json").read_text())
    body["probes"][0]["text"] = "</script><b>bold & bad</b>"
    (directory / "anatomy.json").write_text(json.dumps(body))
    sources = read_sources([directory])
    page = report_page(sources, figures_of(sources[0]), "<i>title</i>")
    assert "<b>bold" not in page and "<i>title" not in page and "&lt;b&gt;bold &amp; bad" in page
    hover = [text for plot in plots(page) for trace in plot["data"] for text in trace.get("hovertext", ())]
    assert any("&lt;b&gt;bold &amp; bad&lt;/b&gt;" in str(text) for text in hover)


def test_the_graph_connects_strong_neighbours_and_names_every_neuron(study):
    anatomy = read_sources([study])[0].score.anatomy
    panel = figures(study)["Graph of strong neurons"].parts[0]
    marks = [one for one in panel.series if one.draw == "marks" and one.probes == (ALL,)]
    named = {tuple(map(int, re.findall(r"\d+", text.split("\n")[0]))) for one in marks for text in one.hover}
    assert named == {(layer, int(one)) for layer in range(12) for one in anatomy.strong(layer)}
    edges = [one for one in panel.series if one.draw == "edges"]
    lines = {one.layers: one.x.count(None) for one in edges if one.probes == (ALL,)}
    strong = [len(anatomy.strong(layer)) for layer in range(12)]
    for layer in range(11):
        whole = strong[layer] * strong[layer + 1]
        assert (
            lines[ALL, layer, layer + 1] == whole
            if whole <= LINES
            else LINES / 2 < lines[ALL, layer, layer + 1] <= LINES
        )
    assert all(one.x.count(None) <= PROBE_LINES for one in edges if one.probes != (ALL,))
    assert "at most 400 lines" in figures(study)["Graph of strong neurons"].notes[0]


def test_the_overlap_is_the_jaccard_index(study):
    anatomy = read_sources([study])[0].score.anatomy
    heat = figures(study)["Strong neurons, overlap"].parts[0]
    assert isinstance(heat, HeatMap) and len(heat.sheets) == 13
    for sheet in heat.sheets[1:4]:
        own = [set(np.flatnonzero(row > 0.35)) for row in anatomy.neuron_similarity[sheet.layers[0]]]
        assert sheet.values[0, 2] == pytest.approx(len(own[0] & own[2]) / len(own[0] | own[2]))
        assert np.array_equal(sheet.values, sheet.values.T, equal_nan=True)


def test_the_list_names_strong_neurons_of_each_probe(study):
    anatomy = read_sources([study])[0].score.anatomy
    table = figures(study)["Strong neurons, listed"].parts[0]
    assert isinstance(table, TextTable)
    row = next(row for row in table.rows if row.probes == (1,) and row.layers == (ALL, 3))
    listed = {int(number) for cell in row.cells[2:] for number in re.findall(r"\d+", cell)}
    assert listed == set(np.flatnonzero(anatomy.neuron_similarity[3][1] > 0.35).tolist())


def test_without_strong_neurons_the_most_similar_stand_in(tmp_path):
    found = figures(write_score(tmp_path / "weak", threshold=0.99))
    for topic in ("Graph of strong neurons", "Strong neurons, listed", "Strong neurons, overlap"):
        assert found[topic].notes[0].startswith("No neuron exceeds the threshold of 0.99. Shown instead")
    assert "5.0 % of all" in found["Graph of strong neurons"].summary


def test_accuracy_and_table_say_what_was_measured(study):
    body = json.loads((study / "study.json").read_text())["setups"]
    found = figures(study)
    series = {one.label: one for one in found["Accuracy against neurons removed"].parts[0].series}
    assert list(series["anatomy"].y) == [100 * body[f"bert-{n}"]["accuracy"] for n in (1, 2, 3)]
    assert len(series["random, each seed"].x) == 9 and len(series["random, mean"].x) == 3
    seeds = [body[f"random-bert-1-{seed}"]["accuracy"] for seed in range(3)]
    assert series["random, mean"].y[0] == pytest.approx(100 * np.mean(seeds))
    rows = [row.cells for row in found["Setups"].parts[0].rows]
    assert rows[0][:4] == ("bert-1", "0.01", "0.001", "4, 6, 8, 10, 11") and rows[-1][4] == "refused"
    assert "No figures for bert-5: layer 1 would be emptied." in found["Setups"].notes
    assert "ahead in 3 of 3 setups" in found["Accuracy against neurons removed"].summary
    thresholds = found["Thresholds and neurons removed, by layer"].parts[1].series[0]
    assert list(thresholds.y) == [one["value"] for one in body["bert-1"]["thresholds"]]


def test_studies_side_by_side_share_their_axes(study, tmp_path):
    other = write_study(tmp_path / "study-gpt2", rule="gpt2", layers=6)
    shared = share_ranges([one for source in read_sources([study, other]) for one in figures_of(source)])
    for topic in ("Layer similarity", "Accuracy against neurons removed", "Seconds against neurons removed"):
        ranges = {one.parts[0].y_range for one in shared if one.topic == topic}
        assert len(ranges) == 1
        low, high = ranges.pop()
        for one in shared:
            if one.topic == topic and isinstance(one.parts[0], Panel):
                assert low < one.parts[0].y_limits()[0] and one.parts[0].y_limits()[1] < high


def test_bench_pareto_and_bundle_are_drawn(tmp_path):
    found = figures(write_bench(tmp_path / "bench")) | figures(write_bench(tmp_path / "job", "paper"))
    assert {one.label: list(one.y) for one in found["Latency"].parts[0].series}["ort mask"] == [160.0, 160.0]
    assert found["The paper's job"].parts[0].y_title == "seconds for the job"
    way = figures(write_pareto(tmp_path / "pareto"))["Accuracy against speed"]
    best = next(one for one in way.parts[0].series if one.label == "no other beats")
    assert list(best.x) == [1.0, 1.3, 1.5, 1.7] and "13 ways" in way.summary


def test_a_bundle_is_drawn(tmp_path):
    bundle = write_bundle(tmp_path / "bundle")
    found = figures(bundle)
    assert [list(one.y) for one in found["Neurons kept, by layer"].parts[0].series] == [[12, 11, 10], [12, 13, 14]]
    rows = [row.cells for row in found["Dense against pruned"].parts[0].rows]
    assert rows == [("FFN neurons", "72", "33", "-54.2%"), ("accuracy, %", "86.00", "85.50", "-0.50 points")]
    assert found["Verification"].summary == "2 comparisons of logits differ by 2.0e-07 at most; 1e-04 is tolerated."
    (bundle / "verify.json").write_text("{")
    output = tmp_path / "r.html"
    refused(run("report", bundle, "--output", output), output, 1, "verify.json: not valid JSON", "anatomy export")


@pytest.mark.parametrize("name", ["anatomy", "study", "bundle", "bundle-int8", "bench", "pareto"])
def test_what_version_0_1_wrote_is_reported_on(name, tmp_path):
    directory = Path(__file__).parents[1] / "fixtures" / "v0.1" / name
    done = run("report", directory, "--output", tmp_path / "r.html", "--json")
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)["figures"]) >= 1


def test_figures_as_files(study, tmp_path):
    target = tmp_path / "figures"
    common = ["report", study, "--output", tmp_path / "r.html", "--figures", target]
    done = run(*common, "--formats", "svg", "--json")
    assert done.exit_code == 0, done.stderr
    names = [name for one in json.loads(done.stdout)["figures"] for name in one["files"]]
    assert len(names) == len(set(names)) == len(PAPERS) and "figure-4-1-seconds" in " ".join(names)
    assert all((target / name).read_bytes().startswith(b"<?xml") for name in names)
    assert all(name in (target / "figures.md").read_text() for name in names)
    again = run(*common)
    assert again.exit_code == 1 and "exists; next step: choose another --output, or replace it" in again.stderr
    (target / "figures.md").unlink()
    assert "holds files but no figures.md" in run(*common, "--force").stderr


def test_png_and_the_same_bytes_again(study):
    figure = figures(study)["Layer similarity"]
    one, other = (static_figure(figure, ("png", "svg")) for _ in range(2))
    assert one == other and one["png"].startswith(b"\x89PNG")


def test_force_replaces_reports_only(study, tmp_path):
    output = tmp_path / "r.html"
    output.write_text("mine")
    for more, said in (((), "exists; next step"), (("--force",), "is no report, so --force does not replace it")):
        done = run("report", study, "--output", output, *more)
        assert done.exit_code == 1 and said in done.stderr and output.read_text() == "mine"
    output.unlink()
    assert run("report", study, "--output", output).exit_code == 0
    assert run("report", study, "--output", output, "--force", "--title", "Another").exit_code == 0
    assert "<title>Another</title>" in output.read_text()


def change(name: str, edit):
    def apply(directory: Path) -> None:
        body = json.loads((directory / name).read_text())
        edit(body)
        (directory / name).write_text(json.dumps(body))

    return apply


def cut(name: str):
    return lambda directory: (directory / name).write_bytes((directory / name).read_bytes()[:200])


BAD = {
    "half a study": (cut("study.json"), "study.json: not valid JSON, so damaged or half-written"),
    "half an anatomy": (cut("anatomy.json"), "anatomy.json: not valid JSON"),
    "other arrays": (cut("anatomy.npz"), "anatomy.npz: its checksum is not the one in anatomy.json"),
    "no arrays": (lambda one: (one / "anatomy.npz").unlink(), "anatomy.npz: No such file"),
    "no anatomy": (lambda one: (one / "anatomy.json").unlink(), "anatomy.json: No such file"),
    "version": (change("study.json", lambda body: body.update(format_version=9)), "format version 9, expected 1"),
    "kind": (change("anatomy.json", lambda body: body.update(kind="x")), "kind 'x', expected 'anatomy'"),
    "a list": (lambda one: (one / "study.json").write_text("[]"), "study.json: holds a list of 0, expected an object"),
    "rule": (change("anatomy.json", lambda body: body.update(rule="t5")), "$.rule is 't5'"),
    "widths": (change("anatomy.json", lambda body: body["widths"].pop()), "layer_similarity has shape (6, 13)"),
    "accuracy": (
        change("study.json", lambda body: body["setups"]["bert-1"].update(accuracy="high")),
        "study.json, setup bert-1: a field is missing or of the wrong kind: $.accuracy is 'high'",
    ),
    "no interval": (
        change("study.json", lambda body: body["dense"].pop("interval")),
        "$.dense lacks interval",
    ),
    "layers": (
        change("study.json", lambda body: body["setups"]["bert-1"]["removed_per_layer"].pop()),
        "setup bert-1: removed_per_layer has 11 values, expected 12",
    ),
    "another model": (
        change("study.json", lambda body: body["settings"].update(fingerprint="cd" * 32)),
        "it is of another model than the anatomy.json beside it",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_studies_are_refused(name, tmp_path):
    directory = write_study(tmp_path / "study", width=32)
    damage, said = BAD[name]
    damage(directory)
    output = tmp_path / "out" / "r.html"
    output.parent.mkdir()
    refused(run("report", directory, "--output", output), output, 1, said, "; next step: make it again with anatomy ")


def test_what_is_no_result_is_refused(tmp_path):
    output = tmp_path / "r.html"
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    for name, said in (
        ("missing", "does not exist"),
        ("empty", "is empty"),
        ("other", "holds none of study.json, anatomy.json"),
        ("other/notes.txt", "is a file, expected a directory"),
    ):
        refused(run("report", tmp_path / name, "--output", output), output, 1, f"{name} {said}", "; next step: ")
    assert run("report", "--output", output).exit_code == 2


def test_outputs_that_cannot_be(study, tmp_path):
    missing = tmp_path / "missing" / "r.html"
    refused(run("report", study, "--output", missing), missing, 1, f"cannot write {missing}: No such file")
    done = run("report", study, "--output", tmp_path)
    assert done.exit_code == 1 and "is a directory, expected a file" in done.stderr
    twice = run("report", study, study, "--output", tmp_path / "r.html")
    assert twice.exit_code == 1 and "was given twice" in twice.stderr


def test_a_page_made_meanwhile_stays(study, tmp_path, monkeypatch):
    output = tmp_path / "r.html"

    def meanwhile(*arguments) -> str:
        output.write_text("theirs")
        return "ours"

    monkeypatch.setattr("anatomy_export.jobs.report.report_page", meanwhile)
    done = run("report", study, "--output", output)
    assert done.exit_code == 1 and "r.html exists; next step" in done.stderr
    assert output.read_text() == "theirs"


def test_a_study_with_nothing_measured_yet_shows_its_anatomy(tmp_path):
    directory = write_study(tmp_path / "s", partial=True)
    for dense in ({"accuracy": 0.9, "interval": [0.8, 1.0], "examples": 9}, None):
        change("study.json", lambda body, dense=dense: body.update(setups={}, dense=dense))(directory)
        assert [one.number for one in figures(directory).values()] == ["1", "1a", "2", "2a", "2a"]


def test_seconds_are_those_beside_the_dense_model():
    """A setup timed while the machine was half as fast, the dense model beside it too."""
    dense = Seconds(20.0, (19.0, 21.0), 1000, "torch", "", None, None)
    slow = Seconds(40.0, (38.0, 42.0), 1000, "torch", "", 1.25, (1.0, 1.6))
    assert slow.beside(dense) == (16.0, 12.5, 20.0)
    assert slow.beside(None) == (40.0, 38.0, 42.0)


def test_two_setups_may_remove_the_same_number(tmp_path):
    """As GPT-2's presets 5 and 6 do, where the layers that only one of them changes have nothing to lose."""
    directory = write_study(tmp_path / "s", rule="gpt2", layers=6)

    def level(body):
        for name, own in body["setups"].items():
            if "gpt2-2" in name:
                one = body["setups"][name.replace("gpt2-2", "gpt2-1")]
                own.update({key: one[key] for key in ("removed", "removed_share", "removed_per_layer")})

    change("study.json", level)(directory)
    parts = [part for figure in figures(directory).values() for part in figure.parts if isinstance(part, Panel)]
    drawn = [one for part in parts for one in part.series]
    mean = next(one for one in drawn if one.label == "random, mean")
    assert len(mean.x) == 3
    assert len(set(mean.x)) == 2


def test_without_plotly_the_extra_is_named(study, tmp_path, monkeypatch):
    def absent() -> str:
        raise MissingExtraError("plotly", "report")

    monkeypatch.setattr("anatomy_export.jobs.report.plotly_script", absent)
    output = tmp_path / "r.html"
    refused(run("report", study, "--output", output), output, 1, "pip install '.[report]'")
