"""Check a bundle from outside, with numpy and onnxruntime alone: every hash, every reference logit, the bytes saved.

Usage: check_outside.py BUNDLE
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

GRAPH_BYTES = 4096  # what node attributes and metadata may differ by; nothing beside a real model's weights


def main(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    for name, expected in manifest["files"].items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == expected, name
    assert manifest["references"], "no reference texts"
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"))
    for reference in manifest["references"]:
        ids = np.array([reference["input_ids"]])
        values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        logits = session.run(None, {value.name: values[value.name] for value in session.get_inputs()})[0]
        np.testing.assert_allclose(logits[0], reference["logits"], atol=manifest["reference_tolerance"])
    print(f"{bundle} holds: {len(manifest['files'])} files, {len(manifest['references'])} reference texts")
    check_size(manifest, json.loads((bundle / "config.json").read_text()))


def check_size(manifest: dict, config: dict) -> None:
    """The file is smaller than the dense one by the bytes of the sliced weights: a row, a column, a bias a neuron."""
    size, neurons = manifest["result"]["size_bytes"], manifest["result"]["neurons"]
    if manifest["mode"] != "slice" or manifest["precision"] != "fp32" or size["dense"] is None:
        return
    hidden = next(config[key] for key in ("hidden_size", "n_embd", "dim") if key in config)
    expected = (neurons["dense"] - neurons["pruned"]) * (2 * hidden + 1) * 4
    saved = size["dense"] - size["pruned"]
    assert abs(saved - expected) <= max(0.02 * expected, GRAPH_BYTES), f"saved {saved} bytes, expected {expected} ± 2 %"
    print(f"smaller than dense by {saved} bytes, the sliced weights are {expected}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
