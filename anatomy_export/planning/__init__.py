"""From what was asked for to a plan: options, budgets, allocation, the search, sweeps."""
