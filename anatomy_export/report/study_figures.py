"""The paper's experiment: accuracy and seconds against neurons removed, thresholds, setups (figures 4–5a)."""

from collections.abc import Sequence
from statistics import fmean

from anatomy_export.report.figure import Figure, Panel, Row, Series, TextTable
from anatomy_export.report.sources import MeasuredSetup, Seconds, Setup, Study
from anatomy_export.report.wording import REMOVED, counted, interval, percent

RULES = {"bert": "BERT", "gpt2": "GPT-2"}
WITHIN_POINTS = 1.0


def study_figures(study: Study) -> list[Figure]:
    """Figures 4 or 5, 4-1 or 5-1 (where anything was timed), 4a, and table 5a; none where nothing was measured yet."""
    figures = [_accuracy(study), _seconds(study), _thresholds(study), _setups(study)]
    return [figure for figure in figures if figure]


def _accuracy(study: Study) -> Figure | None:
    anatomy, random = study.measured("anatomy"), study.measured("random")
    if not anatomy and not random:
        return None
    low, high = (100 * bound for bound in study.dense.interval)
    dense, end = 100 * study.dense.accuracy, 100 * max(setup.removed_share for setup in (*anatomy, *random))
    series = [
        Series(
            "95 % interval of the dense model", [0, end, end, 0], [low, low, high, high], 2, "band", in_legend=False
        ),
        Series(f"dense, {dense:.1f} %", [0, end], [dense, dense], style=2, draw="line"),
        *_random_series(random),
        Series(
            "anatomy",
            [100 * setup.removed_share for setup in anatomy],
            [100 * setup.accuracy for setup in anatomy],
            hover=tuple(map(_setup_hover, anatomy)),
            interval=([100 * setup.interval[0] for setup in anatomy], [100 * setup.interval[1] for setup in anatomy]),
            mark_size=9,
        ),
    ]
    drawn = tuple(line for line in series if line.x)
    return Figure(
        topic="Accuracy against neurons removed",
        number="5" if study.score.rule == "gpt2" else "4",
        source=study.label,
        parts=(Panel(drawn, REMOVED, "accuracy on test, %", height=430, comparable=True),),
        summary=_accuracy_summary(study, anatomy),
        notes=_notes(study),
    )


def _random_series(random: Sequence[MeasuredSetup]) -> list[Series]:
    """Every seed as an outline, and a line through the mean of the seeds that go with one setup or share."""
    together: dict[tuple, list[MeasuredSetup]] = {}
    for setup in random:
        together.setdefault((setup.matches, setup.share), []).append(setup)
    means = [
        (fmean(100 * seed.removed_share for seed in seeds), 100 * fmean(seed.accuracy for seed in seeds), seeds)
        for seeds in together.values()
    ]
    means.sort(key=lambda mean: mean[0])
    hover = tuple(
        f"random, mean of {counted(len(seeds), 'seed')}\nremoved {seeds[0].removed:,} ({share:.1f} %)\n"
        f"accuracy {accuracy:.2f} %"
        for share, accuracy, seeds in means
    )
    return [
        Series(
            "random, each seed",
            [100 * setup.removed_share for setup in random],
            [100 * setup.accuracy for setup in random],
            style=1,
            draw="marks",
            hover=tuple(map(_setup_hover, random)),
            open_marks=True,
            mark_size=6,
        ),
        Series("random, mean", [share for share, *_ in means], [mean for _, mean, _ in means], style=1, hover=hover),
    ]


def _setup_hover(setup: MeasuredSetup) -> str:
    given = [f"{name} {value:g}" for name, value in (("α", setup.alpha), ("β", setup.beta)) if value is not None]
    parameters = ": " + ", ".join(given) if given else ""
    seed = f", seed {setup.seed}" if setup.seed is not None else ""
    return (
        f"{setup.name}{parameters}{seed}\nremoved {_removed(setup)}\n"
        f"accuracy {percent(setup.accuracy, 2)} ({interval(setup.interval)})\nagreement {percent(setup.agreement)}"
    )


def _removed(setup: MeasuredSetup) -> str:
    return f"{setup.removed:,} ({percent(setup.removed_share)})"


