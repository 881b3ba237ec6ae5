"""Arguments that mean nothing are refused by name, wherever a plan is asked for."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

from anatomy_export.core.errors import AnatomyError


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise AnatomyError unless `value` is one of `choices`."""
    if value not in choices:
        raise AnatomyError(f"{name} is {value!r}, expected one of {', '.join(choices)}; next step: pass one of these")


def check_whole(name: str, value: object, least: int) -> None:
    """Raise AnatomyError unless `value` is a whole number of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise AnatomyError(
            f"{name} is {value!r}, expected a whole number of at least {least}; next step: pass such a number"
        )


def check_finite(name: str, value: object) -> None:
    """Raise AnatomyError unless `value` is a finite number."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(float(value)):
        raise AnatomyError(f"{name} is {value!r}, expected a finite number; next step: pass one")


def check_share(name: str, value: object) -> None:
    """Raise AnatomyError unless `value` is a number of more than 0 and at most 1."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) <= 1:
        raise AnatomyError(f"{name} is {value!r}, expected more than 0 and at most 1; next step: pass such a number")
