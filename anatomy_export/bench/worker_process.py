"""The parent's side of one worker: its process started, asked, told to end, and how it ended put into words."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.worker import serve
from anatomy_export.core.errors import ProviderError
from anatomy_export.core.platform import was_killed

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
