"""float16 and int8: judged by accuracy, not by equality; what must not change does not."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import refused, run, tiny_checkpoint

from anatomy_export.core.errors import AnatomyError, VerifyError
from anatomy_export.core.progress import Progress
from anatomy_export.core.target_cpu import int8_weights, needs_reduced_range, saturates
from anatomy_export.data.loading import Examples
from anatomy_export.evaluation.precision_gate import PrecisionReport, chosen_precision, precision_gate
from anatomy_export.exporter.int8 import unpack_attention_
from anatomy_export.exporter.precision import convert_precision
from anatomy_export.exporter.torch_to_onnx import export_onnx, operator_counts
from anatomy_export.jobs import export_checks as checks
from anatomy_export.jobs.export_request import ExportRequest

METADATA = {"anatomy.fingerprint": "f" * 64, "anatomy.plan_sha256": "p"}
WAYS = {
    "fp16": chosen_precision("fp16"),
    "dynamic": chosen_precision("int8"),
    "percentile": chosen_precision("int8", int8="static"),
    "entropy": chosen_precision("int8", int8="static", calibration="entropy"),
}


def inputs_of(session, batch: int, sequence: int, seed: int = 0) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(seed).integers(4, 24, (batch, sequence))
    mask = np.ones_like(ids)
    mask[:, sequence - sequence // 3 :] = np.arange(batch)[:, None] % 2
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
    return {one.name: values[one.name] for one in session.get_inputs()}


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def fp32(request, tmp_path_factory):
    """A tiny fused model, and calibration inputs."""
    path = tmp_path_factory.mktemp("fp32") / "model.onnx"
    export_onnx(tiny_checkpoint(request.param, hidden=32), path, metadata=METADATA)
    session = onnxruntime.InferenceSession(str(path))
    return path, session, [inputs_of(session, 1, length, length) for length in (5, 8, 11, 14)]


@pytest.mark.parametrize("way", WAYS)
def test_conversion_keeps_types_metadata_and_nearly_the_logits(fp32, way, tmp_path):
    source, session, calibration = fp32
    how = convert_precision(source, tmp_path / "model.onnx", WAYS[way], calibration, flags=["avx2"])
    converted = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert [one.type for one in converted.get_inputs()] == ["tensor(int64)"] * len(session.get_inputs())
    assert [(one.name, one.type) for one in converted.get_outputs()] == [("logits", "tensor(float)")]
    found = converted.get_modelmeta().custom_metadata_map
    assert found.items() >= METADATA.items()
    assert found["anatomy.precision"] == {"fp16": "fp16", "dynamic": "int8 dynamic"}.get(way, "int8 static")
    assert how.get("reduce_range", True) is True
    for shape in ((1, 7), (3, 12)):
        batch = inputs_of(session, *shape, seed=9)
        expected, logits = session.run(None, batch)[0], converted.run(None, batch)[0]
        spread = np.abs(expected).max()
        assert 0 < np.abs(logits - expected).max() < (0.02 if way == "fp16" else 0.35) * spread
    assert (tmp_path / "model.onnx").stat().st_size < source.stat().st_size


def test_float16_keeps_the_sums_in_float32(fp32, tmp_path):
    source, _, _ = fp32
    convert_precision(source, tmp_path / "m.onnx", WAYS["fp16"])
    model = onnx.load(tmp_path / "m.onnx")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    norms = [node for node in model.graph.node if node.op_type in ("LayerNormalization", "SkipLayerNormalization")]
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert norms and products
    assert {types[node.input[-1]] for node in norms if node.input[-1] in types} == {onnx.TensorProto.FLOAT}
    assert {types[node.input[1]] for node in products if node.input[1] in types} == {onnx.TensorProto.FLOAT16}


def test_every_product_with_weights_is_int8(fp32, tmp_path):
    source, _, calibration = fp32
    for way, operator in (("dynamic", "MatMulInteger"), ("percentile", "MatMul")):
        convert_precision(source, tmp_path / "m.onnx", WAYS[way], calibration)
        model = onnx.load(tmp_path / "m.onnx")
        weights = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
        matrices = {one.name for one in weights if len(one.dims) > 1}
        products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Gather", "Attention")]
        assert operator in operator_counts(tmp_path / "m.onnx")
        assert products and not any(set(node.input) & matrices for node in products)


def test_attention_taken_apart_is_the_same_function(tmp_path):
    export_onnx(tiny_checkpoint("bert"), tmp_path / "packed.onnx", metadata={})
    model = onnx.load(tmp_path / "packed.onnx")
    assert unpack_attention_(model) == 3
    onnx.save(model, tmp_path / "apart.onnx")
    assert "Attention" not in operator_counts(tmp_path / "apart.onnx")
    packed, apart = (onnxruntime.InferenceSession(str(tmp_path / name)) for name in ("packed.onnx", "apart.onnx"))
    batch = inputs_of(packed, 4, 13)
    assert apart.run(None, batch)[0] == pytest.approx(packed.run(None, batch)[0], abs=1e-5)
    assert unpack_attention_(model) == 0


@pytest.mark.parametrize(
    ("flags", "machine", "reduced"),
    [
        (["avx2"], "x86_64", True),
        ([], "AMD64", True),
        (["avx2", "avx_vnni"], "x86_64", False),
        (["avx512f", "avx512_vnni"], "x86_64", False),
        (["asimd"], "aarch64", False),
        ([], "arm64", False),
    ],
)
def test_weights_get_seven_bits_where_sums_would_overflow(flags, machine, reduced):
    assert needs_reduced_range(flags, machine) is reduced


def test_flags_that_are_not_known_say_nothing_of_saturation():
    assert saturates([], "AMD64") is None
    assert saturates(["avx2"], "x86_64") is True
    assert saturates([], "arm64") is False


def test_the_same_cpu_is_recorded_the_same():
    """A system lists its flags as a set: their order would make every cached file another one."""
    flags = ["fma", "avx512_vnni", "avx2", "avx_vnni"]
    assert int8_weights("native", flags) == int8_weights("native", flags[::-1])
    assert int8_weights("native", flags)["cpu_flags"] == "avx512_vnni avx_vnni"


def largest_weight(path) -> int:
    tensors = [onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
    return max(int(np.abs(one.astype(int)).max()) for one in tensors if one.dtype == np.int8 and one.ndim == 2)


@pytest.mark.parametrize("way", ["dynamic", "percentile"])
@pytest.mark.parametrize(
    ("target_cpu", "bits"), [(None, 7), ("portable", 7), ("native", 8)], ids=["default", "portable", "native"]
)
def test_int8_weights_are_right_on_every_cpu_unless_they_are_for_this_one(fp32, way, target_cpu, bits, tmp_path):
    source, _, calibration = fp32
    wanted = chosen_precision("int8", int8=WAYS[way].int8, target_cpu=target_cpu)
    how = convert_precision(source, tmp_path / "m.onnx", wanted, calibration, flags=["avx512f", "avx512_vnni"])
    assert (how["target_cpu"], how["reduce_range"]) == (target_cpu or "portable", bits == 7)
    assert how.get("cpu_flags") == ("avx512_vnni" if target_cpu == "native" else None)
    assert (largest_weight(tmp_path / "m.onnx") <= 64) is (bits == 7)
    metadata = {one.key: one.value for one in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert metadata["anatomy.target_cpu"] == f"{target_cpu or 'portable'}, {bits}-bit weights"


def test_what_cannot_be_converted_is_one_line(fp32, tmp_path):
    with pytest.raises(AnatomyError, match="static int8 takes its ranges from calibration text"):
        convert_precision(fp32[0], tmp_path / "m.onnx", WAYS["percentile"])
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 50)
    with pytest.raises(AnatomyError, match=r"fp16 conversion failed: .*next step: leave --precision out"):
        convert_precision(tmp_path / "broken.onnx", tmp_path / "m.onnx", WAYS["fp16"])
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(("right", "allowed"), [(88, False), (89, True), (95, True)])
def test_validation_decides_whether_a_conversion_ships(right, allowed):
    """The report's own accuracy, on test, is far below: it does not decide."""
    labels = np.zeros(100, int)
    classes, expected = (np.arange(100) >= count for count in (right, 90))
    gate = precision_gate(chosen_precision("int8"), classes=classes, expected=expected, labels=labels)
    report = PrecisionReport("int8", {}, 100, 0.5, 0.1, 0.9, 1.0, 10, 40, gate)
    if allowed:
        report.raise_for_drop()
    else:
        with pytest.raises(VerifyError, match=r"int8 loses 2.00 points .* \(88.00 % against 90.00 % on 100 validation"):
            report.raise_for_drop()


