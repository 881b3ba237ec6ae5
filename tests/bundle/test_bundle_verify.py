"""A bundle on the other side: `anatomy verify`, `classify.py`, what the manifest must not make it read."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import refused, rewrite_manifest, run

from anatomy_export.bundle.files import external_locations
from anatomy_export.bundle.shipped_check import check_shipped
from anatomy_export.bundle.verify import verify_bundle
from anatomy_export.core.errors import VerifyError
from anatomy_export.core.files import sha256_file
from anatomy_export.core.json_files import checksum
from anatomy_export.core.progress import Progress
from anatomy_export.jobs.verification_texts import REFERENCE_TEXTS

WITHOUT_TORCH = """
import runpy, sys
for name in ("torch", "transformers", "safetensors", "onnxscript", "pandas"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__") if sys.argv[0].endswith(".py") else runpy.run_module(
    sys.argv[0], run_name="__main__"
)
"""


def without_torch(*arguments, text: str = "", **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, input=text, **options)


@pytest.fixture
def bundle(made_bundle, tmp_path) -> Path:
    return shutil.copytree(made_bundle, tmp_path / "bundle")


def sealed(bundle: Path, name: str) -> None:
    """Give the manifest the SHA-256 of a file as it is now."""
    rewrite_manifest(bundle, lambda body: body["files"].update({name: sha256_file(bundle / name)}))


def test_another_output_is_not_what_classify_asks_for(bundle):
    model = onnx.load(bundle / "model.onnx")
    for node in model.graph.node:
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]
    model.graph.output[0].name = "scores"
    onnx.save(model, bundle / "model.onnx")
    sealed(bundle, "model.onnx")
    done = run("verify", bundle, "--json")
    assert done.exit_code == 1 and not json.loads(done.stdout)["passed"]
    assert "logits" in done.stdout


def refused_in_one_line(bundle: Path, *parts: str) -> None:
    result = run("verify", bundle)
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith("✓ ")]
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    assert result.stdout == ""
    for part in parts:
        assert part in lines[0]


def failed(bundle: Path, *parts: str) -> None:
    """The table, then one line."""
    result = run("verify", bundle)
    assert result.exit_code == 1 and "FAILED" in result.stdout, result.output
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    for part in parts:
        assert part in result.stderr.splitlines()[-1]


def test_a_bundle_verifies_where_there_is_no_torch(made_bundle):
    done = without_torch("anatomy_export.cli", "verify", made_bundle, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] and found["left_over"] == [] and found["precision"] == "fp32"
    assert {check["name"]: check["passed"] for check in found["checks"]} == dict.fromkeys(
        ("files", "left over", "plan", "tokenizer", "model.onnx", "model.ort"), True
    )
    assert 0 <= found["max_abs_error"] <= found["tolerance"] == 1e-4
    assert 0 < found["median_s"] < 1
    assert "repaired weights are the plan's" in found["checks"][2]["detail"]
    shown = run("verify", made_bundle)
    assert shown.exit_code == 0 and "FAILED" not in shown.stdout
    assert "ms, median, batch 1" in shown.stdout


X86_WITHOUT_VNNI = {"flags": ["avx2"], "machine": "x86_64"}
UNKNOWN_X86 = {"flags": [], "machine": "AMD64"}
VNNI = {"flags": ["avx2", "avx512_vnni"], "machine": "x86_64"}


@pytest.mark.parametrize(
    ("conversion", "cpu", "passed", "detail"),
    [
        ({"reduce_range": True}, X86_WITHOUT_VNNI, True, "7 bits, which every CPU computes right"),
        ({"reduce_range": False}, X86_WITHOUT_VNNI, False, "8 bits, whose sums saturate on this CPU"),
        ({"reduce_range": False}, VNNI, True, "8 bits, which this CPU computes right"),
        ({"reduce_range": False}, UNKNOWN_X86, None, "this CPU's flags are unknown"),
        (None, X86_WITHOUT_VNNI, None, "the manifest does not say of how many bits"),
    ],
)
def test_int8_weights_that_this_cpu_would_saturate_fail(bundle, conversion, cpu, passed, detail):
    rewrite_manifest(bundle, lambda body: body.update(precision="int8", conversion=conversion))
    report = verify_bundle(bundle, Progress(), **cpu)
    [check] = [one for one in report.checks if one.name == "int8 weights"]
    assert check.passed is passed and detail in check.detail
    assert report.passed is (passed is not False)
    if passed is False:
        with pytest.raises(VerifyError, match="next step: export again with --target-cpu portable"):
            report.raise_for_failures()


def test_reference_texts_ids_and_logits_are_recorded(made_bundle):
    """Texts of this toolkit, none of the user's."""
    body = json.loads((made_bundle / "bundle.json").read_text())
    assert body["checksum"] == checksum(body)
    assert (body["precision"], body["conversion"], body["reference_tolerance"]) == ("fp32", None, body["tolerance"])
    assert len(body["references"]) == 12
    assert [one["text"] for one in body["references"]] == list(REFERENCE_TEXTS)
    assert max(len(one["input_ids"]) for one in body["references"]) == body["max_length"]
    assert {"classify.py", "model.ort", "README.md", "repair.safetensors"} <= body["files"].keys()


