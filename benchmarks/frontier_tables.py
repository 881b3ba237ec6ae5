"""Tables of the accuracy frontier from frontier-<model>.json: drops, agreement, bars; paired by sentence."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatomy_export.bench.tables import markdown_table
from anatomy_export.criteria.registry import CRITERIA
from anatomy_export.planning.allocate import SENSITIVITY, UNIFORM

HERE = Path(__file__).parent
DEFAULT = "obs-gradient/sensitivity/auto"
LEVELS = (0.3, 0.5, 0.7, 0.85, 0.95)
DROP_BARS = {"bert": {0.5: 0.3, 0.7: 0.5, 0.85: 1.5, 0.95: 4.0}, "gpt2": {0.85: 0.3}}
NOISE_Z = 1.96
MARGIN = 0.5
LEAST_TO_LOSE = 3.0
WIDTHS = {UNIFORM: "equal widths", SENSITIVITY: "the default's widths"}


@dataclass(frozen=True)
class Group:
    """All calibration seeds of one way to prune. `right_by_seed: (texts,)` each, 1 where the class is right."""

    right_by_seed: dict[int, np.ndarray]
    agreement: float
    probability_change: float

    @property
    def seeds(self) -> int:
        return len(self.right_by_seed)

    @property
    def right(self) -> np.ndarray:
        """(texts,) share of the seeds that classify each text right."""
        return np.mean(list(self.right_by_seed.values()), axis=0)

    def mean_right(self, seeds: set[int]) -> np.ndarray:
        """`right` over some of the seeds."""
        return np.mean([self.right_by_seed[seed] for seed in sorted(seeds)], axis=0)


class Study:
    """One frontier file, its runs grouped by way."""

    def __init__(self, name: str):
        study = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
        self.settings = study["settings"]
        labels, dense = (np.array([int(one) for one in study[name]]) for name in ("labels", "dense"))
        self.dense_right = (dense == labels).astype(float)
        runs: dict[str, dict[int, dict]] = {}
        self.refused: dict[str, str] = {}
        for name, run in study["runs"].items():
            seed, way = name.split("/", 1)
            if "refused" in run:
                self.refused[way] = run["refused"]
            else:
                runs.setdefault(way, {})[int(seed)] = run
        self.groups = {way: self._group(own) for way, own in runs.items()}

    def _group(self, runs: dict[int, dict]) -> Group:
        right = {seed: self.dense_right.copy() for seed in runs}
        for seed, run in runs.items():
            right[seed][run["flipped"]] = 1 - right[seed][run["flipped"]]
        return Group(
            right,
            float(np.mean([run["agreement"] for run in runs.values()])),
            float(np.mean([run["probability_change"] for run in runs.values()])),
        )

    def drop(self, way: str) -> tuple[float, float]:
        """Points below the dense model, and half of the 95 % interval over sentences."""
        return paired(self.dense_right, self.groups[way].right)

    def agreeing(self, way: str) -> np.ndarray:
        """(texts,) share of the seeds that give each text the dense model's class; there are two classes."""
        return np.mean([right == self.dense_right for right in self.groups[way].right_by_seed.values()], axis=0)

    def criteria(self) -> list[str]:
        return list(dict.fromkeys(way.split("/")[0] for way in self.groups))


