"""Damaged models, plans and repairs: one line or the right result; no crash, no hang, nothing half-written.

The output of a cut that went through must compute what the damaged file computes with the pruned rows of W2 at zero.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import run
from onnx import numpy_helper
from onnx_graphs import HIDDEN, SPELLINGS, ffn_model, weights
from test_onnx_surgery import KEEP, plan_of, repair_of

from anatomy_export.core.json_files import checksum
from anatomy_export.plan_files.repair_file import REPAIR_FILE

INPUTS = np.random.default_rng(3).normal(size=(1, 5, HIDDEN)).astype(np.float32)
MOST_SECONDS = 10
SHARE, ALL = range(10), range(10, 100)
SECRET = b"outside the directory"


def corrupt(content: bytes, generator: np.random.Generator) -> bytes:
    """Cut short, a few bits flipped, a stretch repeated, removed, or overwritten."""
    made = bytearray(content)
    kind = generator.integers(6)
    start = int(generator.integers(len(made)))
    length = int(generator.integers(1, 40))
    if kind == 0:
        return bytes(made[:start])
    if kind in (1, 2):
        for position in generator.integers(len(made), size=kind * kind):
            made[position] ^= 1 << int(generator.integers(8))
    elif kind == 3:
        made[start:start] = made[start : start + length]
    elif kind == 4:
        del made[start : start + length]
    else:
        made[start : start + length] = generator.bytes(length)
    return bytes(made)


def graph_part(content: bytes, generator: np.random.Generator) -> bytes:
    """Flips outside the weights: names, sizes, operators, attributes."""
    model = onnx.ModelProto.FromString(content)
    raw = [tensor.raw_data for tensor in model.graph.initializer if len(tensor.raw_data) > 30]
    inside = set()
    for weights_of_tensor in raw:
        start = content.find(weights_of_tensor)
        inside |= set(range(start, start + len(weights_of_tensor)))
    made = bytearray(content)
    outside = [position for position in range(len(made)) if position not in inside]
    for position in generator.choice(outside, size=int(generator.integers(1, 4))):
        made[position] ^= 1 << int(generator.integers(8))
    return bytes(made)


def absurd(content: bytes, generator: np.random.Generator) -> bytes:
    """Valid protobuf that says absurd things of its tensors."""
    model = onnx.ModelProto.FromString(content)
    tensor = model.graph.initializer[int(generator.integers(len(model.graph.initializer)))]
    kind = generator.integers(7)
    if kind == 0 and tensor.dims:
        tensor.dims[0] = int(generator.choice([0, -1, 2**62, 10**9, 7]))
    elif kind == 1:
        tensor.dims.append(int(generator.choice([1, 0, 2**40])))
    elif kind == 2:
        tensor.data_type = int(generator.integers(-2, 40))
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
    elif kind == 4:
        node = model.graph.node[int(generator.integers(len(model.graph.node)))]
        node.input[int(generator.integers(len(node.input)))] = model.graph.node[-1].output[0]
    elif kind == 5:
        node = model.graph.node[int(generator.integers(len(model.graph.node)))]
        del node.input[int(generator.integers(len(node.input))) :]
    else:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        places = [*(place for place, _ in PLACES.values()), "m.onnx"]
        entries = {
            "location": str(generator.choice(places)),
            "offset": str(generator.choice(["0", "-1", "9" * 30, "x", "4"])),
            "length": str(generator.choice(["0", str(len(tensor.raw_data)), "-5", "9" * 19])),
        }
        tensor.ClearField("raw_data")
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


def as_text(change):
    """A change of the plan's JSON whose checksum then agrees again."""

    def changed(content: bytes, generator: np.random.Generator) -> bytes:
        body = json.loads(content)
        del body["checksum"]
        change(body, generator)
        return json.dumps({**body, "checksum": checksum(body)}).encode()

    return changed


def absurd_plan(body: dict, generator: np.random.Generator) -> None:
    junk = [
        None,
        -1,
        2**70,
        "x",
        [],
        {},
        [[]],
        True,
        1e308,
        "../../etc/passwd",
        {"file": 3},
        {"file": "..", "sha256": 1},
    ]
    value = junk[int(generator.integers(len(junk)))]
    place = generator.integers(3)
    if place == 0:
        body[str(generator.choice(list(body)))] = value
    elif place == 1:
        layer = body["layers"][int(generator.integers(len(body["layers"])))]
        layer[str(generator.choice(list(layer)))] = value
    else:
        keep = body["layers"][0]["keep"]
        keep[int(generator.integers(len(keep)))] = value


KINDS = {
    "model": ("m.onnx", corrupt),
    "graph": ("m.onnx", graph_part),
    "tensors": ("m.onnx", absurd),
    "plan": ("plan.json", corrupt),
    "plan that agrees with itself": ("plan.json", as_text(absurd_plan)),
    "repair": (REPAIR_FILE, corrupt),
}
PER_SEED = {"model": 6, "graph": 6, "tensors": 4, "plan": 2, "plan that agrees with itself": 1, "repair": 1}


