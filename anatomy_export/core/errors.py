"""The exceptions that a user may see: one line that says what, where, got, expected, next step."""


class AnatomyError(Exception):
    """The work failed or was refused. `exit_code` is what the command line exits with."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that says something, else the exception's type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class VerifyError(AnatomyError):
    """An exported model does not compute what it should; lists every comparison that failed."""


class MissingExtraError(AnatomyError):
    """A package that belongs to an extra is not installed."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"{package} is not installed; next step: in this toolkit's clone, pip install '.[{extra}]'")


class ProviderError(AnatomyError):
    """A requested execution provider is missing, did not start, or does not run what it should."""

    exit_code = 3


class Interrupted(KeyboardInterrupt):
    """SIGINT arrived. Not plain KeyboardInterrupt: once that has passed through an `exec`, as imports do, CPython ends
    the process by the signal, whatever exit code was asked for."""


class Terminated(BaseException):
    """SIGTERM arrived; unwinds like Ctrl-C, so that nothing half-written stays."""