def test_classify_gives_label_and_probability_without_torch(made_bundle):
    references = json.loads((made_bundle / "bundle.json").read_text())["references"][:3]
    texts = [one["text"] for one in references]
    lines = without_torch(made_bundle / "classify.py", *texts).stdout.splitlines()
    assert without_torch(made_bundle / "classify.py", text="\n".join(texts) + "\n\n").stdout.splitlines() == lines
    for line, one in zip(lines, references, strict=True):
        label, probability, text = line.split("\t")
        shares = np.exp(one["logits"]) / np.exp(one["logits"]).sum()
        assert label == f"LABEL_{shares.argmax()}" and text == one["text"]
        assert float(probability) == pytest.approx(shares.max(), abs=1e-3)


@pytest.mark.parametrize("special", [True, False])
def test_classify_refuses_a_text_of_no_token(bundle, special):
    """Whether the tokenizer adds tokens of its own, as BERT's does, or none, as GPT-2's."""
    body = json.loads((bundle / "tokenizer.json").read_text())
    (bundle / "tokenizer.json").write_text(json.dumps(body if special else {**body, "post_processor": None}))
    done = without_torch(bundle / "classify.py", "")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: no token in the text ''; next step: pass text that is not empty\n"


CLASSIFY_FAULTS = {
    "another label": ('self.labels = manifest["labels"]', 'self.labels = manifest["labels"][::-1]', "classify.py says"),
    "another probability": ("/ exponentials.sum()", "/ exponentials.max()", "classify.py says"),
    "torch": ("import tokenizers", "import tokenizers\nimport torch", "import of torch halted"),
}


@pytest.mark.parametrize("fault", CLASSIFY_FAULTS)
def test_the_last_gate_runs_what_the_user_will_run(bundle, fault):
    """In a process of its own, where torch cannot be imported."""
    check_shipped(bundle)
    before, after, message = CLASSIFY_FAULTS[fault]
    content = (bundle / "classify.py").read_text()
    assert content.count(before) == 1
    (bundle / "classify.py").write_text(content.replace(before, after))
    sealed(bundle, "classify.py")
    with pytest.raises(VerifyError, match=message):
        check_shipped(bundle)


def test_the_last_gate_runs_verify(bundle):
    rewrite_manifest(bundle, lambda body: body.update(truncation_side="left"))
    with pytest.raises(VerifyError, match="tokenizer: other token ids than recorded for"):
        check_shipped(bundle)


def test_a_bundle_without_a_side_of_truncation_cuts_on_the_right(bundle):
    """As those of earlier releases do."""
    rewrite_manifest(bundle, lambda body: body.pop("truncation_side"))
    check_shipped(bundle)


