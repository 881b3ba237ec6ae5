"""Numbers as words of a summary."""

REMOVED = "FFN neurons removed, %"


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as a percentage, "n/a" where there is none."""
    return "n/a" if share is None else f"{100 * share:.{digits}f} %"


def interval(bounds: tuple[float, float] | None) -> str:
    """A pair of fractions as percentages."""
    return "n/a" if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f} %"


def counted(count: int, noun: str) -> str:
    """A number and its noun, in the plural where it must be."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def of_all(count: int, total: int) -> str:
    """`12 of 48 (25.0 %)`."""
    return f"{count:,} of {total:,} ({percent(count / total)})"


def shortened(text: str, length: int = 48) -> str:
    """The beginning of a text, cut at `length` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
