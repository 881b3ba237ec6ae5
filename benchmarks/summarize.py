"""The committed form of a result: what the pages need of it, without raw rounds and without single sentences.

Run `.venv/bin/python benchmarks/summarize.py RAW OUTPUT`: RAW is what `benchmarks/frontier.py` wrote, or the
`study.json` or `pareto.json` of `anatomy study` or `anatomy pareto`. The scripts that time call `without_rounds`.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from anatomy_export.core.files import write_atomic
from anatomy_export.criteria.registry import CRITERIA
from anatomy_export.planning.allocation import SENSITIVITY, UNIFORM

DEFAULT = "obs-gradient/sensitivity/auto"
ANATOMY_REPAIRED, ANATOMY_PLAIN = "anatomy/uniform/auto/0.7", "anatomy/uniform/none/0.7"
LEVELS = (0.3, 0.5, 0.7, 0.85, 0.95)
NOISE_Z = 1.96
LINE_WIDTH = 120

Estimate = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    raw = json.loads(options.raw.read_text(encoding="utf-8"))
    summarize = {"study": summarize_study, "pareto": summarize_pareto}.get(raw.get("kind"), summarize_frontier)
    write_json(options.output, summarize(raw))


def paired(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Mean difference in points, and half of its 95 % interval, paired by sentence; `(texts,)` each, of 0 to 1."""
    difference = 100 * (first - second)
    return float(difference.mean()), float(NOISE_Z * difference.std(ddof=1) / np.sqrt(len(difference)))


class RawFrontier:
    """What `frontier.py` wrote, its runs grouped by way (`criterion/allocation/repair/share removed`)."""

    def __init__(self, raw: dict):
        labels, dense = (np.array([int(digit) for digit in raw[name]]) for name in ("labels", "dense"))
        self.dense_right = (dense == labels).astype(float)
        self.runs: dict[str, dict[int, dict]] = defaultdict(dict)
        self.refused: dict[str, str] = {}
        for name, run in raw["runs"].items():
            seed, way = name.split("/", 1)
            if "refused" in run:
                self.refused[way] = run["refused"]
            else:
                self.runs[way][int(seed)] = run

    def right_by_seed(self, way: str) -> dict[int, np.ndarray]:
        """Of each calibration seed `(texts,)`, 1 where the class is right."""
        right = {}
        for seed, run in self.runs[way].items():
            right[seed] = self.dense_right.copy()
            right[seed][run["flipped"]] = 1 - right[seed][run["flipped"]]
        return right

    def right(self, way: str, seeds: set[int] | None = None) -> np.ndarray:
        """`(texts,)` share of the seeds (default: all) that classify each text right."""
        right = self.right_by_seed(way)
        return np.mean([right[seed] for seed in sorted(right if seeds is None else seeds)], axis=0)

    def agreeing(self, way: str) -> np.ndarray:
        """`(texts,)` share of the seeds that give each text the dense model's class; there are two classes."""
        return np.mean([right == self.dense_right for right in self.right_by_seed(way).values()], axis=0)

    def mean(self, way: str, measure: str) -> float:
        """A measure of the runs, mean over the seeds."""
        return float(np.mean([run[measure] for run in self.runs[way].values()]))


def summarize_frontier(raw: dict) -> dict:
    """Each way's drop below the dense model, and the comparisons that are paired by sentence.

    Estimates are `[points, half of the 95 % interval]`.
    """
    frontier = RawFrontier(raw)
    body = {
        "settings": raw["settings"],
        "texts": len(frontier.dense_right),
        "dense_accuracy": float(frontier.dense_right.mean()),
        "ways": {
            way: {
                "seeds": len(runs),
                "drop": paired(frontier.dense_right, frontier.right(way)),
                "agreement": frontier.mean(way, "agreement"),
                "probability_change": frontier.mean(way, "probability_change"),
            }
            for way, runs in frontier.runs.items()
        },
        "refused": frontier.refused,
        "default_against_unrepaired": {
            f"{allocate}/{level:g}": comparison
            for allocate in (UNIFORM, SENSITIVITY)
            for level in LEVELS
            if (comparison := default_against_unrepaired(frontier, allocate, level))
        },
        "repair_gains": repair_gains(frontier),
    }
    if {ANATOMY_REPAIRED, ANATOMY_PLAIN} <= frontier.runs.keys():
        gain = paired(frontier.right(ANATOMY_REPAIRED), frontier.right(ANATOMY_PLAIN))
        body["anatomy_repair_gain"] = gain
    return body


