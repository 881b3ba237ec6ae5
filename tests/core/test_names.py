"""Files that are written say nothing of where model and data lie on this machine."""

import json
from pathlib import Path

import onnx
import pytest
from conftest import files_that_tell, run
from report_inputs import write_score, write_study

from anatomy_export.bundle.card import source_card
from anatomy_export.core.names import is_local, public_name, without_directories
from anatomy_export.core.progress import Progress
from anatomy_export.report.reading import read_sources
from anatomy_export.zoo.embedded import resolve_model


def test_a_bundle_and_its_onnx_tell_no_place(made_bundle):
    assert files_that_tell(made_bundle, made_bundle.parent) == []
    provenance = json.loads((made_bundle / "bundle.json").read_text())["provenance"]
    assert (provenance["model"]["source"], provenance["data"]["name"]) == ("tiny-bert", "data.csv")
    metadata = {one.key: one.value for one in onnx.load(made_bundle / "model.onnx").metadata_props}
    assert metadata["anatomy.source"] == provenance["anatomy.source"] == "tiny-bert"


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("/home/someone/my models/reviews/", "reviews"),
        ("/nowhere/data.csv", "data.csv"),
        ("~/models/reviews", "reviews"),
        ("./reviews", "reviews"),
        ("../reviews/.", "reviews"),
        ("C:\\Users\\someone\\data.csv", "data.csv"),
        ("bert", "bert"),
        ("openai-community/gpt2", "openai-community/gpt2"),
        ("movie-reviews", "movie-reviews"),
    ],
)
def test_what_is_local_goes_by_its_base_name(name, public):
    assert public_name(name) == public
    assert is_local(name) is (name != public)


def test_a_directory_here_is_local_however_it_is_spelled(tmp_path, monkeypatch):
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/model", Progress()).provenance == {"source": "model"}
    assert resolve_model("org/other", Progress()).provenance == {"source": "org/other"}
    monkeypatch.chdir(tmp_path / "org" / "model")
    assert public_name(".") == "model"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Load model from /home/someone/b/model.onnx failed", "Load model from model.onnx failed"),
        ("[Errno 2] No such file: '/tmp/x/y.json'", "[Errno 2] No such file: 'y.json'"),
        ("C:\\Users\\someone\\m.onnx is damaged", "m.onnx is damaged"),
        ("see https://onnxruntime.ai/docs/x, 3/4 of a/b", "see https://onnxruntime.ai/docs/x, 3/4 of a/b"),
    ],
)
def test_messages_that_are_recorded_name_files_without_their_directories(message, said):
    assert without_directories(message) == said


@pytest.mark.parametrize(
    ("base", "kept"),
    [
        ("/home/someone/bert", False),
        ("./bert", False),
        (["google-bert/bert-base-cased", "~/mine"], False),
        ("google-bert/bert-base-cased", True),
        (["google-bert/bert-base-cased"], True),
    ],
)
def test_a_base_model_that_is_a_directory_is_not_restated(base, kept, tmp_path):
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\nbase_model: {json.dumps(base)}\n---\n")
    assert source_card(str(tmp_path)) == {"license": "mit", **({"base_model": base} if kept else {})}


def test_score_tells_no_place(bert_directory, tmp_path):
    done = run("score", "--model", bert_directory, "--output", tmp_path / "o")
    assert done.exit_code == 0, done.stderr
    assert files_that_tell(tmp_path / "o", tmp_path) == []
    assert json.loads((tmp_path / "o" / "anatomy.json").read_text())["model"] == "tiny-bert"


def test_a_report_tells_no_place(tmp_path):
    """Not where its sources lie, and not the path by which an earlier release recorded a model."""
    directories = [
        write_study(tmp_path / "a" / "study", layers=3, width=16),
        write_score(tmp_path / "b" / "study", layers=3),
    ]
    for directory in directories:
        body = json.loads((directory / "anatomy.json").read_text())
        (directory / "anatomy.json").write_text(json.dumps({**body, "model": "/home/someone/reviews"}))
    output = tmp_path / "out" / "r.html"
    done = run("report", *directories, "--output", output, "--figures", tmp_path / "out" / "figures")
    assert done.exit_code == 0, done.stderr
    assert files_that_tell(tmp_path / "out", tmp_path, Path("/home/someone")) == []
    assert "reviews (bert)" in output.read_text()
    assert [source.label for source in read_sources(directories)] == ["a/study", "b/study"]