def test_classify_reads_and_writes_utf_8_in_any_locale(made_bundle):
    command = [sys.executable, made_bundle / "classify.py"]
    options = {"capture_output": True, "check": True, "env": {**os.environ, "PYTHONIOENCODING": "cp1252:strict"}}
    sentence = "the film \u2192 great \u8bc4"
    given = subprocess.run([*command, sentence], **options).stdout
    assert given == subprocess.run(command, input=f"{sentence}\n".encode(), **options).stdout
    assert given.decode().rstrip().endswith(f"\t{sentence}")


def test_classify_reads_lines_as_they_are(bundle):
    """White space before a text is part of it, as for transformers' pipeline; a byte order mark is not."""
    command = [sys.executable, bundle / "classify.py"]
    alone = subprocess.run([*command, "film", "  film"], capture_output=True, check=True).stdout.splitlines()
    lines = b"\xef\xbb\xbffilm\r\n\n  film\n"
    assert subprocess.run(command, input=lines, capture_output=True, check=True).stdout.splitlines() == alone


def test_classify_refuses_text_that_is_not_utf_8(bundle):
    done = subprocess.run(
        [sys.executable, bundle / "classify.py"], input="the caf\u00e9\n".encode("cp1252"), capture_output=True
    )
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("Error: the text is not UTF-8 (") and line.endswith("next step: save it as UTF-8")


def test_classify_prints_one_line_whatever_the_text(bundle):
    [line] = without_torch(bundle / "classify.py", "the\nfilm").stdout.splitlines()
    assert line.endswith("\tthe film")


def test_classify_prints_one_line_whatever_the_label(bundle):
    rewrite_manifest(bundle, lambda body: body.update(labels=["a\tb\n", "c\n---"]))
    [line] = without_torch(bundle / "classify.py", "the film").stdout.splitlines()
    assert line.split("\t")[0] in ("a b", "c ---")


