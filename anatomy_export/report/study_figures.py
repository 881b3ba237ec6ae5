"""The paper's experiment: accuracy and seconds against neurons removed, thresholds, setups (figures 4–5a)."""

from collections.abc import Sequence
from statistics import fmean

from anatomy_export.report.figure import Figure, Panel, Row, Series, TextTable
from anatomy_export.report.sources import Seconds, Setup, Study
from anatomy_export.report.wording import counted, interval, percent

REMOVED = "FFN neurons removed, %"
RULES = {"bert": "BERT", "gpt2": "GPT-2"}
WITHIN_POINTS = 1.0


def study_figures(study: Study) -> list[Figure]:
    """Figures 4 or 5, 4-1 or 5-1 (where anything was timed), 4a, and table 5a; none where nothing was measured yet."""
    if not study.setups:
        return []
    found = [_accuracy(study), _seconds(study), _thresholds(study), _setups(study)]
    return [figure for figure in found if figure]


def _accuracy(study: Study) -> Figure | None:
    anatomy, random = study.measured("anatomy"), study.measured("random")
    if not anatomy and not random:
        return None
    furthest = max(one.removed_share for one in (*anatomy, *random))
    low, high = (100 * bound for bound in study.dense_interval)
    dense, end = 100 * study.dense_accuracy, 100 * furthest
    series = [
        Series(
            "95 % interval of the dense model", [0, end, end, 0], [low, low, high, high], 2, "band", in_legend=False
        ),
        Series(f"dense, {dense:.1f} %", [0, end], [dense, dense], style=2, draw="line"),
        *_random_series(random),
        Series(
            "anatomy",
            [100 * one.removed_share for one in anatomy],
            [100 * one.accuracy for one in anatomy],
            style=0,
            hover=tuple(_setup_hover(one) for one in anatomy),
            interval=(
                [100 * one.interval[0] for one in anatomy],
                [100 * one.interval[1] for one in anatomy],
            ),
            mark_size=9,
        ),
    ]
    return Figure(
        topic="Accuracy against neurons removed",
        number="5" if study.score.rule == "gpt2" else "4",
        title="Accuracy against neurons removed",
        source=study.label,
        parts=(
            Panel(tuple(one for one in series if one.x), REMOVED, "accuracy on test, %", height=430, comparable=True),
        ),
        summary=_accuracy_summary(study, anatomy, random),
        notes=_notes(study),
    )


def _random_series(random: Sequence[Setup]) -> list[Series]:
    """Every seed as an outline, and a line through the mean of the seeds that go with one setup or share."""
    together: dict[tuple, list[Setup]] = {}
    for one in random:
        together.setdefault((one.matches, one.share), []).append(one)
    groups = [(fmean(100 * one.removed_share for one in own), own) for own in together.values()]
    means = sorted(groups, key=lambda group: group[0])
    hover = tuple(
        f"random, mean of {counted(len(own), 'seed')}\nremoved {own[0].removed:,} ({share:.1f} %)\n"
        f"accuracy {100 * fmean(one.accuracy for one in own):.2f} %"
        for share, own in means
    )
    seeds = Series(
        "random, each seed",
        [100 * one.removed_share for one in random],
        [100 * one.accuracy for one in random],
        style=1,
        draw="marks",
        hover=tuple(_setup_hover(one) for one in random),
        open_marks=True,
        mark_size=6,
    )
    mean = Series(
        "random, mean",
        [share for share, _ in means],
        [100 * fmean(one.accuracy for one in own) for _, own in means],
        style=1,
        hover=hover,
    )
    return [seeds, mean]


def _setup_hover(one: Setup) -> str:
    seed = f", seed {one.seed}" if one.seed is not None else ""
    return (
        f"{one.name}{_parameters(one)}{seed}\nremoved {one.removed:,} ({percent(one.removed_share)})\n"
        f"accuracy {percent(one.accuracy, 2)} ({interval(one.interval)})\nagreement {percent(one.agreement)}"
    )


def _parameters(one: Setup) -> str:
    given = [f"{name} {value:g}" for name, value in (("α", one.alpha), ("β", one.beta)) if value is not None]
    return ": " + ", ".join(given) if given else ""


