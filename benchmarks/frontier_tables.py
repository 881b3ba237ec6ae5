"""Tables of the accuracy frontier from frontier-<model>.json: drops, agreement, bars; paired by sentence."""

from collections import Counter
from collections.abc import Callable

from cells import BAR_HEADINGS, Bar, interval, load, percent, yes
from summarize import DEFAULT, LEVELS

from anatomy_export.bench.tables import markdown_table
from anatomy_export.criteria.registry import CRITERIA
from anatomy_export.planning.allocation import SENSITIVITY, UNIFORM

DROP_BARS = {"bert": {0.5: 0.3, 0.7: 0.5, 0.85: 1.5, 0.95: 4.0}, "gpt2": {0.85: 0.3}}
MARGIN = 0.5
LEAST_TO_LOSE = 3.0
WIDTHS = {UNIFORM: "equal widths", SENSITIVITY: "the default's widths"}


def default_way(frontier: dict, level: float) -> dict | None:
    """What was measured of the default way at a share removed."""
    return frontier["ways"].get(f"{DEFAULT}/{level:g}")


def frontier_section(model: str) -> str:
    frontier = load(f"frontier-{model}")
    settings, accuracy = frontier["settings"], percent(frontier["dense_accuracy"], 2)
    plain, repaired = (seeds_of(frontier, repair) for repair in ("none", "auto"))
    criteria = list(dict.fromkeys(way.split("/")[0] for way in frontier["ways"]))
    return f"""## The accuracy frontier, {model}

`benchmarks/frontier.py --model {model}`: {frontier["texts"]:,} test sentences, dense accuracy
{accuracy}, {settings["examples"]:,} calibration sentences from train, widths to a multiple
of {settings["align"]}. Nothing was chosen on these sentences. Drops are points of accuracy below the dense model, means
over the calibration seeds, with 95 % intervals over sentences, paired with the dense model. No optimiser step anywhere.
Repair was fitted to {settings["fitted_to"]}. Model {settings["model"][:8]} (its fingerprint's beginning): trained on
another CPU it gets other weights.

The default way (`--criterion obs-gradient --allocate sensitivity --compensate auto --align {settings["align"]}`):

{default_table(frontier)}

Criteria{run_so_far(frontier)}, equal widths in every layer, without repair ({plain}) and in brackets
with `--compensate auto` ({repaired}): drop in points at each share removed.

{criteria_table(frontier, criteria, lambda way: f"{way['drop'][0]:.2f}")}

Their agreement with the dense model, %:

{criteria_table(frontier, criteria, lambda way: f"{100 * way['agreement']:.1f}")}

Their mean change of probability, points:

{criteria_table(frontier, criteria, lambda way: f"{100 * way['probability_change']:.2f}")}

{discrimination(frontier)}
{markdown_table(BAR_HEADINGS, frontier_bars(model))}
Not worse: the 95 % interval lies above −{MARGIN:g} points. Better: it lies above 0. Without repair:
{unrepaired_ways(frontier)}.
"""


def default_table(frontier: dict) -> str:
    rows = [
        (
            percent(level),
            str(way["seeds"]),
            interval(*way["drop"]),
            f"{100 * way['agreement']:.1f}",
            f"{100 * way['probability_change']:.2f}",
        )
        for level in LEVELS
        if (way := default_way(frontier, level)) is not None
    ]
    return markdown_table(
        ("removed", "seeds", "drop, points", "agreement, %", "mean change of probability, points"), rows
    )


def second_training_section() -> str:
    """The default way on the embedded BERT as another CPU trains it."""
    frontier = load("second-training")
    return f"""## The default way on a second training of bert

The same recipe gives other weights on a CPU with AVX-512 (model {frontier["settings"]["model"][:8]}, dense accuracy
{100 * frontier["dense_accuracy"]:.2f} %). `benchmarks/frontier.py --model bert --criteria obs-gradient
--allocate sensitivity --compensate auto`, all else as above; nothing was chosen on it.

{default_table(frontier)}
"""


def discrimination(frontier: dict) -> str:
    """How much there is to lose: what random removal costs, without and with repair."""
    ways = [frontier["ways"].get(f"random/uniform/{repair}/0.85") for repair in ("none", "auto")]
    if not all(ways):
        return ""
    plain, repaired = (way["drop"][0] for way in ways)
    verdict = "" if plain > LEAST_TO_LOSE else " Its FFN carries little, so that it discriminates badly between ways."
    return f"Random removal of 85 % costs {plain:.2f} points, with repair {repaired:.2f}.{verdict}\n"


