"""Each kernel agrees with its float64 reference, on odd sizes and zero rows."""

import kernel_reference as reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anatomy_export.kernels.cosine import cosine_similarity
from anatomy_export.kernels.gather import gather_neurons

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 37), targets=st.integers(1, 5), hidden=st.integers(1, 33), seed=st.integers(0, 2**16))
def test_cosine_similarity(dtype, rows, targets, hidden, seed):
    generator = np.random.default_rng(seed)
    weight, target = generator.normal(size=(rows, hidden)), generator.normal(size=(targets, hidden))
    weight[0] = 0
    found = cosine_similarity(torch.tensor(weight, dtype=dtype), torch.tensor(target, dtype=dtype)).numpy()
    np.testing.assert_allclose(found, reference.cosine_similarity(weight, target), atol=TOLERANCE[dtype])
    assert (found[:, 0] == 0).all()


@settings(max_examples=25, deadline=None)
@given(data=st.data(), neurons=st.integers(1, 23), hidden=st.integers(1, 9))
def test_gather_neurons(data, neurons, hidden):
    keep = sorted(data.draw(st.sets(st.integers(0, neurons - 1), min_size=1)))
    generator = np.random.default_rng(neurons * hidden)
    up, bias, down = (generator.normal(size=size) for size in ((neurons, hidden), neurons, (neurons, hidden)))
    found = gather_neurons(*(torch.tensor(one) for one in (up, bias, down)), torch.tensor(keep))
    for one, expected in zip(found, reference.gather_neurons(up, bias, down, np.array(keep)), strict=True):
        np.testing.assert_array_equal(one.numpy(), expected)
