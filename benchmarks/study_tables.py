"""Tables of the paper's experiment from study-<model>.json (presets and random removal), and of what scoring costs."""

import json
from pathlib import Path
from statistics import median

import numpy as np
from frontier_tables import interval, paired

from anatomy_export.bench.tables import markdown_table, ratio

HERE = Path(__file__).parent
PRESET_HEADINGS = (
    "preset",
    "removed",
    "accuracy, %",
    "agreement, %",
    "random, %",
    "gain over random, points",
    "× dense",
)


def load_study(model: str) -> dict:
    """The content of study-<model>.json, as `anatomy study --model <model>` wrote it."""
    return json.loads((HERE / f"study-{model}.json").read_text(encoding="utf-8"))


def right(study: dict, entry: dict) -> np.ndarray:
    """(texts,): 1 where a setup classifies a test text right."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(entry["right"]), np.uint8))
    return bits[: study["dense"]["examples"]].astype(float)


def presets(study: dict) -> dict[str, dict]:
    """The setups of the paper that this model allows, by name."""
    return {name: one for name, one in study["setups"].items() if one["preset"] and "refused" not in one}


def rivals(study: dict, preset: str) -> list[dict]:
    """Random removal at the preset's number, one entry a seed."""
    return [one for one in study["setups"].values() if one["matches"] == preset and "refused" not in one]


def gain_over_random(study: dict, preset: str) -> tuple[float, float]:
    """Points above the mean of the random seeds, and half of the 95 % interval over sentences."""
    rival = np.mean([right(study, one) for one in rivals(study, preset)], axis=0)
    return paired(right(study, study["setups"][preset]), rival)


def drop_from_dense(study: dict, entry: dict) -> tuple[float, float]:
    """Points below the dense model, and half of the 95 % interval over sentences."""
    return paired(right(study, study["dense"]), right(study, entry))


def study_section(model: str) -> str:
    study = load_study(model)
    settings, dense = study["settings"], study["dense"]
    low, high = (100 * bound for bound in dense["interval"])
    rows = [preset_row(study, name) for name in presets(study)]
    shares = [share_row(study, share) for share in settings["removed"]]
    return f"""## The paper's experiment, {model}

`anatomy study --model {model}`: masked, widths as they come, {settings["examples"]:,} test sentences, dense accuracy
{100 * dense["accuracy"]:.2f} % [{low:.1f}, {high:.1f}]. Random: as many neurons, spread evenly over the layers, strong
ones kept, mean of {len(settings["seeds"])} seeds and their range. Gain: preset less the mean of the seeds, 95 %
interval over sentences, paired.

{markdown_table(PRESET_HEADINGS, rows)}
{markdown_table(("random, share removed", "removed", "accuracy, %", "× dense"), shares)}
{refusals(study)}{timing_note(study)}"""


def refusals(study: dict) -> str:
    refused = {name: one["refused"] for name, one in study["setups"].items() if one["preset"] and "refused" in one}
    return "".join(f"{name} is refused: {reason.split(';')[0]}.\n\n" for name, reason in refused.items())


def preset_row(study: dict, name: str) -> tuple[str, ...]:
    one = study["setups"][name]
    low, high = (100 * bound for bound in one["interval"])
    return (
        name,
        removed(one),
        f"{100 * one['accuracy']:.2f} [{low:.1f}, {high:.1f}]",
        f"{100 * one['agreement']:.1f}",
        over_seeds(rivals(study, name)),
        interval(*gain_over_random(study, name)),
        times_dense([one]),
    )


def share_row(study: dict, share: float) -> tuple[str, ...]:
    own = [one for one in study["setups"].values() if one["share"] == share]
    return f"{100 * share:g} %", removed(own[0]), over_seeds(own), times_dense(own)


def removed(one: dict) -> str:
    return "refused" if "refused" in one else f"{one['removed']:,} ({100 * one['removed_share']:.1f} %)"


def over_seeds(entries: list[dict]) -> str:
    values = [100 * one["accuracy"] for one in entries if "refused" not in one]
    return f"{np.mean(values):.2f} [{min(values):.1f}, {max(values):.1f}]" if values else "n/a"


def times_dense(entries: list[dict]) -> str:
    timed = [one["seconds"] for one in entries if one.get("seconds")]
    return ratio(timed[0]["dense_ratio"], timed[0]["dense_ratio_interval"]) if timed else "n/a"


def timing_note(study: dict) -> str:
    seconds = study["dense"].get("seconds")
    if not seconds:
        return ""
    return (
        f"× dense: time of the dense model ÷ time of the masked one, interleaved ({seconds['engine']} on "
        f"{seconds['device']}, batches of {seconds['batch']}, {seconds['seq_len']} tokens); dense "
        f"{seconds['median_s']:.2f} s for {seconds['examples']:,} texts.\n"
    )


def score_section() -> str:
    body = json.loads((HERE / "score-cost.json").read_text(encoding="utf-8"))
    seconds = median(one["seconds"] for one in body["runs"])
    share = median(one["extra_rss_bytes"] / one["model_bytes"] for one in body["runs"])
    settings, environment = body["settings"], body["environment"]
    bars = [
        ("seconds", "< 5", f"{seconds:.2f}", "yes" if seconds < 5 else "**no**"),
        ("memory on top ÷ the model's", "< 0.5", f"{share:.2f}", "yes" if share < 0.5 else "**no**"),
    ]
    return f"""## What scoring costs

`benchmarks/score_cost.py`: {settings["model"]}, {settings["probes"]} probes, after imports and loading
({environment["cpu"]}, {settings["threads"]} threads); medians of {len(body["runs"])} processes.

{markdown_table(("bar", "asked", "measured", "met"), bars)}
"""