@pytest.mark.parametrize("name", ["model.onnx", "plan.json", "repair.safetensors", "classify.py", "README.md"])
def test_an_altered_file_is_refused(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    refused_in_one_line(bundle, f" files are not as they were: {name}: SHA-256 is")


def test_an_altered_file_is_a_failed_check_in_json(bundle):
    (bundle / "README.md").write_text("mine")
    result = run("verify", bundle, "--json")
    assert result.exit_code == 1
    body = json.loads(result.stdout)
    assert (body["passed"], body["max_abs_error"], body["median_s"]) == (False, None, None)
    assert [(check["name"], check["passed"]) for check in body["checks"]] == [("files", False)]
    assert "next step: copy the bundle again" in body["checks"][0]["detail"]


def test_a_missing_file_is_refused_and_one_left_over_is_reported(bundle):
    (bundle / "notes.txt").write_text("mine")
    (bundle / "more").mkdir()
    (bundle / "more" / "bundle.json").write_text("{}")
    result = run("verify", bundle, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["left_over"] == ["more/bundle.json", "notes.txt"]
    (bundle / "config.json").unlink()
    refused_in_one_line(bundle, "'config.json': No such file or directory")


def test_an_altered_manifest_is_refused(bundle):
    body = json.loads((bundle / "bundle.json").read_text())
    body["references"][0]["logits"][0] += 1e-3
    (bundle / "bundle.json").write_text(json.dumps(body))
    refused_in_one_line(bundle, "is not that of its content")


def no_bundle(bundle):
    (bundle / "bundle.json").unlink()


def deep(bundle):
    (bundle / "bundle.json").write_text("[" * 200_000)


def large(bundle):
    (bundle / "bundle.json").write_text(" " * (2**24 + 1))


def manifest_with(**values):
    return lambda bundle: rewrite_manifest(bundle, lambda body: body.update(values))


def reference_with(**values):
    return lambda bundle: rewrite_manifest(bundle, lambda body: body["references"][0].update(values))


def file_named(name):
    return lambda bundle: rewrite_manifest(bundle, lambda body: body["files"].update({name: "0" * 64}))


def linked(name, target):
    def change(bundle):
        (bundle / name).unlink(missing_ok=True)
        os.symlink(target, bundle / name)

    return change


BAD = {
    "no manifest": (no_bundle, "'bundle.json': No such file"),
    "not JSON": (lambda bundle: (bundle / "bundle.json").write_text("{"), "not valid JSON"),
    "deep": (deep, "not valid JSON"),
    "huge": (large, "bytes, expected at most"),
    "a list": (lambda bundle: (bundle / "bundle.json").write_text("[]"), "expected an object"),
    "NaN": (lambda bundle: (bundle / "bundle.json").write_text('{"a": NaN}'), "NaN is no JSON number"),
    "version": (manifest_with(format_version=2), "format version 2, expected 1"),
    "version true": (manifest_with(format_version=True), "format version True, expected 1"),
    "precision": (manifest_with(precision="int4"), "$.precision is 'int4', invalid enum value"),
    "labels": (manifest_with(labels=7), "$.labels is 7, expected array"),
    "max length": (manifest_with(max_length=10**30), "max_length is 1000"),
    "tolerance": (manifest_with(reference_tolerance=-1.0), "reference_tolerance is -1.0"),
    "tolerance of text": (manifest_with(reference_tolerance="1"), "reference_tolerance is '1'"),
    "no model named": (manifest_with(files={"plan.json": "0" * 64}), "files is a dict of 1, expected model.onnx"),
    "digest": (
        lambda bundle: rewrite_manifest(bundle, lambda body: body["files"].update(a=7)),
        "$.files[...]",
    ),
    "no references": (manifest_with(references=[]), "references is a list of 0"),
    "a reference": (manifest_with(references=[3]), "$.references[0] is 3, expected object"),
    "ids": (reference_with(input_ids=["x"]), "$.references[0].input_ids[0] is 'x', expected int"),
    "many ids": (reference_with(input_ids=[1] * 500), "input_ids is a list of 500, expected 1 to"),
    "logits": (reference_with(logits=[1.0]), "logits is a list of 1, expected 2 numbers"),
    "infinite logits": (
        reference_with(logits=[1e308, 10**400]),
        "logits[0] is 1e+308, expected float < 1e+30",
    ),
    "text": (reference_with(text=5), "$.references[0].text is 5, expected str | null"),
    "upwards": (file_named("../secret"), "'../secret' is no plain path inside the directory"),
    "upwards within": (file_named("a/../../secret"), "is no plain path inside the directory"),
    "absolute": (file_named("/etc/hostname"), "'/etc/hostname' is no plain path inside the directory"),
    "drive": (file_named("C:\\secret"), "is no plain path inside the directory"),
    "nul": (file_named("a\0b"), "is no plain path inside the directory"),
    "empty name": (file_named(""), "is no plain path inside the directory"),
    "dot": (file_named("."), "'.' is no regular file"),
    "unplain": (file_named("./model.onnx"), "is no plain path inside the directory"),
    "long name": (file_named("a" * 5000), "File name too long"),
    "surrogate": (file_named("\ud800"), "'\\ud800'"),
    "directory": (lambda bundle: (file_named("sub")(bundle), (bundle / "sub").mkdir()), "'sub' is no regular file"),
    "link out": (linked("config.json", "../secret"), "'config.json' leads out of the directory"),
    "linked manifest": (linked("bundle.json", "../secret"), "'bundle.json' leads out of the directory"),
    "link around": (linked("config.json", "config.json"), "'config.json'"),
    "device": (linked("config.json", "/dev/zero"), "'config.json' leads out of the directory"),
    "pipe": (lambda bundle: ((bundle / "config.json").unlink(), os.mkfifo(bundle / "config.json")), "no regular file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_manifest_or_file_is_one_line(case, bundle):
    change, message = BAD[case]
    (bundle.parent / "secret").write_text("{}")
    change(bundle)
    refused_in_one_line(bundle, message)


def test_a_link_out_is_refused_even_where_the_content_is_right(bundle):
    (bundle / "config.json").rename(bundle.parent / "config.json")
    os.symlink("../config.json", bundle / "config.json")
    refused_in_one_line(bundle, "'config.json' leads out of the directory")
    (bundle / "config.json").unlink()
    (bundle.parent / "config.json").rename(bundle / "renamed.json")
    os.symlink("renamed.json", bundle / "config.json")
    assert run("verify", bundle).exit_code == 0, "a link inside is followed"


def test_no_such_directory(tmp_path):
    refused_in_one_line(tmp_path / "none", "no such directory")


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "unnamed.bin"])
def test_external_weights_that_the_manifest_does_not_name_are_refused(bundle, location):
    (bundle.parent / "secret").write_bytes(bytes(10_000))
    (bundle / "unnamed.bin").write_bytes(bytes(10_000))
    model = onnx.load(bundle / "model.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    sealed(bundle, "model.onnx")
    refused_in_one_line(bundle, f"model.onnx: its weights lie in '{location}', which the manifest does not name")


def test_external_weights_are_found_at_any_depth():
    def outside(name):
        tensor = onnx.numpy_helper.from_array(np.zeros(3, np.float32), name)
        tensor.ClearField("raw_data")
        tensor.external_data.add(key="location", value=name)
        return tensor

    helper = onnx.helper
    inner = helper.make_graph([], "inner", [], [], [outside("branch")])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    nodes.append(helper.make_node("Constant", [], ["k"], value=outside("attribute")))
    function = helper.make_function(
        "here", "f", [], ["z"], [helper.make_node("Constant", [], ["z"], value=outside("function"))], []
    )
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], [outside("top")]), functions=[function])
    assert external_locations(model) == {"branch", "attribute", "function", "top"}


