"""Array operations on torch tensors; `reference` holds each one's plain NumPy float64 counterpart."""
