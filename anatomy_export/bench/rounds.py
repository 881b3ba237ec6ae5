"""Rounds: every worker makes one timed call, in an order shuffled anew; the raw seconds that come of it."""

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.worker import QUIET_LIMIT_S, serve
from anatomy_export.bench.worker_process import STOP_TIMEOUT_S, Worker, WorkerFailure
from anatomy_export.core.errors import AnatomyError
from anatomy_export.evaluation.classifier_inputs import Inputs

MIN_WARMUPS = 3
MAX_WARMUPS = 12
STABLE_SPREAD = 1.1


@dataclass
class Samples:
    """Raw seconds as they come in. A round is there as a whole or not at all.

    Attributes:
        warmups: by worker and key, the untimed first calls.
        unstable: workers and keys whose warm-ups ended at the limit, not because they had become stable.
        rounds: by key, one dictionary a round of seconds by worker.
        orders: by key, the order of the workers in each round.
        launches: by key, in which launch of the worker processes each round was, from 0.
        peak_rss_bytes: by worker, its process's high-water mark so far.
        logits: by worker and key, what the last call gave, (batch, classes), where asked for.
        never_quiet: by worker, the calls after which its threads went on using the CPU.
        failures: by worker, why it is missing.
    """

    warmups: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    unstable: set[tuple[str, str]] = field(default_factory=set)
    rounds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    orders: dict[str, list[list[str]]] = field(default_factory=dict)
    launches: dict[str, list[int]] = field(default_factory=dict)
    peak_rss_bytes: dict[str, int] = field(default_factory=dict)
    logits: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    never_quiet: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def times(self, worker: str, key: str) -> list[float]:
        """Seconds of each round that the worker took part in."""
        return [seconds[worker] for seconds in self.rounds.get(key, []) if worker in seconds]

    def paired(self, first: str, second: str, key: str) -> tuple[list[float], list[float], list[int]]:
        """Seconds of both workers in the rounds that both took part in, and the launch of each round."""
        rounds = zip(self.rounds.get(key, []), self.launches.get(key, []), strict=True)
        both = [(seconds, launch) for seconds, launch in rounds if first in seconds and second in seconds]
        return [seconds[first] for seconds, _ in both], [seconds[second] for seconds, _ in both], [at for _, at in both]

    def nothing_left(self) -> AnatomyError:
        """The error that says why nothing could be timed."""
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.failures.items())
        return AnatomyError(f"no engine is left to time ({reasons}); next step: put right the first of these")


class WorkerPool:
    """The workers of one measurement. One that fails is stopped, named in `samples.failures`, and the rest goes on.

    As a context manager it ends every worker with the block, whatever happens.
    """

    def __init__(
        self,
        specs: dict[str, EngineSpec],
        *,
        call_timeout_s: float = 600.0,
        target: Callable = serve,
        samples: Samples | None = None,
        launch: int = 0,
    ):
        self.samples = Samples() if samples is None else samples
        self._specs = specs
        self._launch = launch
        self._timeout_s = call_timeout_s
        self._workers: dict[str, Worker] = {}
        try:
            for name, spec in specs.items():
                self._workers[name] = Worker(name, spec, target=target)
            for name in specs:
                self._guarded(name, lambda worker: worker.wait_ready())
            self._require_workers()
        except BaseException:
            self.stop()
            raise
        self.facts = {name: worker.facts for name, worker in self._workers.items()}

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def names(self) -> list[str]:
        """The workers that still run."""
        return list(self._workers)

    def stop(self) -> None:
        """End every worker."""
        for worker in self._workers.values():
            worker.dismiss()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for worker in self._workers.values():
            worker.stop(max(0.0, deadline - time.monotonic()))
        self._workers = {}

    def give_inputs(self, inputs: dict[str, Inputs]) -> None:
        """Hand every worker the same inputs, by key."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "inputs.npz"
            arrays: dict = {f"{key}/{name}": array for key, feed in inputs.items() for name, array in feed.items()}
            np.savez(path, **arrays)
            for name in self.names:
                self._guarded(name, lambda worker: worker.ask(("inputs", str(path)), self._timeout_s))

    def warm_up(
        self,
        keys: Sequence[str],
        *,
        names: Sequence[str] | None = None,
        maximum: int = MAX_WARMUPS,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Call each worker on each key until its last three calls are within 10 % of each other, `maximum` at most."""
        for key in keys:
            for name in self.names if names is None else names:
                taken: list[float] = []
                while len(taken) < maximum and not _stable(taken):
                    answer = self._call(name, key, give_logits=False)
                    if answer is None:
                        break
                    taken.append(answer["seconds"])
                if len(taken) == maximum == MAX_WARMUPS and not _stable(taken):
                    self.samples.unstable.add((name, key))
                self.samples.warmups.setdefault((name, key), []).extend(taken)
                tick()
        self._require_workers()

    def time_rounds(
        self, key: str, *, repeats: int, seed: int, tick: Callable[[], None] = lambda: None, give_logits: bool = False
    ) -> None:
        """Time `repeats` rounds on one key: every worker once a round, in an order shuffled anew.

        The order is one of engines, and within each engine one of its workers, so that what is compared runs close
        together in time.
        """
        shuffle = random.Random(f"{seed}/{self._launch}/{key}")
        for _ in range(repeats):
            order = self._shuffled(shuffle)
            seconds: dict[str, float] = {}
            for name in order:
                answer = self._call(name, key, give_logits)
                if answer is not None:
                    seconds[name] = answer["seconds"]
                tick()
            if not seconds:
                raise self.samples.nothing_left()
            self.samples.rounds.setdefault(key, []).append(seconds)
            self.samples.orders.setdefault(key, []).append(order)
            self.samples.launches.setdefault(key, []).append(self._launch)

    def _shuffled(self, shuffle: random.Random) -> list[str]:
        names = self.names
        shuffle.shuffle(names)
        engines = list(dict.fromkeys(self._specs[name].engine for name in names))
        shuffle.shuffle(engines)
        return sorted(names, key=lambda name: engines.index(self._specs[name].engine))

    def _call(self, name: str, key: str, give_logits: bool) -> dict | None:
        answer = self._guarded(name, lambda worker: worker.ask(("call", key, give_logits), self._timeout_s))
        if answer is not None:
            samples = self.samples
            if answer["peak_rss_bytes"] is not None:
                samples.peak_rss_bytes[name] = max(answer["peak_rss_bytes"], samples.peak_rss_bytes.get(name, 0))
            if answer["quiet_s"] >= QUIET_LIMIT_S:
                samples.never_quiet[name] = samples.never_quiet.get(name, 0) + 1
            if "logits" in answer:
                samples.logits[name, key] = answer["logits"]
        return answer

    def _guarded(self, name: str, work: Callable[[Worker], dict | None]) -> dict | None:
        worker = self._workers.get(name)
        if worker is None:
            return None
        try:
            return work(worker)
        except WorkerFailure as failure:
            worker.stop()
            del self._workers[name]
            self.samples.failures[name] = str(failure)
            return None

    def _require_workers(self) -> None:
        if not self._workers:
            raise self.samples.nothing_left()


def _stable(times_s: list[float]) -> bool:
    last = times_s[-MIN_WARMUPS:]
    return len(last) == MIN_WARMUPS and max(last) <= STABLE_SPREAD * min(last)
