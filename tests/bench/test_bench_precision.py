"""Precisions in `anatomy-bench`: equal ones are compared, and what is not equal says so."""

import json
import shutil

import pytest
from conftest import rewrite_manifest, run

from anatomy_export.bench.contestants import Contestant, reference_of
from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.tables import bench_notes, named_precision
from anatomy_export.bench.timing import BenchRequest, contestants_of
from anatomy_export.bench.variants import BundleMaker, Variant
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.precision_gate import chosen_precision
from anatomy_export.exporter.precision import convert_precision
from anatomy_export.jobs import bench_bundles


def variant(mode: str, precision: str, source: str = "s") -> Variant:
    return Variant(f"{mode} {precision}", mode, 0.5, {"ort": "b", "none": "b"}, source=source, precision=precision)


def contestants(*variants: Variant) -> list[Contestant]:
    return [Contestant(one.name, one, EngineSpec("ort")) for one in variants]


def test_the_reference_is_dense_of_the_same_precision():
    found = contestants(*(variant(mode, precision) for precision in ("fp32", "int8") for mode in ("dense", "slice")))
    assert [reference_of(one, found).name for one in found] == ["dense fp32", "dense fp32", "dense int8", "dense int8"]


def test_without_one_it_is_the_dense_of_another_precision_of_the_same_model():
    found = contestants(variant("dense", "fp32", "other"), variant("dense", "fp32"), variant("slice", "int8"))
    assert reference_of(found[2], found) is found[1]


def test_only_onnx_runtime_times_other_precisions():
    variants = [variant("dense", "fp32"), variant("dense", "int8")]
    named = [one.name for one in contestants_of(BenchRequest(engines=("torch", "ort")), variants)]
    assert named == ["torch dense fp32", "ort dense fp32", "ort dense int8"]
    with pytest.raises(AnatomyError, match="no engine of torch times these precisions; next step: add ort"):
        contestants_of(BenchRequest(engines=("torch",)), variants[1:])


def test_an_int8_bundle_is_timed_and_shown(made_bundle, tmp_path):
    int8 = shutil.copytree(made_bundle, tmp_path / "small")
    (int8 / "model.onnx").unlink()
    convert_precision(made_bundle / "model.onnx", int8 / "model.onnx", chosen_precision("int8"))
    rewrite_manifest(int8, lambda body: body.update(precision="int8"))
    dense = shutil.copytree(made_bundle, tmp_path / "large")
    rewrite_manifest(dense, lambda body: body.update(mode="dense"))
    arguments = [
        "--bundle",
        dense,
        "--bundle",
        int8,
        "--backend",
        "ort",
        "--seq-len",
        8,
        "--repeats",
        2,
        "--threads",
        1,
    ]
    done = run("bench", *arguments, "--output", tmp_path / "o", "--json")
    assert done.exit_code == 0, done.stderr
    body = json.loads(done.stdout)
    large, small = body["results"]
    assert body["settings"]["precision"] == "fp32, int8"
    assert (small["precision"], small["speedup_against_precision"], small["closure"]) == ("int8", "fp32", None)
    assert small["roofline_share"] is None and large["roofline_share"] > 0
    assert [named_precision(one) for one in body["results"]] == ["large", "small int8"]
    assert "× dense of ort small (int8) is against ort large in fp32." in bench_notes(body)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-cpu", "native"], "--target-cpu means something beside --precision int8 only"),
        (["--bundle", "b", "--target-cpu", "native"], "--bundle already says what --target-cpu would"),
    ],
)
def test_a_target_cpu_of_nothing_is_wrong_usage(arguments, message):
    result = run("bench", *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_int8_variants_are_made_for_the_target_cpu_that_was_asked_for(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setenv("ANATOMY_CACHE", str(tmp_path))
    monkeypatch.setattr("anatomy_export.jobs.export.run_export", lambda request, progress: asked.append(request))
    for target_cpu in ("portable", "native"):
        maker = BundleMaker("bert", "identity", 16, target_cpu, bench_bundles.make_bundle, Progress())
        for precision in ("int8", "fp16"):
            maker.bundle("dense", None, None, "ort", precision)
    assert [one.precision.target_cpu for one in asked] == ["portable", None, "native", None]
    int8 = [one.output for one in asked if one.precision.name == "int8"]
    fp16 = [one.output for one in asked if one.precision.name == "fp16"]
    assert len(set(int8)) == 2 and len(set(fp16)) == 1
