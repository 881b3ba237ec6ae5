"""Check a finished bundle from outside: its hashes, its reference logits with numpy and onnxruntime alone, its gain."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(bundle: Path, result: Path) -> None:
    measures = json.loads(result.read_text())
    assert measures["neurons"]["pruned"] < measures["neurons"]["dense"], measures["neurons"]
    assert measures["size_bytes"]["pruned"] < measures["size_bytes"]["dense"], measures["size_bytes"]
    assert measures["accuracy"]["dense"] >= 0.835, measures["accuracy"]
    manifest = json.loads((bundle / "bundle.json").read_text())
    for name, expected in manifest["files"].items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == expected, name
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"))
    for reference in manifest["references"]:
        ids = np.array([reference["input_ids"]])
        values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        logits = session.run(None, {value.name: values[value.name] for value in session.get_inputs()})[0]
        np.testing.assert_allclose(logits[0], reference["logits"], atol=manifest["tolerance"])
    print(f"bundle {bundle} holds: {len(manifest['files'])} files, {len(manifest['references'])} references")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
