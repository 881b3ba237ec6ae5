"""Rankings of neurons, and the pass that feeds them all."""
