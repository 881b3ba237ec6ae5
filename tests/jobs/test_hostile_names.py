"""Names that a user or a file gives are text wherever they are shown: tables, progress, Markdown, HTML, figures."""

import html
import io
import json
import re

import pytest
from conftest import run
from report_inputs import write_bench, write_score
from rich.console import Console

from anatomy_export.bench.tables import bench_markdown
from anatomy_export.commands.terminal import Table, print_table
from anatomy_export.core.names import markdown_text
from anatomy_export.core.progress import Progress
from anatomy_export.jobs.report import figures_of
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan
from anatomy_export.report.reading import read_sources
from anatomy_export.report.static import static_figure

NAMES = ("[/x]", "[bold]y[/bold]", "a|b", "<script>alert(1)</script>", ":smile:", "$\\frac$", "\\")


@pytest.mark.parametrize("name", NAMES)
def test_plan_show_prints_a_criterion_of_any_name(name, tmp_path):
    layers = (LayerPlan(0, 4, (0, 1), threshold=0.1, rule=name),)
    repair = [{"layer": 0, "mode": name, "error": 1.0, "masked_error": 2.0}]
    plan = PrunePlan("f" * 64, layers, name, {"note": name, "repair": repair})
    (tmp_path / "plan.json").write_text(plan.to_json())
    done = run("plan", "show", tmp_path / "plan.json")
    assert done.exit_code == 0, done.stderr
    assert f"criterion {name}, 2 of 4 neurons removed" in done.stdout
    assert done.stdout.count(name) == 4


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_stage_of_any_name_is_announced(name, terminal):
    written = io.StringIO()
    progress = Progress(Console(file=written, force_terminal=terminal, highlight=False, width=200))
    with progress.stage(f"read {name}"):
        pass
    with progress.bar(f"draw {name}", 1) as tick:
        tick()
    progress.note(f"note: {name}")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.getvalue())
    for words in ("✓ read", "✓ draw", "note:"):
        assert f"{words} {name}" in shown


def bench_body(name: str) -> dict:
    ratios = dict.fromkeys(("speedup", "torch_speedup", "closure"), 1.0)
    ratios |= {f"{one}_interval": None for one in ratios}
    result = {"engine": "ort", "name": name, "worker": f"ort {name}", "batch": 1, "seq_len": 8, "median_s": 0.1}
    result |= {"io_binding": False, "cuda_graph": False, "speedup_void": True, "closure_void": False}
    return {
        "kind": "bench",
        "environment": {"cpu": "CPU"},
        "settings": {"threads": 1, "provider": "cpu", "precision": "fp32"},
        "roofline": {"flops_per_s": None},
        "partial": False,
        "failures": [{"worker": name, "reason": f"because of {name}"}],
        "unstable": [],
        "never_quiet": [],
        "results": [{**result, **ratios, "roofline_share": None, "peak_rss_bytes": None}],
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_a_benchmark_keeps_its_columns(name):
    lines = bench_markdown(bench_body(name)).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[:3]} == {10}
    assert lines[2].startswith(f"| ort | {markdown_text(name)} |")
    assert not any("<script>" in line for line in lines)


def test_a_table_on_the_terminal_is_text(capsys):
    print_table(Table(["column"], [[name] for name in NAMES], title="[/x]"))
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("[/x]", *NAMES))


@pytest.mark.parametrize("name", ["<script>alert(1)", "[x]", "a|b", "$\\frac$ $", "_a_"])
def test_a_report_shows_names_as_text(name, tmp_path):
    score = write_score(tmp_path / name, layers=3)
    body = json.loads((score / "anatomy.json").read_text())
    (score / "anatomy.json").write_text(json.dumps({**body, "model": name, "family": name}))
    figures = ("--figures", tmp_path / "figures", "--formats", "svg")
    done = run("report", score, "--output", tmp_path / "r.html", "--title", name, *figures)
    assert done.exit_code == 0, done.stderr
    assert "<script>alert" not in (tmp_path / "r.html").read_text()
    assert f"({markdown_text(name)})" in (tmp_path / "figures" / "figures.md").read_text()


@pytest.mark.parametrize("name", ["$\\frac$", "<b>", "a|b"])
def test_figures_as_files_draw_names_as_text(name, tmp_path):
    file = write_bench(tmp_path / "bench") / "bench.json"
    body = json.loads(file.read_text())
    for one in body["results"]:
        one.update(name=f"{name} {one['name']}", engine=f"{name} {one['engine']}")
    file.write_text(json.dumps(body))
    [source] = read_sources([file.parent])
    drawn = b"".join(static_figure(figure, ("svg",))["svg"] for figure in figures_of(source)).decode()
    assert html.escape(name, quote=False) in drawn