def _accuracy_summary(study: Study, anatomy: Sequence[MeasuredSetup]) -> str:
    dense = study.dense
    parts = [
        f"The dense model is right on {percent(dense.accuracy)} ({interval(dense.interval)}) of "
        f"{dense.examples:,} texts."
    ]
    near = [setup for setup in anatomy if 100 * (dense.accuracy - setup.accuracy) <= WITHIN_POINTS]
    if near:
        most = max(near, key=lambda setup: setup.removed)
        parts.append(
            f"Within {WITHIN_POINTS:g} point of it, anatomy removes most by {most.name}: "
            f"{most.removed:,} neurons ({percent(most.removed_share)}) at {percent(most.accuracy)}."
        )
    elif anatomy:
        best = max(anatomy, key=lambda setup: setup.accuracy)
        parts.append(
            f"No setup stays within {WITHIN_POINTS:g} point of it; the best is {best.name} at {percent(best.accuracy)}."
        )
    gains = [
        100 * (setup.accuracy - fmean(rival.accuracy for rival in rivals))
        for setup in anatomy
        if (rivals := study.rivals(setup))
    ]
    if gains:
        parts.append(
            f"Against as many neurons removed at random, anatomy is ahead in {sum(gain > 0 for gain in gains)} of "
            f"{counted(len(gains), 'setup')}, by {fmean(gains):+.1f} points on average "
            f"({min(gains):+.1f} to {max(gains):+.1f})."
        )
    return " ".join(parts)


def _notes(study: Study) -> tuple[str, ...]:
    partial = ["Partial: the study was interrupted, and shows what was done until then."] * study.partial
    refused = [
        f"No figures for {setup.name}: {setup.refused.split('; next step')[0]}."
        for setup in study.setups
        if setup.refused is not None
    ]
    return (*partial, *refused)


def _seconds(study: Study) -> Figure | None:
    dense = study.dense.seconds
    timed = {
        kind: [(setup, setup.seconds) for setup in study.measured(kind) if setup.seconds]
        for kind in ("anatomy", "random")
    }
    every = [pair for pairs in timed.values() for pair in pairs]
    if not every:
        return None
    series = [_seconds_series(kind, style, pairs, dense) for style, (kind, pairs) in enumerate(timed.items()) if pairs]
    if dense:
        end = 100 * max(setup.removed_share for setup, _ in every)
        value, low, high = dense.beside(None)
        hover = f"dense\nremoved 0 (0.0 %)\n{value:.2f} s{_against_dense(dense)}"
        series.insert(0, Series("dense", [0.0], [value], style=2, hover=(hover,), interval=([low], [high])))
        series.append(Series("", [0, end], [dense.median_s] * 2, 2, "line", in_legend=False))
    first = every[0][1]
    title = f"Seconds for {first.examples:,} examples"
    return Figure(
        topic="Seconds against neurons removed",
        number="5-1" if study.score.rule == "gpt2" else "4-1",
        own_title=title,
        source=study.label,
        parts=(Panel(tuple(series), REMOVED, title.lower(), comparable=True),),
        summary=_seconds_summary([seconds for _, seconds in every], dense),
        notes=(
            f"Masked models of full size, by {first.engine}" + (f" on {first.device}." if first.device else "."),
            *(["Seconds are the dense model's ÷ the ratio of both in the same rounds."] if dense else []),
        ),
    )


def _seconds_series(
    label: str, style: int, timed: Sequence[tuple[MeasuredSetup, Seconds]], dense: Seconds | None
) -> Series:
    beside = [seconds.beside(dense) for _, seconds in timed]
    return Series(
        label,
        [100 * setup.removed_share for setup, _ in timed],
        [value for value, _, _ in beside],
        style=style,
        hover=tuple(
            f"{setup.name}\nremoved {_removed(setup)}\n{value:.2f} s{_against_dense(seconds)}"
            for (setup, seconds), (value, _, _) in zip(timed, beside, strict=True)
        ),
        interval=([low for _, low, _ in beside], [high for _, _, high in beside]),
    )


