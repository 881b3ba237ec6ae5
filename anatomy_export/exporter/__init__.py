"""From a checkpoint to a verified bundle: score, plan, prune, export, verify, bundle."""
