"""What is left of a pruned layer fitted to the dense model in closed form."""
