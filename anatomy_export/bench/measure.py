"""A measurement: workers started, work done with them, workers ended, as often as asked; and providers tried first."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from anatomy_export.bench.engines import EngineSpec
from anatomy_export.bench.random_inputs import SEED
from anatomy_export.bench.rounds import Samples, WorkerPool
from anatomy_export.bench.worker import serve
from anatomy_export.bench.worker_process import LOAD_TIMEOUT_S, Worker, WorkerFailure
from anatomy_export.core.errors import ProviderError, Terminated
from anatomy_export.core.progress import Progress
from anatomy_export.evaluation.classifier_inputs import Inputs

ONE_INPUT = "input"


@dataclass(frozen=True)
class Measured:
    """Raw samples, what each worker said of itself, and the exit code of what cut the run short (None: nothing)."""

    samples: Samples
    facts: dict[str, dict]
    interrupted: int | None = None


def measure(
    specs: dict[str, EngineSpec],
    work: Callable[[WorkerPool], None],
    *,
    progress: Progress,
    call_timeout_s: float = 600.0,
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
                with progress.stage(f"start {len(left)} workers" + f", launch {launch + 1}" * (launches > 1)):
                    pool = stack.enter_context(
                        WorkerPool(left, call_timeout_s=call_timeout_s, target=target, samples=samples, launch=launch)
                    )
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


def measure_one_input(
    specs: dict[str, EngineSpec], inputs: Inputs, *, rounds: int, title: str, progress: Progress, launches: int = 1
) -> Samples:
    """Time every worker on one input, whose key is `ONE_INPUT`: all of the `rounds` of each launch, or none.

    Raises:
        AnatomyError: a worker failed. KeyboardInterrupt, Terminated: interrupted.
    """

    def work(pool: WorkerPool) -> None:
        pool.give_inputs({ONE_INPUT: inputs})
        pool.warm_up([ONE_INPUT])
        with progress.bar(title, rounds * len(pool.names)) as tick:
            pool.time_rounds(ONE_INPUT, repeats=rounds, seed=SEED, tick=tick)

    measured = measure(specs, work, progress=progress, launches=launches)
    if measured.interrupted is not None:
        raise KeyboardInterrupt if measured.interrupted == 130 else Terminated
    if measured.samples.failures:
        raise measured.samples.nothing_left()
    return measured.samples


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
