"""Models run on text, by torch or by ONNX Runtime; metrics of what they give, and comparisons."""