def prepare(folder: Path, spelling: str, repaired: bool) -> dict[str, bytes]:
    inside = folder / "in"
    inside.mkdir()
    (folder / "secret").write_bytes(SECRET * 100)
    (inside / "link").symlink_to(folder / "secret")
    (inside / "linked").symlink_to(folder)
    plan, repair = plan_of(weights()), repair_of()
    files = {"m.onnx": ffn_model(spelling).SerializeToString()}
    if repaired:
        plan = plan_of(weights(), repair=repair.entry())
        files[REPAIR_FILE] = repair.to_bytes()
    return {**files, "plan.json": plan.to_json().encode()}


def check_one(folder: Path, files: dict[str, bytes]) -> bool:
    """Cut the files; True where that went through."""
    for name, content in files.items():
        (folder / "in" / name).write_bytes(content)
    before = sorted(os.listdir(folder / "in"))
    output = folder / "in" / "out.onnx"
    start = time.monotonic()
    result = run("slice-onnx", folder / "in" / "m.onnx", "--plan", folder / "in" / "plan.json", "-o", output)
    assert time.monotonic() - start < MOST_SECONDS
    if result.exit_code:
        assert result.exit_code == 1
        errors = [line for line in result.stderr.splitlines() if not line.startswith("✓ ")]
        assert len(errors) == 1 and errors[0].startswith("Error: "), result.stderr
        assert "unexpected" not in errors[0].split()[1], result.stderr
        assert sorted(os.listdir(folder / "in")) == before
        return False
    assert SECRET not in output.read_bytes()
    check_function(files, output)
    output.unlink()
    (output.parent / "out.onnx.data").unlink(missing_ok=True)
    return True


def check_function(files: dict[str, bytes], output: Path) -> None:
    """Where ONNX Runtime takes the damaged file, the cut one computes it with masked weights."""
    model = onnx.ModelProto.FromString(files["m.onnx"])
    rows = np.zeros((10, 1), np.float32)
    for index, tensor in enumerate(tensor for tensor in model.graph.initializer if tensor.name in ("down0", "down1")):
        mask = rows.copy()
        mask[list(KEEP[index])] = 1
        down = numpy_helper.to_array(tensor)
        down = down * (mask if down.shape[0] == 10 else mask.T)
        tensor.CopyFrom(numpy_helper.from_array(down.astype(np.float32), tensor.name))
    expected, from_cut = computed(model.SerializeToString()), computed(output.read_bytes())
    if expected is None or REPAIR_FILE in files:
        return
    assert from_cut is not None
    np.testing.assert_allclose(from_cut, expected, atol=1e-4, rtol=1e-4)


def computed(content: bytes) -> np.ndarray | None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: INPUTS})[0]
    except Exception:
        return None


@pytest.mark.parametrize("seed", [*SHARE, *(pytest.param(seed, marks=pytest.mark.slow) for seed in ALL)])
def test_damaged_files(seed, tmp_path):
    """Twenty corruptions a seed: 2,000 in all, the first 200 in every run."""
    generator = np.random.default_rng(seed)
    spelling = sorted(set(SPELLINGS) - {"constants"})[seed % (len(SPELLINGS) - 1)]
    files = prepare(tmp_path, spelling, repaired=True)
    plain = {name: content for name, content in files.items() if name != REPAIR_FILE}
    plain["plan.json"] = plan_of(weights()).to_json().encode()
    assert check_one(tmp_path, plain)
    for kind, (name, change) in KINDS.items():
        for _ in range(PER_SEED[kind]):
            given = files if kind == "repair" else plain
            damaged = {**given, name: change(given[name], generator)}
            if damaged != given and check_one(tmp_path, damaged):
                assert name != REPAIR_FILE, "a damaged repair was applied"


PLACES = {
    "absolute": ("/etc/passwd", "is not a path inside"),
    "parent": ("../secret", "is not a path inside"),
    "hidden parent": ("a/../../secret", "is not a path inside"),
    "link": ("link", "goes through a link"),
    "directory that is a link": ("linked/secret", "goes through a link"),
    "missing": ("none", "is not there"),
    "empty": ("", "is not a path inside"),
    "backslash": ("..\\secret", "is not a path inside"),
}


@pytest.mark.parametrize("case", PLACES)
def test_external_data_outside_the_directory_is_never_read(case, tmp_path, monkeypatch):
    place, message = PLACES[case]
    files = prepare(tmp_path, "plain", repaired=False)
    model = onnx.ModelProto.FromString(files["m.onnx"])
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "pooler")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    for name, content in {**files, "m.onnx": model.SerializeToString()}.items():
        (tmp_path / "in" / name).write_bytes(content)
    output = tmp_path / "in" / "out.onnx"
    result = run("slice-onnx", tmp_path / "in" / "m.onnx", "--plan", tmp_path / "in" / "plan.json", "-o", output)
    assert result.exit_code == 1
    assert message in result.stderr.splitlines()[-1]
    assert not output.exists()
