"""A bundle loaded by optimum, as its users would."""

import json

import numpy as np
import pytest

optimum = pytest.importorskip("optimum.onnxruntime", reason="optimum is needed: make .venv-optimum/.installed")


def test_optimum_loads_the_bundle_as_it_is(made_bundle):
    import transformers

    model = optimum.ORTModelForSequenceClassification.from_pretrained(made_bundle)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made_bundle)
    manifest = json.loads((made_bundle / "bundle.json").read_text())
    for one in manifest["references"]:
        inputs = tokenizer(one["text"], truncation=True, max_length=manifest["max_length"], return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == one["input_ids"]
        logits = model(**inputs).logits[0].numpy()
        assert logits == pytest.approx(np.array(one["logits"]), abs=1e-4)
    padded = model(**tokenizer(["the good film", "awful"], padding=True, return_tensors="pt")).logits
    assert padded.shape == (2, 2)
