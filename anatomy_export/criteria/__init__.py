"""One file a ranking of neurons, and the pass that feeds them all."""
