"""A process that holds one engine and runs one timed call whenever the parent asks."""

import os
import signal
import time

from anatomy_export.core.platform import die_with_parent, peak_rss_bytes

QUIET_CPU_S = 2e-4
QUIET_STEP_S = 1e-3
QUIET_LIMIT_S = 0.1


def serve(connection, spec) -> None:
    """Load the engine of `spec` (an `EngineSpec`), then answer messages until the connection closes.

    Messages in: `("inputs", path)` takes the arrays of an `.npz` whose keys are `<key>/<input name>`;
    `("call", key, give_logits)` makes one timed call. Answers: `("ready", facts)`, `("done", answer)`,
    `("error", text, exit code)`.
    """
    _live_and_die_with_the_parent()
    from anatomy_export.core.errors import AnatomyError

    try:
        from anatomy_export.bench.engines import build_engine

        engine = build_engine(spec)
        connection.send(("ready", engine.facts))
        _answer(connection, engine)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except AnatomyError as error:
        connection.send(("error", str(error), error.exit_code))
    except Exception as error:
        connection.send(("error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", 1))


def _live_and_die_with_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    os.dup2(2, 1)  # what libraries print must not reach the parent's standard output


def _answer(connection, engine) -> None:
    import numpy as np

    inputs: dict[str, dict] = {}
    calls: dict = {}
    while True:
        kind, *arguments = connection.recv()
        if kind == "inputs":
            with np.load(arguments[0]) as arrays:
                inputs = {}
                for name in arrays.files:
                    key, part = name.rsplit("/", 1)
                    inputs.setdefault(key, {})[part] = arrays[name]
            calls = {}
            connection.send(("done", {}))
            continue
        key, give_logits = arguments
        if key not in calls:
            calls[key] = engine.prepare(inputs.get(key, {}))
        call = calls[key]
        start = time.perf_counter()
        output = call()
        seconds = time.perf_counter() - start
        answer: dict = {"seconds": seconds, "quiet_s": _become_quiet(), "peak_rss_bytes": peak_rss_bytes()}
        if give_logits and output is not None:
            answer["logits"] = np.asarray(output)
        connection.send(("done", answer))


def _become_quiet() -> float:
    """Wait until this process's threads stop using the CPU, so that the next worker has the machine; seconds waited."""
    start = time.perf_counter()
    while time.perf_counter() - start < QUIET_LIMIT_S:
        used = time.process_time()
        time.sleep(QUIET_STEP_S)
        if time.process_time() - used < QUIET_CPU_S:
            break
    return time.perf_counter() - start