def test_a_model_that_computes_something_else_fails(bundle):
    model = onnx.load(bundle / "model.onnx")
    bias = next(one for one in model.graph.initializer if one.name.endswith("classifier.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    sealed(bundle, "model.onnx")
    failed(bundle, "1 of 6 checks failed: model.onnx: max abs error 1.0e-02 on 12 reference texts")


def test_an_id_beyond_the_vocabulary_fails(bundle):
    reference_with(input_ids=[1, 9999, 2])(bundle)
    failed(bundle, "model.onnx: ONNX Runtime failed", "tokenizer: other token ids")


def test_another_tokenizer_fails(bundle):
    content = (bundle / "tokenizer.json").read_text()
    (bundle / "tokenizer.json").write_text(content.replace('"film"', '"movie"'))
    sealed(bundle, "tokenizer.json")
    failed(bundle, "tokenizer: other token ids than recorded for")
    (bundle / "tokenizer.json").write_text("{}")
    sealed(bundle, "tokenizer.json")
    failed(bundle, "tokenizer: tokenizer.json cannot be used")


def test_another_plan_fails(bundle, tmp_path):
    body = json.loads((bundle / "plan.json").read_text())
    from anatomy_export.core.json_files import checksum

    del body["checksum"]
    body["repair"] = None
    (bundle / "plan.json").write_text(json.dumps({**body, "checksum": checksum(body)}))
    sealed(bundle, "plan.json")
    failed(bundle, "plan: SHA-256")


def test_what_is_no_model_is_refused(bundle):
    (bundle / "model.onnx").write_bytes(b"\xff" * 100)
    sealed(bundle, "model.onnx")
    refused_in_one_line(bundle, "model.onnx: no ONNX model")


@pytest.mark.parametrize("name", ["onnxruntime", "tokenizers"])
def test_a_missing_library_names_the_extra(made_bundle, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    result = run("verify", made_bundle)
    refused(
        result,
        made_bundle / "nothing",
        1,
        f"{name} is not installed; next step: in this toolkit's clone, pip install '.[edge]'",
    )
