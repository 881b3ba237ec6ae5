"""The parent's side of a measurement: worker processes, one timed call at a time, in an order shuffled every round."""

import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.worker import QUIET_LIMIT_S, serve
from anatomy_export.core.errors import AnatomyError, ProviderError, Terminated
from anatomy_export.core.platform import was_killed
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.inputs import Inputs

MIN_WARMUPS = 3
MAX_WARMUPS = 12
STABLE_WARMUPS = 3
STABLE_SPREAD = 1.1
LOAD_TIMEOUT_S = 900.0
STOP_TIMEOUT_S = 2.0
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
        settings = {**dict.fromkeys(THREAD_SETTINGS, str(spec.threads)), "NVIDIA_TF32_OVERRIDE": "0"}
        with _interrupts_ignored(), _environment(settings):
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
            hint = "; out of memory?" if was_killed(code) else ""
            return f"crashed by {signal.Signals(-code).name}{hint}"
        return f"ended with exit code {code}"

    def dismiss(self) -> None:
        """Tell the process to end, which it does once its call is done."""
        self._connection.close()

    def stop(self, grace_s: float = 0.0) -> None:
        """End the process, whatever it is doing; it has `grace_s` seconds to end by itself, and so to clean up."""
        self.dismiss()
        self._process.join(grace_s)
        self._process.kill()
        self._process.join(STOP_TIMEOUT_S)


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
        return [one[worker] for one in self.rounds.get(key, []) if worker in one]

    def paired(self, first: str, second: str, key: str) -> tuple[list[float], list[float], list[int]]:
        """Seconds of both workers in the rounds that both took part in, and the launch of each round."""
        rounds = zip(self.rounds.get(key, []), self.launches.get(key, []), strict=True)
        both = [(one[first], one[second], launch) for one, launch in rounds if first in one and second in one]
        return [one[0] for one in both], [one[1] for one in both], [one[2] for one in both]


@dataclass(frozen=True)
class Measured:
    """Raw samples, what each worker said of itself, and the exit code of what cut the run short (None: nothing)."""

    samples: Samples
    facts: dict[str, dict]
    interrupted: int | None = None


class Pool:
    """The workers of one measurement. One that fails is stopped, named in `samples.failures`, and the rest goes on."""

    def __init__(
        self,
        specs: dict[str, EngineSpec],
        *,
        call_timeout_s: float,
        target: Callable = serve,
        samples: Samples | None = None,
        launch: int = 0,
    ):
        self.samples = Samples() if samples is None else samples
        self.facts: dict[str, dict] = {}
        self._specs = specs
        self._launch = launch
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
            worker.dismiss()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for worker in self._workers.values():
            worker.stop(max(0.0, deadline - time.monotonic()))
        self._workers = {}

    def give_inputs(self, inputs: dict[str, Inputs]) -> None:
        """Hand every worker the same inputs, by key."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "inputs.npz"
            arrays: dict = {f"{key}/{name}": array for key, one in inputs.items() for name, array in one.items()}
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
        if not self._workers:
            self._raise_all_failed()

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
            one: dict[str, float] = {}
            for name in order:
                answer = self._call(name, key, give_logits)
                if answer is not None:
                    one[name] = answer["seconds"]
                tick()
            if not one:
                self._raise_all_failed()
            self.samples.rounds.setdefault(key, []).append(one)
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

    def _raise_all_failed(self) -> None:
        raise no_engine_left(self.samples)


def no_engine_left(samples: Samples) -> AnatomyError:
    """The error that says why nothing could be timed."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in samples.failures.items())
    return AnatomyError(f"no engine is left to time ({reasons}); next step: put right the first of these")


@contextmanager
def worker_pool(specs: dict[str, EngineSpec], *, call_timeout_s: float = 600.0, **options) -> Iterator[Pool]:
    """A `Pool` whose workers end with the block, whatever happens; `options` as it takes them."""
    pool = Pool(specs, call_timeout_s=call_timeout_s, **options)
    try:
        yield pool
    finally:
        pool.stop()


def require_provider(provider: str, engines: Sequence[str]) -> None:
    """Find out before any model is made whether the library of each engine really starts on `provider`.

    Raises:
        ProviderError: one does not.
    """
    if provider == "cpu":
        return
    for library in dict.fromkeys(engine.split("-")[0] for engine in engines):
        reason = why_not(library, provider)
        if reason:
            raise ProviderError(reason)


def why_not(library: str, provider: str) -> str | None:
    """None where a matrix product of `library` (torch, ort) runs on `provider`, else why not.

    It is tried in a process of its own, which may crash.
    """
    worker = Worker(f"probe of {provider}", EngineSpec(f"roofline-{library}", provider=provider))
    try:
        worker.wait_ready()
        worker.ask(("call", "", False), LOAD_TIMEOUT_S)
    except WorkerFailure as failure:
        return f"{provider} cannot be used: {failure}; next step: anatomy doctor"
    except ProviderError as error:
        return str(error)
    finally:
        worker.stop()
    return None


def measure(
    specs: dict[str, EngineSpec],
    work: Callable[[Pool], None],
    *,
    call_timeout_s: float,
    progress: Progress,
    target: Callable = serve,
    launches: int = 1,
) -> Measured:
    """Start the workers, do `work` with them, end them; `launches` times, for luck with memory is a process's own.

    Ctrl-C and SIGTERM keep the rounds that are done.

    Raises:
        AnatomyError: no engine worked. ProviderError: a provider is not really there. KeyboardInterrupt, Terminated:
            interrupted before the first round was done.
    """
    interrupt: BaseException | None = None
    samples: Samples = Samples()
    facts: dict[str, dict] = {}
    try:
        for launch in range(launches):
            with ExitStack() as stack:
                left = {name: spec for name, spec in specs.items() if name not in samples.failures}
                options = {"target": target, "samples": samples, "launch": launch}
                with progress.stage(f"start {len(left)} workers" + f", launch {launch + 1}" * (launches > 1)):
                    pool = stack.enter_context(worker_pool(left, call_timeout_s=call_timeout_s, **options))
                facts.update(pool.facts)
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
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a process started here, so that they stand before it imports anything."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
