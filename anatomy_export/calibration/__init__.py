"""A dense model run over calibration text: batches, layer-by-layer replay, gradients, statistics."""