def paired(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean difference in points, and half of its 95 % interval, paired by sentence."""
    difference = 100 * (first - second)
    return float(difference.mean()), float(NOISE_Z * difference.std(ddof=1) / np.sqrt(len(difference)))


def interval(value: float, half: float) -> str:
    return f"{value:+.2f} [{value - half:+.2f}, {value + half:+.2f}]"


def level_name(level: float) -> str:
    return f"{100 * level:.0f} %"


def frontier_section(model: str) -> str:
    study = Study(f"frontier-{model}")
    settings = study.settings
    criteria = study.criteria()
    return f"""## The accuracy frontier, {model}

`benchmarks/frontier.py --model {model}`: {len(study.dense_right):,} test sentences, dense accuracy
{100 * study.dense_right.mean():.2f} %, {settings["examples"]:,} calibration sentences from train, widths to a multiple
of {settings["align"]}. Nothing was chosen on these sentences. Drops are points of accuracy below the dense model, means
over the calibration seeds, with 95 % intervals over sentences, paired with the dense model. No optimiser step anywhere.
Repair was fitted to {settings["fitted_to"]}. Model {settings["model"][:8]} (its fingerprint's beginning): trained on
another CPU it gets other weights.

The default way (`--criterion obs-gradient --allocate sensitivity --compensate auto --align {settings["align"]}`):

{default_table(study)}

Criteria{run_so_far(study)}, equal widths in every layer, without repair ({seeds_of(study, "none")}) and in brackets
with `--compensate auto` ({seeds_of(study, "auto")}): drop in points at each share removed.

{markdown_table(("criterion", *map(level_name, LEVELS)), [cells(study, one, drop_shown) for one in criteria])}

Their agreement with the dense model, %:

{markdown_table(("criterion", *map(level_name, LEVELS)), [cells(study, one, agreement_shown) for one in criteria])}

Their mean change of probability, points:

{markdown_table(("criterion", *map(level_name, LEVELS)), [cells(study, one, change_shown) for one in criteria])}

{discrimination(study)}
{markdown_table(("bar", "asked", "measured", "met"), bars(study, model))}
Not worse: the 95 % interval lies above −{MARGIN:g} points. Better: it lies above 0. Without repair:
{unrepaired_ways(study)}.
"""


def default_table(study: Study) -> str:
    rows = [
        (
            level_name(level),
            str(group.seeds),
            interval(*study.drop(way)),
            f"{100 * group.agreement:.1f}",
            f"{100 * group.probability_change:.2f}",
        )
        for level in LEVELS
        if (group := study.groups.get(way := f"{DEFAULT}/{level:g}")) is not None
    ]
    return markdown_table(
        ("removed", "seeds", "drop, points", "agreement, %", "mean change of probability, points"), rows
    )


def second_training_section() -> str:
    """The default way on the embedded BERT as another CPU trains it."""
    study = Study("second-training")
    return f"""## The default way on a second training of bert

The same recipe gives other weights on a CPU with AVX-512 (model {study.settings["model"][:8]}, dense accuracy
{100 * study.dense_right.mean():.2f} %). `benchmarks/frontier.py --model bert --criteria obs-gradient
--allocate sensitivity --compensate auto`, all else as above; nothing was chosen on it.

{default_table(study)}
"""


def discrimination(study: Study) -> str:
    """How much there is to lose: what random removal costs, without and with repair."""
    ways = [f"random/uniform/{how}/0.85" for how in ("none", "auto")]
    if not all(way in study.groups for way in ways):
        return ""
    plain, repaired = (study.drop(way)[0] for way in ways)
    said = "" if plain > LEAST_TO_LOSE else " Its FFN carries little, so that it discriminates badly between ways."
    return f"Random removal of 85 % costs {plain:.2f} points, with repair {repaired:.2f}.{said}\n"


def run_so_far(study: Study) -> str:
    found = {way.split("/")[0] for way in study.groups if "/uniform/" in way}
    return "" if len(found) == len(CRITERIA) else f" run so far ({len(found)} of {len(CRITERIA)})"


def cells(study: Study, criterion: str, shown: Callable[[Study, str], str]) -> tuple[str, ...]:
    """A criterion's row: at each level without repair, and in brackets with."""
    row = [criterion]
    for level in LEVELS:
        ways = [f"{criterion}/{UNIFORM}/{how}/{level:g}" for how in ("none", "auto")]
        parts = [
            shown(study, way) if way in study.groups else "refused" if way in study.refused else "–" for way in ways
        ]
        row.append(f"{parts[0]} ({parts[1]})")
    return tuple(row)


def drop_shown(study: Study, way: str) -> str:
    return f"{study.drop(way)[0]:.2f}"


def agreement_shown(study: Study, way: str) -> str:
    return f"{100 * study.groups[way].agreement:.1f}"


def change_shown(study: Study, way: str) -> str:
    return f"{100 * study.groups[way].probability_change:.2f}"


def seeds_of(study: Study, how: str) -> str:
    """How many calibration seeds the ways at equal widths have."""
    found = sorted({group.seeds for way, group in study.groups.items() if f"/{UNIFORM}/{how}/" in way})
    return f"{' or '.join(map(str, found))} seed{'' if found == [1] else 's'}"


def unrepaired_ways(study: Study) -> str:
    """Allocations that were run without repair, and how many criteria each."""
    found = Counter(
        allocate
        for criterion, allocate in {tuple(way.split("/")[:2]) for way in study.groups if "/none/" in way}
        if criterion in CRITERIA
    )
    return ", ".join(f"{count} criteria with `--allocate {allocate}`" for allocate, count in sorted(found.items()))


def bars(study: Study, model: str) -> list[tuple[str, str, str, str]]:
    rows = []
    for level, asked in DROP_BARS[model].items():
        way = f"{DEFAULT}/{level:g}"
        if way in study.groups:
            drop, half = study.drop(way)
            rows.append(
                (
                    f"drop of the default at {level_name(level)} removed",
                    f"≤ {asked} points",
                    interval(drop, half),
                    yes(drop <= asked),
                )
            )
    for allocate in (UNIFORM, SENSITIVITY):
        for level in LEVELS:
            rows += against_unrepaired(study, allocate, level)
    anatomy = [f"anatomy/uniform/{how}/0.7" for how in ("auto", "none")]
    if model == "bert" and all(way in study.groups for way in anatomy):
        gain = paired(*(study.groups[way].right for way in anatomy))
        rows.append(("anatomy with repair against without, at 70 %", "≥ +3 points", interval(*gain), yes(gain[0] >= 3)))
    return rows + never_worse(study)


def against_unrepaired(study: Study, allocate: str, level: float) -> list[tuple[str, str, str, str]]:
    """The default against the best way without repair: not worse where little is pruned, better where much is."""
    ways = [way for way in study.groups if way.endswith(f"/{allocate}/none/{level:g}")]
    default = study.groups.get(f"{DEFAULT}/{level:g}")
    if len(ways) < len(CRITERIA) or default is None:
        return []
    best = max(ways, key=lambda way: study.groups[way].right.mean())
    gain, half = paired(default.right, study.groups[best].right)
    agreement = paired(study.agreeing(f"{DEFAULT}/{level:g}"), study.agreeing(best))
    criterion, better = best.split("/")[0], level >= 0.7
    return [
        (
            f"default against the best without repair, {WIDTHS[allocate]} ({criterion}), at {level_name(level)}",
            "better" if better else "not worse",
            f"{interval(gain, half)}, agreement {interval(*agreement)}",
            yes(gain - half > 0) + nothing_to_win(study, best) if better else no_worse(gain, half),
        )
    ]


def no_worse(gain: float, half: float) -> str:
    """An interval that reaches from below the margin to above 0 shows neither."""
    return "**not shown**" if gain - half <= -MARGIN and gain + half >= 0 else yes(gain - half > -MARGIN)


def nothing_to_win(study: Study, best: str) -> str:
    """Where the best way's own drop is within its noise, no way could be shown to be better."""
    drop, half = study.drop(best)
    return f": none could be, the best loses {interval(drop, half)}" if drop - half <= 0 else ""


def never_worse(study: Study) -> list[tuple[str, str, str, str]]:
    """Repair chosen on held-out text against none, over every criterion and level; the largest loss of all is shown."""
    pairs = [(way, way.replace("/none/", "/auto/")) for way in study.groups if "/none/" in way]
    gains = {}
    for way, auto in pairs:
        if auto in study.groups:
            plain, repaired = study.groups[way], study.groups[auto]
            seeds = plain.right_by_seed.keys() & repaired.right_by_seed.keys()
            gains[way] = paired(repaired.mean_right(seeds), plain.mean_right(seeds))
    if not gains:
        return []
    worst = min(gains, key=lambda way: gains[way][0])
    beyond = sum(gain + half < 0 for gain, half in gains.values())
    row = (
        f"repair against none: of {len(gains)} ways {beyond} lose more than the noise; the largest loss is "
        f"{named(worst)} at {level_name(float(worst.split('/')[3]))}",
        "loses no more than the noise",
        interval(*gains[worst]),
        yes(beyond == 0),
    )
    return [row]


def named(way: str) -> str:
    """Criterion and, where it is not equal widths, allocation."""
    criterion, allocate, *_ = way.split("/")
    return criterion if allocate == UNIFORM else f"{criterion}, {allocate}"


def yes(met: bool) -> str:
    return "yes" if met else "**no**"
