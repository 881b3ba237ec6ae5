"""Check a bundle from outside, with numpy and onnxruntime alone: every hash, every reference logit.

Usage: check_outside.py BUNDLE
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


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
        np.testing.assert_allclose(logits[0], reference["logits"], atol=manifest["tolerance"])
    print(f"{bundle} holds: {len(manifest['files'])} files, {len(manifest['references'])} reference texts")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
