"""An engine without a model, to time the harness itself."""

import time

import numpy as np

from anatomy_export.bench import engines, worker
from anatomy_export.bench.engines import EngineSpec

FIXED_STEPS = 300_000


class FixedWorkEngine:
    """A call that does the same arithmetic twice, about 10 ms each.

    It gives the seconds of both, (1, 2): the first comes after a wait for the parent, the second as in a tight loop.
    """

    def __init__(self, spec: EngineSpec):
        self.facts = {"steps": FIXED_STEPS}

    def prepare(self, inputs):
        return lambda: np.array([[_fixed_work(), _fixed_work()]])


def _fixed_work() -> float:
    start = time.perf_counter()
    total = 0
    for step in range(FIXED_STEPS):
        total += step
    return time.perf_counter() - start


def serve_fixed_work(connection, spec: EngineSpec) -> None:
    """`worker.serve` of this engine, whatever `spec` names."""
    engines.build_engine = FixedWorkEngine
    worker.serve(connection, spec)
