"""Ways to repair what pruning leaves of a layer, by their names on the command line."""

NONE, BIAS, LEAST_SQUARES, AUTO = "none", "bias", "least-squares", "auto"
MODES = (NONE, BIAS, LEAST_SQUARES, AUTO)
