"""Bundles in ONNX Runtime Web and in Node, tokenized by JavaScript: the recorded ids and logits."""

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import run, saved_dense, tiny_checkpoint

from anatomy_export.evaluation.precision_gate import chosen_precision
from anatomy_export.exporter.precision import convert_precision
from clients.browser import console_errors, requests, wait_for

WEB = Path(__file__).parents[2] / "examples" / "web"
PAGE_FILES = ("index.html", "classifier.js", "check.mjs", "package.json")
ENGINES = ("onnxruntime-web", "onnxruntime-node")


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The example with its packages from npm, and a dense and a sliced bundle of a tiny BERT."""
    if shutil.which("npm") is None:
        pytest.skip("npm is needed: apt-get install npm")
    folder = tmp_path_factory.mktemp("web")
    for name in PAGE_FILES:
        shutil.copyfile(WEB / name, folder / name)
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm gave no packages: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    saved_dense(tiny_checkpoint("bert"), folder / "tiny-bert")
    for name, arguments in {"dense": ["--dense"], "sliced": ["--keep-ratio", "0.5", "--align", "1"]}.items():
        result = run("export", "--model", folder / "tiny-bert", *arguments, "--output", folder / name)
        assert result.exit_code == 0, result.stderr
    return folder


def checked(site: Path, engine: str, bundle: Path) -> dict:
    command = ["node", "check.mjs", engine, str(bundle)]
    done = subprocess.run(command, cwd=site, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bundle", ["dense", "sliced"])
def test_node_gives_the_recorded_ids_and_logits(site, engine, bundle):
    found = checked(site, engine, site / bundle)
    assert (found["texts"], found["otherIds"]) == (12, 0)
    assert found["error"] <= 1e-4


@pytest.mark.parametrize("engine", ENGINES)
def test_an_int8_file_runs_in_node(site, engine, tmp_path):
    small = shutil.copytree(site / "sliced", tmp_path / "small")
    (small / "model.onnx").unlink()
    convert_precision(site / "sliced" / "model.onnx", small / "model.onnx", chosen_precision("int8"))
    assert 0 < checked(site, engine, small)["error"] < 1


@pytest.fixture
def address(site):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *arguments: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_page_classifies_with_both_models(chromium, address, site):
    for forget in (console_errors, requests):
        forget(chromium)
    chromium.get(f"{address}/index.html")
    rows = wait_for(chromium, lambda driver: driver.find_elements("css selector", "tbody tr"), 60)
    cells = [[cell.text for cell in row.find_elements("css selector", "td")] for row in rows]
    assert [row[0] for row in cells] == ["dense", "sliced"]
    for row in cells:
        command = [sys.executable, str(site / row[0] / "classify.py"), "A fine film with a good story."]
        label, probability, _ = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\t")
        assert row[1] == label
        assert float(row[2].removesuffix(" %")) == pytest.approx(100 * float(probability), abs=0.1)
        assert float(row[3]) > 0
    assert console_errors(chromium) == []
    assert {url.split("/")[2] for url in requests(chromium)} == {address.split("/")[2]}


def test_the_page_says_what_is_missing(chromium, address):
    chromium.get(f"{address}/index.html?sliced=nowhere")

    def said(driver):
        text = driver.find_element("css selector", "[role=status]").text
        return text if text != "Loading …" else None

    assert "nowhere/bundle.json: 404" in wait_for(chromium, said, 60)
