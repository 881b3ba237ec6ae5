"""Classify sentences with the model.onnx beside this file. Needs numpy, onnxruntime and tokenizers; no torch.

Usage: python classify.py "A sentence." "Another one."      (or lines on standard input)

Prints a line for each: label, probability, sentence, with tabs between. Standard input is UTF-8; blank lines in it are
passed over.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers


class Classifier:
    """The classifier in a directory with bundle.json, tokenizer.json and model.onnx."""

    def __init__(self, directory: Path, model: str = "model.onnx"):
        manifest = json.loads((directory / "bundle.json").read_text(encoding="utf-8"))
        self.labels = manifest["labels"]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(manifest["max_length"], direction=manifest.get("truncation_side", "right"))
        self.session = onnxruntime.InferenceSession(str(directory / model), providers=["CPUExecutionProvider"])

    def logits(self, text: str) -> np.ndarray:
        """Logits (classes,) of one sentence. Raises ValueError where it is empty or holds no token."""
        encoded = self.tokenizer.encode(text)
        if not text.strip() or not encoded.ids:
            raise ValueError(f"no token in the text {text!r}; next step: pass text that is not empty")
        values = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        names = [value.name for value in self.session.get_inputs()]
        inputs = {name: np.array([values[name]], dtype=np.int64) for name in names}
        return self.session.run(["logits"], inputs)[0][0]

    def __call__(self, text: str) -> tuple[str, float]:
        """Label and probability of the likeliest class."""
        logits = self.logits(text)
        exponentials = np.exp(logits - logits.max())
        best = int(logits.argmax())
        return self.labels[best], float(exponentials[best] / exponentials.sum())


if __name__ == "__main__":
    for stream, encoding in ((sys.stdin, "utf-8-sig"), (sys.stdout, "utf-8")):  # whatever the system's own encoding is
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.reconfigure(encoding=encoding)
    classify = Classifier(Path(__file__).resolve().parent)
    try:
        for sentence in sys.argv[1:] or (line.rstrip("\n") for line in sys.stdin if line.strip()):
            label, probability = classify(sentence)
            print(f"{' '.join(label.split())}\t{probability:.4f}\t{' '.join(sentence.splitlines())}")
    except UnicodeError as error:
        sys.exit(f"Error: the text is not UTF-8 ({error}); next step: save it as UTF-8")
    except ValueError as error:
        sys.exit(f"Error: {error}")
