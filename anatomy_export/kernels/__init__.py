"""Array operations on torch, each with a NumPy float64 reference of the same name in the tests."""
