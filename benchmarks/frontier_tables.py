"""Tables of the accuracy frontier from frontier-<model>.json: drops, agreement, bars; paired by sentence."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatomy_export.bench.tables import markdown_table
from anatomy_export.exporter.criteria import CRITERIA

HERE = Path(__file__).parent
DEFAULT = "obs-gradient/sensitivity/auto"
LEVELS = (0.3, 0.5, 0.7, 0.85, 0.95)
DROP_BARS = {"bert": {0.5: 0.3, 0.7: 0.5, 0.85: 1.5, 0.95: 4.0}, "gpt2": {0.85: 0.3}}
NOISE_Z = 1.96
LEAST_TO_LOSE = 3.0


@dataclass(frozen=True)
class Group:
    """All calibration seeds of one way to prune. `right: (texts,)` share of the seeds that classify each text right."""

    seeds: int
    right: np.ndarray
    agreement: float
    probability_change: float


class Study:
    """One frontier file, its runs grouped by way."""

    def __init__(self, model: str):
        study = json.loads((HERE / f"frontier-{model}.json").read_text(encoding="utf-8"))
        self.settings = study["settings"]
        labels, dense = (np.array([int(one) for one in study[name]]) for name in ("labels", "dense"))
        self.dense_right = (dense == labels).astype(float)
        runs: dict[str, list[dict]] = {}
        self.refused: dict[str, str] = {}
        for name, run in study["runs"].items():
            way = name.split("/", 1)[1]
            if "refused" in run:
                self.refused[way] = run["refused"]
            else:
                runs.setdefault(way, []).append(run)
        self.groups = {way: self._group(own) for way, own in runs.items()}

    def _group(self, runs: list[dict]) -> Group:
        right = np.tile(self.dense_right, (len(runs), 1))
        for row, run in zip(right, runs, strict=True):
            row[run["flipped"]] = 1 - row[run["flipped"]]
        return Group(
            len(runs),
            right.mean(0),
            float(np.mean([run["agreement"] for run in runs])),
            float(np.mean([run["probability_change"] for run in runs])),
        )

    def drop(self, way: str) -> tuple[float, float]:
        """Points below the dense model, and half of the 95 % interval over sentences."""
        return paired(self.dense_right, self.groups[way].right)

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
    study = Study(model)
    settings = study.settings
    present = [level for level in LEVELS if f"{DEFAULT}/{level:g}" in study.groups]
    default = [
        (
            level_name(level),
            str(study.groups[f"{DEFAULT}/{level:g}"].seeds),
            interval(*study.drop(f"{DEFAULT}/{level:g}")),
            f"{100 * study.groups[f'{DEFAULT}/{level:g}'].agreement:.1f}",
            f"{100 * study.groups[f'{DEFAULT}/{level:g}'].probability_change:.2f}",
        )
        for level in present
    ]
    seeds = sorted({group.seeds for way, group in study.groups.items() if not way.startswith(DEFAULT)})
    counted = f"{' or '.join(map(str, seeds))} seed{'' if seeds == [1] else 's'}"
    return f"""## The accuracy frontier, {model}

`benchmarks/frontier.py --model {model}`: {len(study.dense_right):,} test sentences, dense accuracy
{100 * study.dense_right.mean():.2f} %, {settings["examples"]:,} calibration sentences from train, widths to a multiple
of {settings["align"]}. Nothing was chosen on these sentences. Drops are points of accuracy below the dense model, means
over the calibration seeds, with 95 % intervals over sentences, paired with the dense model. No optimiser step anywhere.
Repair was fitted to {settings.get("fitted_to", "each layer's own dense FFN, as it is no longer; not measured since")}.

The default way (`--criterion obs-gradient --allocate sensitivity --compensate auto`):

{markdown_table(("removed", "seeds", "drop, points", "agreement, %", "mean change of probability, points"), default)}

Criteria{run_so_far(study)}, equal widths in every layer, without and with repair
({counted}): drop in points at each share removed; in brackets with `--compensate auto`.

{markdown_table(("criterion", *map(level_name, LEVELS)), [criterion_row(study, one) for one in study.criteria()])}

{discrimination(study)}
{markdown_table(("bar", "asked", "measured", "met"), bars(study, model))}
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


def criterion_row(study: Study, criterion: str) -> tuple[str, ...]:
    cells = []
    for level in LEVELS:
        parts = []
        for how in ("none", "auto"):
            way = f"{criterion}/uniform/{how}/{level:g}"
            parts.append(
                f"{study.drop(way)[0]:.2f}" if way in study.groups else "refused" if way in study.refused else "–"
            )
        cells.append(f"{parts[0]} ({parts[1]})")
    return (criterion, *cells)


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
    for level in LEVELS:
        rows += against_unrepaired(study, level)
    anatomy = [f"anatomy/uniform/{how}/0.7" for how in ("auto", "none")]
    if model == "bert" and all(way in study.groups for way in anatomy):
        gain = paired(*(study.groups[way].right for way in anatomy))
        rows.append(("anatomy with repair against without, at 70 %", "≥ +3 points", interval(*gain), yes(gain[0] >= 3)))
    return rows + never_worse(study)


def against_unrepaired(study: Study, level: float) -> list[tuple[str, str, str, str]]:
    """The default against the best criterion without repair: not worse at little pruning, better at much."""
    ways = [way for way in study.groups if way.endswith(f"/uniform/none/{level:g}")]
    default = study.groups.get(f"{DEFAULT}/{level:g}")
    if len(ways) < len(CRITERIA) or default is None:
        return []
    best = max(ways, key=lambda way: study.groups[way].right.mean())
    gain, half = paired(default.right, study.groups[best].right)
    better = level >= 0.7
    return [
        (
            f"default against the best without repair ({best.split('/')[0]}) at {level_name(level)}",
            "better" if better else "not worse",
            interval(gain, half),
            yes(gain - half > 0 if better else gain + half >= 0),
        )
    ]


def never_worse(study: Study) -> list[tuple[str, str, str, str]]:
    """Repair chosen on held-out text against none, over every criterion and level."""
    pairs = [(way, way.replace("/none/", "/auto/")) for way in study.groups if "/none/" in way]
    gains = {
        way: paired(study.groups[auto].right, study.groups[way].right) for way, auto in pairs if auto in study.groups
    }
    if not gains:
        return []
    worst = min(gains, key=lambda way: gains[way][0] + gains[way][1])
    criterion, _, _, level = worst.split("/")
    row = (
        f"repair against none, the worst of {len(gains)} ways ({criterion} at {level_name(float(level))})",
        "loses no more than the noise",
        interval(*gains[worst]),
        yes(sum(gains[worst]) >= 0),
    )
    return [row]


def yes(met: bool) -> str:
    return "yes" if met else "**no**"
