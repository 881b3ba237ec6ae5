"""`anatomy slice-onnx` at the command line: what it prints, what it refuses, what it leaves behind."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import run
from onnx_graphs import ffn_model, weights
from test_onnx_surgery import KEEP, plan_of

from anatomy_export.core.errors import Interrupted


@pytest.fixture
def files(tmp_path):
    """A model and its plan."""
    onnx.save(ffn_model(), tmp_path / "m.onnx")
    (tmp_path / "plan.json").write_text(plan_of(weights()).to_json())
    return tmp_path


def test_table_and_json(files):
    plain = run("slice-onnx", files / "m.onnx", "--plan", files / "plan.json", "-o", files / "a.onnx")
    assert plain.exit_code == 0, plain.output
    assert "MatMul · Erf · MatMul" in plain.stdout and f"wrote {files / 'a.onnx'}" in plain.stdout
    result = run("slice-onnx", files / "m.onnx", "--plan", files / "plan.json", "-o", files / "b.onnx", "--json")
    body = json.loads(result.stdout)
    assert [(layer["layer"], layer["width"], layer["kept"]) for layer in body["layers"]] == [(0, 10, 3), (1, 10, 5)]
    assert body["neurons"] == {"dense": 20, "pruned": 8}
    sizes = {"dense": (files / "m.onnx").stat().st_size, "pruned": (files / "b.onnx").stat().st_size}
    assert body["size_bytes"] == sizes and sizes["pruned"] < sizes["dense"]
    assert (files / "a.onnx").read_bytes() == (files / "b.onnx").read_bytes()


def test_a_directory_is_the_plan_in_it(files):
    result = run("slice-onnx", files / "m.onnx", "--plan", files, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["neurons"] == {"dense": 20, "pruned": 8}


def test_dry_run_writes_nothing(files):
    before = sorted(files.iterdir())
    arguments = ("slice-onnx", files / "m.onnx", "--plan", files / "plan.json", "--dry-run")
    result = run(*arguments)
    assert result.exit_code == 0 and "nothing was written" in result.stdout
    assert run(*arguments, "-o", files / "o.onnx", "--force").exit_code == 0
    assert sorted(files.iterdir()) == before


def test_an_existing_output_needs_force(files):
    arguments = ("slice-onnx", files / "m.onnx", "--plan", files / "plan.json", "-o", files / "o.onnx")
    (files / "o.onnx").write_text("mine")
    result = run(*arguments)
    assert result.exit_code == 1 and "exists; next step: choose another --output" in result.stderr
    assert (files / "o.onnx").read_text() == "mine"
    assert run(*arguments, "--force").exit_code == 0


USAGE = {
    "neither plan nor ratio": ([], "Give either --plan or --keep-ratio"),
    "both": (["--plan", "p", "--keep-ratio", "0.5"], "Give either --plan or --keep-ratio"),
    "no output": (["--plan", "p"], "Missing option '-o'"),
    "plan and criterion": (["--plan", "p", "-o", "o", "--criterion", "random"], "--criterion cannot stand beside it"),
    "seed of magnitude": (["--keep-ratio", "0.5", "-o", "o", "--seed", "1"], "--seed means something beside"),
    "ratio": (["--keep-ratio", "0", "-o", "o"], "is not more than 0 and at most 1"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage(case, files):
    arguments, message = USAGE[case]
    result = run("slice-onnx", files / "m.onnx", *arguments)
    assert result.exit_code == 2 and message in result.stderr


REFUSED = {
    "missing model": (["none.onnx", "--plan", "plan.json"], "none.onnx: No such file"),
    "directory": ([".", "--plan", "plan.json"], "is not a file"),
    "no model": (["plan.json", "--plan", "plan.json"], "plan.json is no ONNX model"),
    "missing plan": (["m.onnx", "--plan", "none.json"], "plan none.json: No such file"),
    "criterion": (["m.onnx", "--keep-ratio", "0.5", "--criterion", "fisher"], "'fisher' needs the torch model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, files, monkeypatch):
    monkeypatch.chdir(files)
    arguments, message = REFUSED[case]
    result = run("slice-onnx", *arguments, "-o", "o.onnx")
    assert result.exit_code == 1 and message in result.stderr.splitlines()[-1]
    assert not (files / "o.onnx").exists()


def test_an_interruption_leaves_what_was_there(files, monkeypatch):
    def interrupted(*arguments, **options):
        raise Interrupted

    monkeypatch.setattr("anatomy_export.surgery.cut._check", interrupted)
    (files / "o.onnx").write_text("mine")
    arguments = ("slice-onnx", files / "m.onnx", "--plan", files / "plan.json", "-o", files / "o.onnx", "--force")
    result = run(*arguments)
    assert result.exit_code == 130 and "nothing was written" in result.stderr
    assert (files / "o.onnx").read_text() == "mine"
    assert sorted(path.name for path in files.iterdir()) == ["m.onnx", "o.onnx", "plan.json"]


def test_the_plan_of_a_ratio_is_kept(files):
    arguments = ("--keep-ratio", "0.5", "--align", "1", "--criterion", "random", "--seed", "3")
    result = run("slice-onnx", files / "m.onnx", *arguments, "-o", files / "o.onnx", "--save-plan", files / "p.json")
    assert result.exit_code == 0, result.output
    assert run("slice-onnx", files / "m.onnx", "--plan", files / "p.json", "-o", files / "again.onnx").exit_code == 0
    assert (files / "o.onnx").read_bytes() == (files / "again.onnx").read_bytes()
    assert len(KEEP) == len(json.loads((files / "p.json").read_text())["layers"])


RATIO = ("--keep-ratio", "0.5", "--align", "1")
SAVED = {
    "the model": ("m.onnx", "would replace the model that is cut"),
    "the output": ("o.onnx", "--save-plan and --output are the same file"),
    "its data": ("o.onnx.data", "--save-plan and --output are the same file"),
    "a file that is there": ("plan.json", "plan.json exists"),
    "below a file": ("plan.json/p.json", "cannot create"),
}


@pytest.mark.parametrize("case", SAVED)
def test_a_plan_is_saved_in_nobodys_place(case, files):
    name, message = SAVED[case]
    before = {path: path.read_bytes() for path in files.iterdir()}
    result = run("slice-onnx", files / "m.onnx", *RATIO, "-o", files / "o.onnx", "--save-plan", files / name)
    assert result.exit_code == 1 and message in result.stderr.splitlines()[-1]
    assert {path: path.read_bytes() for path in files.iterdir()} == before


def test_a_plan_is_saved_in_a_new_directory_or_with_force(files):
    arguments = ("slice-onnx", files / "m.onnx", *RATIO, "-o", files / "o.onnx", "--save-plan")
    assert run(*arguments, files / "new" / "p.json").exit_code == 0
    assert run(*arguments, files / "new" / "p.json", "--force").exit_code == 0
    assert json.loads((files / "new" / "p.json").read_text())["criterion"] == "magnitude"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_another_precision_is_that_of_the_cut_file(precision, files):
    plain = ("slice-onnx", files / "m.onnx", "--plan", files / "plan.json", "-o")
    assert run(*plain, files / "fp32.onnx").exit_code == 0
    folder = files / "lowered"
    result = run(*plain, folder / "m.onnx", "--precision", precision)
    assert result.exit_code == 0, result.stderr
    assert (
        f"what {precision} costs in accuracy is not measured; next step: pass labelled text as --data" in result.stderr
    )
    assert [path.name for path in folder.iterdir()] == ["m.onnx"]
    inputs = {
        value.name: np.random.default_rng(0).standard_normal(
            [dim.dim_value or 3 for dim in value.type.tensor_type.shape.dim]
        )
        for value in onnx.load(files / "m.onnx").graph.input
    }
    outputs = [
        onnxruntime.InferenceSession(str(path)).run(
            None, {name: values.astype(np.float32) for name, values in inputs.items()}
        )[0]
        for path in (files / "fp32.onnx", folder / "m.onnx")
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.1 * np.abs(outputs[0]).max())
    assert not np.array_equal(*outputs)
    metadata = {entry.key: entry.value for entry in onnx.load(folder / "m.onnx").metadata_props}
    assert metadata["anatomy.precision"].startswith(precision)
    assert metadata["anatomy.widths"] == "3,5"


def test_a_precision_starts_from_float32(files):
    half = ("slice-onnx", files / "m.onnx", "--plan", files / "plan.json", "-o", files / "half.onnx")
    assert run(*half, "--precision", "fp16").exit_code == 0
    again = run("slice-onnx", files / "half.onnx", "--keep-ratio", "0.5", "-o", files / "o.onnx", "--precision", "int8")
    assert again.exit_code == 1
    assert "weights are not float32" in again.stderr
    assert not (files / "o.onnx").exists()
