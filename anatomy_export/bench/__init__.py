"""What a model costs in time, fairly: engines, interleaved rounds, intervals, results."""