def default_against_unrepaired(frontier: RawFrontier, allocate: str, level: float) -> dict | None:
    """The default against the most accurate criterion without repair; None until every criterion was run."""
    default = f"{DEFAULT}/{level:g}"
    ways = [way for way in frontier.runs if way.endswith(f"/{allocate}/none/{level:g}")]
    if len(ways) < len(CRITERIA) or default not in frontier.runs:
        return None
    best = max(ways, key=lambda way: frontier.right(way).mean())
    return {
        "best": best,
        "gain": paired(frontier.right(default), frontier.right(best)),
        "agreement": paired(frontier.agreeing(default), frontier.agreeing(best)),
    }


def repair_gains(frontier: RawFrontier) -> dict[str, Estimate]:
    """Of each way without repair, what repair gains, over the seeds that were run both ways."""
    gains = {}
    for plain in frontier.runs:
        repaired = plain.replace("/none/", "/auto/")
        if "/none/" in plain and repaired in frontier.runs:
            seeds = frontier.runs[plain].keys() & frontier.runs[repaired].keys()
            gains[plain] = paired(frontier.right(repaired, seeds), frontier.right(plain, seeds))
    return gains


def summarize_study(raw: dict) -> dict:
    """Every setup's accuracy and time; of presets also the drop below dense and the gain over random removal."""
    setups = raw["setups"]
    texts = raw["dense"]["examples"]
    dense_right = right_of_setup(raw["dense"], texts)
    summary = {}
    for name, setup in setups.items():
        summary[name] = summarize_setup(setup)
        if setup["preset"] and "refused" not in setup:
            right = right_of_setup(setup, texts)
            rivals = [rival for rival in setups.values() if rival["matches"] == name and "refused" not in rival]
            random = np.mean([right_of_setup(rival, texts) for rival in rivals], axis=0)
            summary[name]["drop"] = paired(dense_right, right)
            summary[name]["gain_over_random"] = paired(right, random)
    return {**raw, "dense": summarize_setup(raw["dense"]), "setups": summary}


def summarize_setup(setup: dict) -> dict:
    """Without the answers to single sentences, thresholds and raw times."""
    kept = {name: value for name, value in setup.items() if name not in ("right", "thresholds", "removed_per_layer")}
    if kept.get("seconds"):
        kept["seconds"] = {name: value for name, value in kept["seconds"].items() if name != "times_s"}
    return kept


def right_of_setup(setup: dict, texts: int) -> np.ndarray:
    """`(texts,)`: 1 where a setup of `study.json` classifies a test text right."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(setup["right"]), np.uint8))
    return bits[:texts].astype(float)


def summarize_pareto(raw: dict) -> dict:
    """How many models were compared, and those that no other beats."""
    return {
        **raw,
        "models": len(raw["results"]),
        "results": {name: raw["results"][name] for name in raw["non_dominated"]},
    }


def without_rounds(body: dict, *, keep_times: bool = False) -> dict:
    """A bench body without the order of its calls and, unless `keep_times`, their seconds.

    `anatomy-bench compare` needs `times_s` and `launches`.
    """
    rounds = {"warmup_s"} if keep_times else {"warmup_s", "times_s"}
    dropped = {"orders"} if keep_times else {"orders", "launches"}
    return {
        **{name: value for name, value in body.items() if name not in dropped},
        "roofline": {name: value for name, value in body["roofline"].items() if name not in ("times_s", "by_input")},
        "results": [
            {name: value for name, value in result.items() if name not in rounds} for result in body["results"]
        ],
    }


def write_json(path: Path, body: Any) -> None:
    """Write JSON with what fits a line, and lists of numbers, on one line."""
    write_atomic(path, json_text(body) + "\n")


def json_text(value: Any, indent: str = "") -> str:
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    numbers = isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)
    if len(indent) + len(flat) <= LINE_WIDTH or numbers or not isinstance(value, dict | list):
        return flat
    deeper = indent + " "
    if isinstance(value, dict):
        items = [f"{deeper}{json.dumps(name)}: {json_text(item, deeper)}" for name, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + json_text(item, deeper) for item in value) + f"\n{indent}]"


if __name__ == "__main__":
    main()
