"""The first page of docs/RESULTS.md: what was measured on what, the main figures, what is open."""

from cells import Bar, interval, load, percent
from choice_tables import cost_bars, machine, speedup_bars
from frontier_tables import frontier_bars
from gap_tables import gap_bars, results_by_worker
from precision_tables import BAR_MODEL, BAR_VARIANT, precision_bars
from startup_tables import startup_bars
from study_tables import score_bars
from summarize import DEFAULT, LEVELS
from surgery_tables import surgery_bars

from anatomy_export.bench.tables import markdown_table, ratio

HEADINGS = (
    "FFN neurons removed",
    "bert, points lost",
    "gpt2, points lost",
    "batch 1, × dense",
    "batch 1, × PyTorch",
    "batch 8, × dense",
    "batch 8, × PyTorch",
)


def summary_section() -> str:
    gap, bars = load("gap"), all_bars()
    tokens, where = gap[0]["settings"]["lengths"][0], machine(gap[0]["environment"])
    versions = gap[0]["environment"]["versions"]
    unmet = [f"- {name}: asked {asked}, measured {measured}" for name, asked, measured, met in bars if met != "yes"]
    return f"""## Summary

- Accuracy: {" and ".join(map(model_line, ("bert", "gpt2")))}; {load("frontier-bert")["texts"]:,} test
  sentences of movie reviews. Points lost below the dense model by the default way (gradient OBS, widths by predicted
  damage, repaired), mean of {default_way("bert", LEVELS[0])["seeds"]} calibration samples, 95 % intervals.
- Speed: the bert-base shape (12 layers, random weights), {tokens} tokens, fp32, sliced, through
  ONNX Runtime {versions["onnxruntime"]}, against itself dense and against PyTorch {versions["torch"]} dense; {where}.

{markdown_table(HEADINGS, [level_row(level, gap) for level in LEVELS])}
{markdown_table(("what else", "measured"), other_figures())}
{sum(bar[3] == "yes" for bar in bars)} of {len(bars)} bars are met; they stand in their sections. The others:

{chr(10).join(unmet)}

Open: nothing here was measured on a GPU ([T4.md](T4.md)), on the paper's own models and data ([PAPER.md](PAPER.md)),
or on a CPU that is not x86. Speeds are of one machine of 2 cores.
"""


def model_line(model: str) -> str:
    return f"the embedded 6-layer `{model}` (dense {percent(load(f'frontier-{model}')['dense_accuracy'], 2)})"


def default_way(model: str, level: float) -> dict:
    return load(f"frontier-{model}")["ways"][f"{DEFAULT}/{level:g}"]


def level_row(level: float, gap: list[dict]) -> tuple[str, ...]:
    lost = [interval(*default_way(model, level)["drop"]) for model in ("bert", "gpt2")]
    speeds = []
    for body in gap:
        result = results_by_worker(body).get(f"ort slice {1 - level:g}")
        for measure in ("speedup", "torch_speedup"):
            speeds.append("–" if result is None else ratio(result[measure], result[f"{measure}_interval"]))
    return (percent(level), *lost, *speeds)


def other_figures() -> list[tuple[str, str]]:
    """Of every other section its main figure."""
    ways = load("frontier-bert")["ways"]
    mask = results_by_worker(load("gap")[0])["ort mask 0.5"]
    bundles = load("precision")["bert"]["bundles"]
    int8 = next(result for result in load("precision")[BAR_MODEL]["bench"]["results"] if result["name"] == BAR_VARIANT)
    job = load("paper-bert-base")["results"]
    way = ("ort", "slice 0.5", "bucketed")
    bucketed = next(result for result in job if (result["engine"], result["name"], result["layout"]) == way)
    preset = load("study-bert")["setups"]["bert-1"]
    seconds, peak = (bar[2] for bar in cost_bars())
    cost = load("calibration-cost")["settings"]
    texts = f"{cost['sentences']} texts of {cost['tokens']} tokens"
    return [
        (
            "masking half of the neurons, as the paper does, × dense",
            ratio(mask["speedup"], mask["speedup_interval"]),
        ),
        (
            "bert, 85 % removed at random, points lost: without repair, with",
            " and ".join(f"{ways[f'random/uniform/{repair}/0.85']['drop'][0]:.2f}" for repair in ("none", "auto")),
        ),
        (
            f"bert, the paper's preset bert-1 ({percent(preset['removed_share'], 1)} removed), points lost",
            interval(*preset["drop"]),
        ),
        (
            f"{BAR_MODEL}, 70 % sliced and int8, batch 1, × PyTorch dense in fp32",
            ratio(int8["torch_speedup"], int8["torch_speedup_interval"]),
        ),
        (
            "bert, accuracy dense in fp32, and 70 % sliced in int8",
            " and ".join(percent(bundles[name]["accuracy"][1], 2) for name in ("dense-fp32", "slice-70-int8")),
        ),
        (
            "the paper's job, bert-base, half sliced and bucketed by length, × PyTorch dense and padded",
            ratio(bucketed["torch_speedup"], bucketed["torch_speedup_interval"]),
        ),
        *((f"{name}: {asked} asked", measured) for name, asked, measured, _ in speedup_bars()),
        (f"choosing and repairing bert-base on {texts}: time and memory", f"{seconds}, {peak}"),
        (f"cutting {len(load('surgery'))} files of all exporters: largest error of a logit", surgery_bars()[0][2]),
    ]


def all_bars() -> list[Bar]:
    """Every bar of the sections."""
    return [
        *(bar for body in load("gap") for bar in gap_bars(body)),
        *(
            (f"{model}: {name}", asked, measured, met)
            for model in ("bert", "gpt2")
            for name, asked, measured, met in frontier_bars(model)
        ),
        *score_bars(),
        *speedup_bars(),
        *cost_bars(),
        *startup_bars(),
        *precision_bars(),
        *surgery_bars(),
    ]
