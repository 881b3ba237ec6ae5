"""Tables of the paper's experiment from study-<model>.json (presets and random removal), and of what scoring costs."""

from statistics import mean, median

from cells import BAR_HEADINGS, Bar, interval, load, percent, yes

from anatomy_export.bench.tables import markdown_table, ratio

PRESET_HEADINGS = (
    "preset",
    "removed",
    "accuracy, %",
    "agreement, %",
    "random, %",
    "gain over random, points",
    "× dense",
)


def presets(study: dict) -> dict[str, dict]:
    """The setups of the paper that this model allows, by name."""
    return {name: setup for name, setup in study["setups"].items() if setup["preset"] and "refused" not in setup}


def rivals(study: dict, preset: str) -> list[dict]:
    """Random removal at the preset's number, one entry a seed."""
    return [setup for setup in study["setups"].values() if setup["matches"] == preset and "refused" not in setup]


def study_section(model: str) -> str:
    study = load(f"study-{model}")
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
    refused = {
        name: setup["refused"] for name, setup in study["setups"].items() if setup["preset"] and "refused" in setup
    }
    return "".join(f"{name} is refused: {reason.split(';')[0]}.\n\n" for name, reason in refused.items())


def preset_row(study: dict, name: str) -> tuple[str, ...]:
    setup = study["setups"][name]
    low, high = (100 * bound for bound in setup["interval"])
    return (
        name,
        removed(setup),
        f"{100 * setup['accuracy']:.2f} [{low:.1f}, {high:.1f}]",
        f"{100 * setup['agreement']:.1f}",
        over_seeds(rivals(study, name)),
        interval(*setup["gain_over_random"]),
        times_dense([setup]),
    )


def share_row(study: dict, share: float) -> tuple[str, ...]:
    setups = [setup for setup in study["setups"].values() if setup["share"] == share]
    return percent(share), removed(setups[0]), over_seeds(setups), times_dense(setups)


def removed(setup: dict) -> str:
    return "refused" if "refused" in setup else f"{setup['removed']:,} ({100 * setup['removed_share']:.1f} %)"


def over_seeds(setups: list[dict]) -> str:
    values = [100 * setup["accuracy"] for setup in setups if "refused" not in setup]
    return f"{mean(values):.2f} [{min(values):.1f}, {max(values):.1f}]" if values else "n/a"


def times_dense(setups: list[dict]) -> str:
    timed = [setup["seconds"] for setup in setups if setup.get("seconds")]
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


def load_score_cost() -> dict:
    """Medians over the processes of score-cost.json: `seconds`, and `memory` on top ÷ the model's; the `body`."""
    body = load("score-cost")
    return {
        "body": body,
        "seconds": median(run["seconds"] for run in body["runs"]),
        "memory": median(run["extra_rss_bytes"] / run["model_bytes"] for run in body["runs"]),
    }


def score_section() -> str:
    cost = load_score_cost()
    settings, environment = cost["body"]["settings"], cost["body"]["environment"]
    return f"""## What scoring costs

`benchmarks/score_cost.py`: {settings["model"]}, {settings["probes"]} probes, after imports and loading
({environment["cpu"]}, {settings["threads"]} threads); medians of {len(cost["body"]["runs"])} processes.

{markdown_table(BAR_HEADINGS, score_bars())}
"""


def score_bars() -> list[Bar]:
    cost = load_score_cost()
    return [
        ("seconds", "< 5", f"{cost['seconds']:.2f}", yes(cost["seconds"] < 5)),
        ("memory on top ÷ the model's", "< 0.5", f"{cost['memory']:.2f}", yes(cost["memory"] < 0.5)),
    ]
