"""A torch model to an ONNX file: export, fusion, precision."""
