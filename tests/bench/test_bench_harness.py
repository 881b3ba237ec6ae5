"""Workers: one call at a time in shuffled rounds; crashes and hangs are named; nothing outlives the parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from anatomy_export.bench import worker
from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.measure import measure
from anatomy_export.bench.rounds import WorkerPool
from anatomy_export.core.errors import AnatomyError, ProviderError
from anatomy_export.core.platform import peak_rss_bytes
from anatomy_export.core.progress import Progress

SPIN_S = 0.01


class FakeEngine:
    """Spins for 10 ms a call; the model's name says how it misbehaves."""

    def __init__(self, spec: EngineSpec):
        if spec.model == "refuses":
            raise AnatomyError("no such model")
        if spec.model == "no provider":
            raise ProviderError("no GPU here")
        self.behaviour = spec.model
        self.facts = {"pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}
        self.calls = 0

    def prepare(self, inputs):
        return lambda: self.call(inputs)

    def call(self, inputs):
        self.calls += 1
        if self.behaviour == "crashes" and self.calls > 4:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.behaviour == "hangs" and self.calls > 4:
            time.sleep(60)
        print("what a library prints")
        end = time.perf_counter() + SPIN_S
        while time.perf_counter() < end:
            pass
        return np.asarray(inputs["x"])


def serve_fake(connection, spec) -> None:
    from anatomy_export.bench import engines

    engines.build_engine = FakeEngine
    worker.serve(connection, spec)


def specs(*models: str) -> dict[str, EngineSpec]:
    return {model: EngineSpec("fake", model, threads=1) for model in models}


INPUTS = {"k": {"x": np.array([[0.0, 1.0], [2.0, 1.0]])}}


def test_rounds_are_whole_shuffled_and_cheap():
    with WorkerPool(specs("a", "b", "c"), target=serve_fake) as pool:
        pool.give_inputs(INPUTS)
        pool.warm_up(["k"])
        pool.time_rounds("k", repeats=12, seed=0, give_logits=True)
    samples = pool.samples
    assert [sorted(one) for one in samples.rounds["k"]] == [["a", "b", "c"]] * 12
    assert len({tuple(order) for order in samples.orders["k"]}) > 3
    assert all(len(samples.warmups[name, "k"]) >= 3 for name in "abc")
    assert samples.logits["a", "k"].argmax(-1).tolist() == [1, 0]
    assert all(peak < peak_rss_bytes() for peak in samples.peak_rss_bytes.values()), "a child has its parent's peak"
    assert {facts["threads"] for facts in pool.facts.values()} == {"1"}
    assert len({facts["pid"] for facts in pool.facts.values()} | {os.getpid()}) == 4
    overhead = min(samples.times("a", "k")) - SPIN_S  # the least: other programs only add to it
    assert 0 <= overhead < 0.01 * SPIN_S


@pytest.mark.parametrize(("model", "reason"), [("crashes", "SIGKILL"), ("hangs", "no answer in 2 s")])
def test_a_lost_worker_is_named_and_the_rest_goes_on(model, reason):
    with WorkerPool(specs("good", model), call_timeout_s=2, target=serve_fake) as pool:
        pool.give_inputs(INPUTS)
        pool.warm_up(["k"])
        pool.time_rounds("k", repeats=6, seed=0)
    assert reason in pool.samples.failures[model]
    assert len(pool.samples.times("good", "k")) == 6
    good, lost, _ = pool.samples.paired("good", model, "k")
    assert len(good) == len(lost) < 6


def test_launches_start_anew_and_their_rounds_are_told_apart():
    def work(pool):
        pool.give_inputs(INPUTS)
        pool.warm_up(["k"])
        pool.time_rounds("k", repeats=3, seed=0)
        pids.append(pool.facts["a"]["pid"])

    pids: list[int] = []
    measured = measure(specs("a", "b"), work, call_timeout_s=10, progress=Progress(), target=serve_fake, launches=2)
    assert len(set(pids)) == 2
    assert measured.samples.launches["k"] == [0, 0, 0, 1, 1, 1]
    assert [len(values) for values in measured.samples.paired("a", "b", "k")] == [6, 6, 6]


def test_workers_of_one_engine_stand_together_in_every_round():
    engines = {"a": "x", "b": "x", "c": "y", "d": "y"}
    with WorkerPool({name: EngineSpec(one, "good") for name, one in engines.items()}, target=serve_fake) as pool:
        pool.give_inputs(INPUTS)
        pool.time_rounds("k", repeats=8, seed=0)
    orders = pool.samples.orders["k"]
    assert len({tuple(order) for order in orders}) > 3
    for order in orders:
        assert engines[order[0]] == engines[order[1]] != engines[order[2]] == engines[order[3]]


def test_refusals():
    with WorkerPool(specs("good", "refuses"), target=serve_fake) as pool:
        assert pool.names == ["good"]
    assert pool.samples.failures == {"refuses": "no such model"}
    with (
        pytest.raises(AnatomyError, match=r"no engine is left.*no such model"),
        WorkerPool(specs("refuses"), target=serve_fake),
    ):
        pass
    with pytest.raises(ProviderError, match="no GPU here"), WorkerPool(specs("no provider"), target=serve_fake):
        pass


def test_an_interrupt_keeps_whole_rounds():
    calls = []

    def tick():
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt

    def work(pool):
        pool.give_inputs(INPUTS)
        pool.time_rounds("k", repeats=20, seed=0, tick=tick)

    options = {"call_timeout_s": 10, "progress": Progress(), "target": serve_fake}
    measured = measure(specs("a", "b"), work, **options)
    assert measured.interrupted == 130
    assert [sorted(one) for one in measured.samples.rounds["k"]] == [["a", "b"]] * 3
    with pytest.raises(KeyboardInterrupt):
        measure(specs("a"), interrupted_at_once, **options)


def interrupted_at_once(pool):
    raise KeyboardInterrupt


def test_no_worker_outlives_a_killed_parent():
    script = (
        "import time; from test_bench_harness import WorkerPool, serve_fake, specs\n"
        "if __name__ == '__main__':\n"
        "    with WorkerPool(specs('a', 'b'), target=serve_fake) as pool:\n"
        "        print(*(facts['pid'] for facts in pool.facts.values()), flush=True)\n"
        "        time.sleep(60)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