def run_so_far(frontier: dict) -> str:
    criteria = {way.split("/")[0] for way in frontier["ways"] if "/uniform/" in way}
    return "" if len(criteria) == len(CRITERIA) else f" run so far ({len(criteria)} of {len(CRITERIA)})"


def criteria_table(frontier: dict, criteria: list[str], shown: Callable[[dict], str]) -> str:
    """A row a criterion: at each level without repair, and in brackets with."""

    def cell(way: str) -> str:
        if way in frontier["ways"]:
            return shown(frontier["ways"][way])
        return "refused" if way in frontier["refused"] else "–"

    rows = [
        (
            criterion,
            *(
                "{} ({})".format(*(cell(f"{criterion}/{UNIFORM}/{repair}/{level:g}") for repair in ("none", "auto")))
                for level in LEVELS
            ),
        )
        for criterion in criteria
    ]
    return markdown_table(("criterion", *map(percent, LEVELS)), rows)


def seeds_of(frontier: dict, repair: str) -> str:
    """How many calibration seeds the ways at equal widths have."""
    counts = sorted({way["seeds"] for name, way in frontier["ways"].items() if f"/{UNIFORM}/{repair}/" in name})
    return f"{' or '.join(map(str, counts))} seed{'' if counts == [1] else 's'}"


def unrepaired_ways(frontier: dict) -> str:
    """Allocations that were run without repair, and how many criteria each."""
    counts = Counter(
        allocate
        for criterion, allocate in {tuple(way.split("/")[:2]) for way in frontier["ways"] if "/none/" in way}
        if criterion in CRITERIA
    )
    return ", ".join(f"{count} criteria with `--allocate {allocate}`" for allocate, count in sorted(counts.items()))


def frontier_bars(model: str) -> list[Bar]:
    """What was asked of the default way and of repair, what was measured, and whether it was met."""
    frontier = load(f"frontier-{model}")
    rows = []
    for level, asked in DROP_BARS[model].items():
        if way := default_way(frontier, level):
            bar = f"drop of the default at {percent(level)} removed"
            rows.append((bar, f"≤ {asked} points", interval(*way["drop"]), yes(way["drop"][0] <= asked)))
    for name, comparison in frontier["default_against_unrepaired"].items():
        rows.append(against_unrepaired(frontier, name, comparison))
    if model == "bert" and (gain := frontier.get("anatomy_repair_gain")):
        rows.append(("anatomy with repair against without, at 70 %", "≥ +3 points", interval(*gain), yes(gain[0] >= 3)))
    return rows + never_worse(frontier["repair_gains"])


def against_unrepaired(frontier: dict, name: str, comparison: dict) -> Bar:
    """The default against the best way without repair: not worse where little is pruned, better where much is."""
    allocate, level = name.split("/")
    gain, half = comparison["gain"]
    criterion, better = comparison["best"].split("/")[0], float(level) >= 0.7
    return (
        f"default against the best without repair, {WIDTHS[allocate]} ({criterion}), at {percent(float(level))}",
        "better" if better else "not worse",
        f"{interval(gain, half)}, agreement {interval(*comparison['agreement'])}",
        yes(gain - half > 0) + nothing_to_win(frontier["ways"][comparison["best"]]) if better else no_worse(gain, half),
    )


def no_worse(gain: float, half: float) -> str:
    """An interval that reaches from below the margin to above 0 shows neither."""
    return "**not shown**" if gain - half <= -MARGIN and gain + half >= 0 else yes(gain - half > -MARGIN)


def nothing_to_win(best: dict) -> str:
    """Where the best way's own drop is within its noise, no way could be shown to be better."""
    drop, half = best["drop"]
    return f": none could be, the best loses {interval(drop, half)}" if drop - half <= 0 else ""


def never_worse(gains: dict[str, list[float]]) -> list[Bar]:
    """Repair chosen on held-out text against none, over every criterion and level; the largest loss of all is shown."""
    if not gains:
        return []
    worst = min(gains, key=lambda way: gains[way][0])
    beyond = sum(gain + half < 0 for gain, half in gains.values())
    criterion, allocate, _, level = worst.split("/")
    way = criterion if allocate == UNIFORM else f"{criterion}, {allocate}"
    row = (
        f"repair against none: of {len(gains)} ways {beyond} lose more than the noise; the largest loss is "
        f"{way} at {percent(float(level))}",
        "loses no more than the noise",
        interval(*gains[worst]),
        yes(beyond == 0),
    )
    return [row]