def test_without_validation_text_nothing_decides():
    PrecisionReport("int8", {}, 100, 0.1, 0.1, 0.9, 1.0, 10, 40).raise_for_drop()


class Classifier:
    """Gives class 0, and records how it was asked."""

    def __init__(self):
        self.asked: list = []

    def logits(self, texts, batch_size=32):
        self.asked.append((len(texts), batch_size))
        return np.tile([1.0, 0.0], (len(texts), 1))


@pytest.mark.parametrize(("int8", "batch"), [("dynamic", 1), ("static", 32)])
def test_dynamic_ranges_are_judged_one_text_a_call(int8, batch):
    """What shares a batch changes the ranges of all of it."""
    progress, shipped = Progress(), Classifier()
    request = ExportRequest("m", precision=chosen_precision("int8", int8=int8))
    validation = Examples(("a", "b", "c"), (0, 0, 1))
    job = SimpleNamespace(request=request, validation_examples=validation, test_examples=validation, progress=progress)
    gate = checks._precision_gate(job, shipped, Classifier())
    assert shipped.asked == [(3, batch)]
    assert (gate.texts, gate.accuracy) == (3, pytest.approx(2 / 3))
    assert any("depend on what shares it" in note for note in progress.notes) == (int8 == "dynamic")


def test_an_int8_bundle_says_what_it_is_and_verifies(bert_directory, data_file, tmp_path):
    output = tmp_path / "o"
    arguments = ["--model", bert_directory, "--data", data_file, "--keep-ratio", "0.5", "--align", "1"]
    result = run(
        "export",
        *arguments,
        "--precision",
        "int8",
        "--max-precision-drop",
        "100",
        "--ort-format",
        "--output",
        output,
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    measures, body = json.loads(result.stdout), json.loads((output / "bundle.json").read_text())
    report = json.loads((output / "verify.json").read_text())
    size = (output / "model.onnx").stat().st_size
    assert measures["size_bytes"]["pruned"] == size == report["precision"]["size_bytes"]
    assert measures["precision"] == report["precision"]
    assert measures["accuracy"]["pruned"] == report["precision"]["accuracy"]
    assert report["precision"]["accuracy_fp32"] == report["accuracy_pruned"]
    assert report["precision"]["judged_by"].startswith("accuracy, not equality")
    assert all(one["max_abs_error"] <= 1e-4 for one in report["comparisons"])
    assert "MatMulInteger" in measures["operators"]
    assert (body["precision"], body["conversion"]["method"]) == ("int8", "dynamic")
    assert (body["conversion"]["target_cpu"], body["conversion"]["reduce_range"]) == ("portable", True)
    assert "note: int8 weights have 7 bits, which every CPU computes right (--target-cpu portable)" in result.stderr
    card = (output / "README.md").read_text()
    assert "Its weights have 7 bits, which every CPU computes right." in card
    assert "what shares a batch changes logits a little" in card
    assert body["reference_tolerance"] >= 0.05 > body["tolerance"]
    session = onnxruntime.InferenceSession(str(output / "model.onnx"))
    assert (
        session.get_modelmeta().custom_metadata_map["anatomy.fingerprint"] == body["provenance"]["anatomy.fingerprint"]
    )
    assert not list(output.glob(".*"))
    verified = run("verify", output, "--json")
    assert verified.exit_code == 0, verified.stderr
    assert json.loads(verified.stdout)["max_abs_error"] < 1e-4
    assert "int8" in card.split("---")[1]


def test_a_conversion_that_ruins_the_model_writes_nothing(bert_directory, data_file, tmp_path, monkeypatch):
    def ruin(source, target, precision, calibration):
        model = onnx.load(source)
        for tensor in model.graph.initializer:
            if tensor.name.endswith("classifier.bias"):
                bias = np.array([1e3, -1e3], np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(bias, tensor.name))
        onnx.save(model, target)
        return {}

    lines = data_file.read_text().splitlines()
    rows = [f"{line.rsplit(',', 1)[0]},1" for line in lines[1:]]
    data_file.write_text("\n".join([lines[0], *rows, "of another class,0"]) + "\n")
    monkeypatch.setattr(checks, "convert_precision", ruin)
    output = tmp_path / "out" / "o"
    arguments = ["--model", bert_directory, "--data", data_file, "--keep-ratio", "1", "--align", "1"]
    result = run("export", *arguments, "--precision", "fp16", "--output", output)
    refused(result, output, 1, "fp16 loses", "at most 1 are allowed; next step: raise --max-precision-drop")


WRONG = {
    "int8 without int8": (["--int8", "static"], "--int8 means something beside --precision int8 only"),
    "calibration of dynamic": (
        ["--precision", "int8", "--int8-calibration", "entropy"],
        "--int8-calibration means something beside --int8 static only",
    ),
    "CPU of fp16": (
        ["--precision", "fp16", "--target-cpu", "native"],
        "--target-cpu means something beside --precision int8 only",
    ),
    "drop of fp32": (["--max-precision-drop", "1"], "--max-precision-drop means something beside --precision fp16"),
    "speed": (["--precision", "int8", "--target-speedup", "2"], "--target-speedup is timed in fp32"),
}


@pytest.mark.parametrize("case", WRONG)
def test_contradictions_are_wrong_usage(case, tmp_path):
    arguments, message = WRONG[case]
    result = run(
        "export",
        "--model",
        "bert",
        *arguments,
        "--output",
        tmp_path / "o",
    )
    refused(result, tmp_path / "o", 2, message)


@pytest.mark.parametrize("way", [None, *WAYS])
def test_the_file_passes_the_full_check_and_strict_shape_inference(fp32, way, tmp_path):
    source, _, calibration = fp32
    path = source if way is None else tmp_path / "m.onnx"
    if way is not None:
        convert_precision(source, path, WAYS[way], calibration)
    onnx.checker.check_model(str(path), full_check=True)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)
    assert [one.name for one in inferred.graph.output] == ["logits"]