def _accuracy_summary(study: Study, anatomy: Sequence[Setup], random: Sequence[Setup]) -> str:
    dense = study.dense_accuracy
    parts = [
        f"The dense model is right on {percent(dense)} ({interval(study.dense_interval)}) of {study.examples:,} texts."
    ]
    near = [one for one in anatomy if 100 * (dense - one.accuracy) <= WITHIN_POINTS]
    if near:
        most = max(near, key=lambda one: one.removed)
        parts.append(
            f"Within {WITHIN_POINTS:g} point of it, anatomy removes most by {most.name}: "
            f"{most.removed:,} neurons ({percent(most.removed_share)}) at {percent(most.accuracy)}."
        )
    elif anatomy:
        best = max(anatomy, key=lambda one: one.accuracy)
        parts.append(
            f"No setup stays within {WITHIN_POINTS:g} point of it; the best is {best.name} at {percent(best.accuracy)}."
        )
    gains = [
        100 * (one.accuracy - fmean(rival.accuracy for rival in rivals))
        for one in anatomy
        if (rivals := [other for other in random if other.matches == one.name])
    ]
    if gains:
        parts.append(
            f"Against as many neurons removed at random, anatomy is ahead in {sum(gain > 0 for gain in gains)} of "
            f"{counted(len(gains), 'setup')}, by {fmean(gains):+.1f} points on average "
            f"({min(gains):+.1f} to {max(gains):+.1f})."
        )
    return " ".join(parts)


def _notes(study: Study) -> tuple[str, ...]:
    notes = []
    if study.partial:
        notes.append("Partial: the study was interrupted, and shows what was done until then.")
    notes += [
        f"No figures for {one.name}: {one.refused.split('; next step')[0]}."
        for one in study.setups
        if one.refused is not None
    ]
    return tuple(notes)


def _seconds(study: Study) -> Figure | None:
    timed = [one for kind in ("anatomy", "random") for one in study.measured(kind) if one.seconds]
    if not timed:
        return None
    series, dense = [], study.dense_seconds
    for style, kind in enumerate(("anatomy", "random")):
        own = [one for one in study.measured(kind) if one.seconds]
        if own:
            series.append(
                _seconds_series(
                    kind, style, [(one.name, one.removed_share, one.removed, one.seconds) for one in own], dense
                )
            )
    furthest = 100 * max(one.removed_share for one in timed)
    if dense:
        series.insert(0, _seconds_series("dense", 2, [("dense", 0.0, 0, dense)], None))
        series.append(Series("", [0, furthest], [dense.median_s] * 2, 2, "line", in_legend=False))
    first = timed[0].seconds
    assert first is not None
    return Figure(
        topic="Seconds against neurons removed",
        number="5-1" if study.score.rule == "gpt2" else "4-1",
        title=f"Seconds for {first.examples:,} examples",
        source=study.label,
        parts=(Panel(tuple(series), REMOVED, f"seconds for {first.examples:,} examples", comparable=True),),
        summary=_seconds_summary(timed, dense),
        notes=(
            f"Masked models of full size, by {first.engine}" + (f" on {first.device}." if first.device else "."),
            *(["Seconds are the dense model's ÷ the ratio of both in the same rounds."] if dense else []),
        ),
    )


def _seconds_series(
    label: str, style: int, points: list[tuple[str, float, int, Seconds | None]], dense: Seconds | None
) -> Series:
    seconds = [(name, share, removed, own, own.beside(dense)) for name, share, removed, own in points if own]
    return Series(
        label,
        [100 * share for _, share, *_ in seconds],
        [value for *_, (value, _, _) in seconds],
        style=style,
        hover=tuple(
            f"{name}\nremoved {removed:,} ({percent(share)})\n{value:.2f} s{_against_dense(own)}"
            for name, share, removed, own, (value, _, _) in seconds
        ),
        interval=([low for *_, (_, low, _) in seconds], [high for *_, (_, _, high) in seconds]),
    )


