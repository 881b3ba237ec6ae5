"""Transformer classifiers: families, checkpoints, tokenizers, FLOPs, and pruning applied to them."""
