"""The boundary of every command: errors become one line on standard error and an exit code.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 a provider is not really there, 130 and 143 interrupted.
"""

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import click
import cloup

from anatomy_export.core.errors import AnatomyError, Interrupted, MissingExtraError, Terminated, first_line
from anatomy_export.core.platform import keep_to_quota, signal_later

_OF_CPU = ("accelerate", "datasets", "onnxruntime", "onnxscript", "psutil", "scipy", "torch", "transformers")
EXTRA_OF_PACKAGE = {
    **dict.fromkeys(_OF_CPU, "cpu"),
    **dict.fromkeys(("matplotlib", "plotly"), "report"),
    **dict.fromkeys(("pandas", "pyarrow"), "data"),
    "openvino": "openvino",
    "optimum": "optimum",
    "tokenizers": "edge",
}
RETRY_S = 0.01
INTERRUPTED, TERMINATED = 130, 143
SETTINGS = cloup.Context.settings(help_option_names=["-h", "--help"], show_default=True, max_content_width=100)


class _Guarded(click.Command):
    def main(self, *args, **kwargs):
        _guard(partial(super().main, *args, **{**kwargs, "standalone_mode": False}))


class ScriptCommand(_Guarded, cloup.Command):
    """A command that is a console script of its own, behind the boundary."""


class ScriptGroup(_Guarded, cloup.Group):
    """A command with subcommands that is a console script of its own, behind the boundary."""


script = partial(cloup.command, cls=ScriptCommand, context_settings=SETTINGS)
script_group = partial(cloup.group, cls=ScriptGroup, context_settings=SETTINGS)


@contextmanager
def kept_in(output: Path) -> Iterator[None]:
    """An interruption ends the command with its exit code, and says that the work so far is kept in `output`."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as interruption:
        click.echo(f"interrupted; the same command goes on from what {output} holds", err=True)
        sys.exit(TERMINATED if isinstance(interruption, Terminated) else INTERRUPTED)


def _guard(work: Callable[[], object]):
    sys.unraisablehook = _on_ignored
    signal.signal(signal.SIGTERM, _on_signal)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_signal)
    _print_whatever_comes()
    keep_to_quota()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        work()
    except AnatomyError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; nothing was written", INTERRUPTED)
    except Terminated:
        _fail("terminated; nothing was written", TERMINATED)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        what = f"{error.strerror or error}{where}"
        _fail(f"{what}; nothing was written; next step: check the path and the free space", 1)
    except Exception as error:
        _fail(_unexpected(error), 1)
    sys.exit(0)


def _fail(message: str, code: int):
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(code)


def _unexpected(error: Exception) -> str:
    """One line for what no stage foresaw; the traceback comes before it with ANATOMY_DEBUG=1."""
    package = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in EXTRA_OF_PACKAGE and find_spec(package) is None:
        return str(MissingExtraError(package, EXTRA_OF_PACKAGE[package]))
    if os.environ.get("ANATOMY_DEBUG") == "1":
        traceback.print_exception(error)
    message = first_line(error)
    name = type(error).__name__
    what = name if message == name else f"{name}: {message}"
    return f"unexpected {what}; nothing was written; next step: set ANATOMY_DEBUG=1 to see the traceback"


def _print_whatever_comes() -> None:
    """A character that the terminal's encoding lacks (a path's, a "→") is printed as its escape, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _on_signal(number, frame):
    """Raise what unwinds the work; a moment later where Python would ignore what is raised now."""
    if _in_callback(frame) and signal_later(number, RETRY_S):
        return
    raise Terminated if number == signal.SIGTERM else Interrupted


def _on_ignored(ignored) -> None:
    """What Python ignores is reported as ever, but an interruption is not lost."""
    interruption = isinstance(ignored.exc_value, Interrupted | Terminated)
    number = signal.SIGTERM if isinstance(ignored.exc_value, Terminated) else signal.SIGINT
    if not interruption or not signal_later(number, RETRY_S):
        sys.__unraisablehook__(ignored)


def _in_callback(frame) -> bool:
    """Is a finalizer or a weak reference's callback (import locks have one) among the callers?"""
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "cb"):
            return True
        frame = frame.f_back
    return False