def _against_dense(own: Seconds) -> str:
    if own.dense_ratio is None:
        return ""
    bounds = own.dense_ratio_interval
    return f"\n{own.dense_ratio:.3f} × dense" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


def _seconds_summary(timed: Sequence[Setup], dense: Seconds | None) -> str:
    values = [one.seconds.beside(dense)[0] for one in timed if one.seconds]
    text = f"{counted(len(values), 'masked model')} took {min(values):.2f} to {max(values):.2f} s"
    text += f", the dense one {dense.median_s:.2f} s." if dense else "."
    ratios = [one.seconds.dense_ratio for one in timed if one.seconds and one.seconds.dense_ratio]
    if ratios:
        text += f" Dense time ÷ masked time lies between {min(ratios):.3f} and {max(ratios):.3f}"
        text += " (above 1: masking is faster)."
    return text


def _thresholds(study: Study) -> Figure | None:
    own = [one for one in study.setups if one.thresholds]
    if not own:
        return None
    layers = list(range(len(study.score.widths)))
    ticks = tuple(str(layer) for layer in layers)
    removed, thresholds = [], []
    for style, one in enumerate(own):
        bounds = one.thresholds or ()
        hover = tuple(
            f"{one.name}, layer {layer}\nthreshold {bounds[layer][0]:.5f} ({bounds[layer][1]})\n"
            f"removed {one.removed_per_layer[layer]:,} of {study.score.widths[layer]:,}"
            for layer in layers
        )
        removed.append(Series(one.name, layers, list(one.removed_per_layer), style, hover=hover))
        thresholds.append(Series(one.name, layers, [value for value, _ in bounds], style, hover=hover))
    return Figure(
        topic="Thresholds and neurons removed, by layer",
        number="4a",
        title="Thresholds and neurons removed, by layer",
        source=study.label,
        parts=(
            Panel(tuple(removed), "layer", "neurons removed", x_ticks=ticks),
            Panel(tuple(thresholds), "layer", "threshold of similarity", x_ticks=ticks),
        ),
        summary=_thresholds_summary(study, own),
    )


def _thresholds_summary(study: Study, own: Sequence[Setup]) -> str:
    parts = []
    for one in (own[0], own[-1])[: len(own)]:
        shares = [count / width for count, width in zip(one.removed_per_layer, study.score.widths, strict=True)]
        top, bottom = shares.index(max(shares)), shares.index(min(shares))
        parts.append(
            f"{one.name} removes most in layer {top} ({percent(shares[top])} of it) and least in layer {bottom} "
            f"({percent(shares[bottom])})."
        )
    return " ".join(parts)


def _setups(study: Study) -> Figure | None:
    own = [one for one in study.setups if one.kind == "anatomy"]
    if not own:
        return None
    rows = tuple(Row(_setup_cells(one, study)) for one in own)
    headings = ("setup", "α", "β", "focus layers", "removed", "accuracy", "random", "same class as dense")
    return Figure(
        topic="Setups",
        number="5a",
        title="Setups",
        source=study.label,
        parts=(TextTable(headings, rows, numeric=frozenset((1, 2, 4, 5, 6, 7))),),
        summary=(
            f"{counted(len(own), 'setup')} of the rule for {RULES[study.score.rule]}. Accuracy with its 95 % interval "
            f"on {study.examples:,} texts; random is the mean over the seeds at the same number of neurons."
        ),
        notes=_notes(study),
    )


def _setup_cells(one: Setup, study: Study) -> tuple[str, ...]:
    asked = (
        one.name,
        "–" if one.alpha is None else f"{one.alpha:g}",
        "–" if one.beta is None or study.score.rule == "gpt2" else f"{one.beta:g}",
        ", ".join(map(str, one.focus)) or "–",
    )
    if one.refused is not None:
        return (*asked, "refused", "–", "–", "–")
    rivals = [other.accuracy for other in study.measured("random") if other.matches == one.name]
    return (
        *asked,
        f"{one.removed:,} ({percent(one.removed_share)})",
        f"{percent(one.accuracy)} ({interval(one.interval)})",
        percent(fmean(rivals)) if rivals else "–",
        percent(one.agreement),
    )
