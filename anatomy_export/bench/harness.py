"""The parent's side of a measurement: worker processes, one timed call at a time, in an order shuffled every round."""

import multiprocessing
import random
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from anatomy_export.bench.engines import EngineSpec, Inputs
from anatomy_export.bench.worker import serve
from anatomy_export.errors import AnatomyError, ProviderError, Terminated
from anatomy_export.progress import Progress

MIN_WARMUPS = 3
MAX_WARMUPS = 12
STABLE_WARMUPS = 3
STABLE_SPREAD = 1.1
LOAD_TIMEOUT_S = 900.0
STOP_TIMEOUT_S = 2.0


class WorkerFailure(Exception):
    """A worker crashed, hung or refused; the text says how."""


class Worker:
    """One engine on one model in a process of its own. `spec`: what it holds; `facts`: what it said when ready."""

    def __init__(self, name: str, spec: EngineSpec, *, target: Callable = serve):
        self.name = name
        self.spec = spec
        self.facts: dict = {}
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, spec), name=name, daemon=True)
        with _interrupts_ignored():
            self._process.start()
        theirs.close()

    def wait_ready(self, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """Wait until the engine has loaded. Raises as `ask` does."""
        self.facts = self._receive("ready", timeout_s)

    def ask(self, message: tuple, timeout_s: float) -> dict:
        """Send a message and give its answer.

        Raises:
            WorkerFailure: crashed, hung beyond `timeout_s`, or refused. ProviderError: its provider is not there.
        """
        try:
            self._connection.send(message)
        except OSError:
            raise WorkerFailure(self._how_it_ended()) from None
        return self._receive("done", timeout_s)

    def _receive(self, expected: str, timeout_s: float) -> dict:
        try:
            if not self._connection.poll(timeout_s):
                raise WorkerFailure(f"gave no answer in {timeout_s:.0f} s")
            kind, *rest = self._connection.recv()
        except (EOFError, OSError):
            raise WorkerFailure(self._how_it_ended()) from None
        if kind == "error":
            text, exit_code = rest
            raise ProviderError(text) if exit_code == ProviderError.exit_code else WorkerFailure(text)
        assert kind == expected, f"expected {expected}, got {kind}"
        return rest[0]

    def _how_it_ended(self) -> str:
        self._process.join(STOP_TIMEOUT_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            hint = "; out of memory?" if -code == signal.SIGKILL else ""
            return f"crashed by {signal.Signals(-code).name}{hint}"
        return f"ended with exit code {code}"

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._connection.close()
        self._process.kill()
        self._process.join(STOP_TIMEOUT_S)


@dataclass
class Samples:
    """Raw seconds as they come in. A round is there as a whole or not at all.

    Attributes:
        warmups: by worker and key, the untimed first calls.
        rounds: by key, one dictionary a round of seconds by worker.
        orders: by key, the order of the workers in each round.
        peak_rss_bytes: by worker, its process's high-water mark so far.
        predicted: by worker and key, the class of each row, where asked for.
        failures: by worker, why it is missing.
    """

    warmups: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    rounds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    orders: dict[str, list[list[str]]] = field(default_factory=dict)
    peak_rss_bytes: dict[str, int] = field(default_factory=dict)
    predicted: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def times(self, worker: str, key: str) -> list[float]:
        """Seconds of each round that the worker took part in."""
        return [one[worker] for one in self.rounds.get(key, []) if worker in one]

    def paired(self, first: str, second: str, key: str) -> tuple[list[float], list[float]]:
        """Seconds of both workers in the rounds that both took part in."""
        both = [one for one in self.rounds.get(key, []) if first in one and second in one]
        return [one[first] for one in both], [one[second] for one in both]


@dataclass(frozen=True)
class Measured:
    """Raw samples, what each worker said of itself, and the exit code of what cut the run short (None: nothing)."""

    samples: Samples
    facts: dict[str, dict]
    interrupted: int | None = None


class Pool:
    """The workers of one measurement. One that fails is stopped, named in `samples.failures`, and the rest goes on."""

    def __init__(self, specs: dict[str, EngineSpec], *, call_timeout_s: float, target: Callable = serve):
        self.samples = Samples()
        self.facts: dict[str, dict] = {}
        self._timeout_s = call_timeout_s
        self._workers: dict[str, Worker] = {}
        try:
            for name, spec in specs.items():
                self._workers[name] = Worker(name, spec, target=target)
            for name in specs:
                self._guarded(name, lambda worker: worker.wait_ready())
        except BaseException:
            self.stop()
            raise
        self.facts = {name: worker.facts for name, worker in self._workers.items()}
        if not self._workers:
            self._raise_all_failed()

    @property
    def names(self) -> list[str]:
        """The workers that still run."""
        return list(self._workers)

    def stop(self) -> None:
        """End every worker."""
        for worker in self._workers.values():
            worker.stop()
        self._workers = {}

    def give_inputs(self, inputs: dict[str, Inputs]) -> None:
        """Hand every worker the same inputs, by key."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "inputs.npz"
            arrays: dict = {f"{key}/{name}": array for key, one in inputs.items() for name, array in one.items()}
            np.savez(path, **arrays)
            for name in self.names:
                self._guarded(name, lambda worker: worker.ask(("inputs", str(path)), self._timeout_s))

    def warm_up(self, keys: Sequence[str], *, maximum: int = MAX_WARMUPS) -> None:
        """Call each worker on each key until its last three calls are within 10 % of each other, `maximum` at most."""
        for key in keys:
            for name in self.names:
                taken = self.samples.warmups.setdefault((name, key), [])
                while len(taken) < maximum and not _stable(taken):
                    answer = self._call(name, key, predict=False)
                    if answer is None:
                        break
                    taken.append(answer["seconds"])
        if not self._workers:
            self._raise_all_failed()

    def time_rounds(
        self, key: str, *, repeats: int, seed: int, tick: Callable[[], None] = lambda: None, predict: bool = False
    ) -> None:
        """Time `repeats` rounds on one key: every worker once a round, the order shuffled anew."""
        shuffle = random.Random(f"{seed}/{key}")
        rounds = self.samples.rounds.setdefault(key, [])
        orders = self.samples.orders.setdefault(key, [])
        for _ in range(repeats):
            order = self.names
            shuffle.shuffle(order)
            one: dict[str, float] = {}
            for name in order:
                answer = self._call(name, key, predict)
                if answer is not None:
                    one[name] = answer["seconds"]
                tick()
            if not one:
                self._raise_all_failed()
            rounds.append(one)
            orders.append(order)

    def _call(self, name: str, key: str, predict: bool) -> dict | None:
        answer = self._guarded(name, lambda worker: worker.ask(("call", key, predict), self._timeout_s))
        if answer is not None:
            self.samples.peak_rss_bytes[name] = answer["peak_rss_bytes"]
            if "predicted" in answer:
                self.samples.predicted[name, key] = answer["predicted"]
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

    def _raise_all_failed(self) -> None:
        raise no_engine_left(self.samples)


def no_engine_left(samples: Samples) -> AnatomyError:
    """The error that says why nothing could be timed."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in samples.failures.items())
    return AnatomyError(f"no engine is left to time ({reasons}); next step: put right the first of these")


@contextmanager
def worker_pool(
    specs: dict[str, EngineSpec], *, call_timeout_s: float = 600.0, target: Callable = serve
) -> Iterator[Pool]:
    """A `Pool` whose workers end with the block, whatever happens."""
    pool = Pool(specs, call_timeout_s=call_timeout_s, target=target)
    try:
        yield pool
    finally:
        pool.stop()


def require_provider(provider: str) -> None:
    """Find out in a process of its own, before any model is made, whether ONNX Runtime's `provider` really starts.

    Raises:
        ProviderError: it does not.
    """
    if provider == "cpu":
        return
    worker = Worker(f"probe of {provider}", EngineSpec("roofline-ort", provider=provider))
    try:
        worker.wait_ready()
    except WorkerFailure as failure:
        raise ProviderError(f"{provider} cannot be used: {failure}; next step: anatomy doctor") from failure
    finally:
        worker.stop()


def measure(
    specs: dict[str, EngineSpec],
    work: Callable[[Pool], None],
    *,
    call_timeout_s: float,
    progress: Progress,
    target: Callable = serve,
) -> Measured:
    """Start the workers, do `work` with them, and end them. Ctrl-C and SIGTERM keep the rounds that are done.

    Raises:
        AnatomyError: no engine worked. ProviderError: a provider is not really there. KeyboardInterrupt, Terminated:
            interrupted before the first round was done.
    """
    interrupt: BaseException | None = None
    samples, facts = Samples(), {}
    try:
        with ExitStack() as stack:
            with progress.stage(f"start {len(specs)} workers"):
                pool = stack.enter_context(worker_pool(specs, call_timeout_s=call_timeout_s, target=target))
            samples, facts = pool.samples, pool.facts
            work(pool)
    except (KeyboardInterrupt, Terminated) as caught:
        interrupt = caught
    for name, reason in samples.failures.items():
        progress.note(f"warning: {name} failed and was left out: {reason}")
    if interrupt is None:
        return Measured(samples, facts)
    if not any(samples.rounds.values()):
        raise interrupt
    return Measured(samples, facts, 130 if isinstance(interrupt, KeyboardInterrupt) else 143)


def _stable(times_s: list[float]) -> bool:
    last = times_s[-STABLE_WARMUPS:]
    return len(times_s) >= max(MIN_WARMUPS, STABLE_WARMUPS) and max(last) <= STABLE_SPREAD * min(last)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A process started here never sees Ctrl-C: its parent decides when it ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