def _against_dense(seconds: Seconds) -> str:
    if seconds.dense_ratio is None:
        return ""
    bounds = seconds.dense_ratio_interval
    return f"\n{seconds.dense_ratio:.3f} × dense" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


def _seconds_summary(timed: Sequence[Seconds], dense: Seconds | None) -> str:
    values = [seconds.beside(dense)[0] for seconds in timed]
    text = f"{counted(len(values), 'masked model')} took {min(values):.2f} to {max(values):.2f} s"
    text += f", the dense one {dense.median_s:.2f} s." if dense else "."
    ratios = [seconds.dense_ratio for seconds in timed if seconds.dense_ratio]
    if ratios:
        text += f" Dense time ÷ masked time lies between {min(ratios):.3f} and {max(ratios):.3f}"
        text += " (above 1: masking is faster)."
    return text


def _thresholds(study: Study) -> Figure | None:
    setups = [setup for setup in study.setups if isinstance(setup, MeasuredSetup) and setup.thresholds]
    if not setups:
        return None
    layers = list(range(len(study.score.widths)))
    removed, thresholds = [], []
    for style, setup in enumerate(setups):
        bounds = setup.thresholds or ()
        hover = tuple(
            f"{setup.name}, layer {layer}\nthreshold {bounds[layer].value:.5f} ({bounds[layer].rule})\n"
            f"removed {setup.removed_per_layer[layer]:,} of {study.score.widths[layer]:,}"
            for layer in layers
        )
        removed.append(Series(setup.name, layers, setup.removed_per_layer, style, hover=hover))
        thresholds.append(Series(setup.name, layers, [bound.value for bound in bounds], style, hover=hover))
    ticks = tuple(map(str, layers))
    return Figure(
        topic="Thresholds and neurons removed, by layer",
        number="4a",
        source=study.label,
        parts=(
            Panel(tuple(removed), "layer", "neurons removed", x_ticks=ticks),
            Panel(tuple(thresholds), "layer", "threshold of similarity", x_ticks=ticks),
        ),
        summary=" ".join(_most_and_least(setup, study) for setup in dict.fromkeys((setups[0], setups[-1]))),
    )


def _most_and_least(setup: MeasuredSetup, study: Study) -> str:
    shares = [count / width for count, width in zip(setup.removed_per_layer, study.score.widths, strict=True)]
    top, bottom = shares.index(max(shares)), shares.index(min(shares))
    return (
        f"{setup.name} removes most in layer {top} ({percent(shares[top])} of it) and least in layer {bottom} "
        f"({percent(shares[bottom])})."
    )


def _setups(study: Study) -> Figure | None:
    setups = [setup for setup in study.setups if setup.kind == "anatomy"]
    if not setups:
        return None
    rows = tuple(Row(_setup_cells(setup, study)) for setup in setups)
    headings = ("setup", "α", "β", "focus layers", "removed", "accuracy", "random", "same class as dense")
    return Figure(
        topic="Setups",
        number="5a",
        source=study.label,
        parts=(TextTable(headings, rows, numeric=frozenset((1, 2, 4, 5, 6, 7))),),
        summary=(
            f"{counted(len(setups), 'setup')} of the rule for {RULES[study.score.rule]}. Accuracy with its 95 % "
            f"interval on {study.dense.examples:,} texts; random is the mean over the seeds at the same number of "
            "neurons."
        ),
        notes=_notes(study),
    )


def _setup_cells(setup: Setup, study: Study) -> tuple[str, ...]:
    asked = (
        setup.name,
        "–" if setup.alpha is None else f"{setup.alpha:g}",
        "–" if setup.beta is None or study.score.rule == "gpt2" else f"{setup.beta:g}",
        ", ".join(map(str, setup.focus or ())) or "–",
    )
    if not isinstance(setup, MeasuredSetup):
        return (*asked, "refused", "–", "–", "–")
    rivals = [rival.accuracy for rival in study.rivals(setup)]
    return (
        *asked,
        _removed(setup),
        f"{percent(setup.accuracy)} ({interval(setup.interval)})",
        percent(fmean(rivals)) if rivals else "–",
        percent(setup.agreement),
    )
