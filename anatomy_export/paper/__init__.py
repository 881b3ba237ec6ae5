"""The paper's method and nothing else: the anatomy, its thresholds and presets, its rule, its experiment's setups."""
