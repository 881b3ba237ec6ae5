"""What a classifier is called with: arrays by the name of the input, each (batch, tokens) int64."""

import numpy as np

Inputs = dict[str, np.ndarray]
