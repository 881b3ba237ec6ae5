"""An existing ONNX file: its FFNs found, cut, and checked; no torch."""
