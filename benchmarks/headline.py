"""The README's measured table, from the frontier of bert and the latency gap; render.py puts it there."""

from cells import interval, load, percent
from summarize import DEFAULT, LEVELS

from anatomy_export.bench.tables import markdown_table, ratio

BEGIN, END = "<!-- measured: written by benchmarks/render.py -->\n", "<!-- end of measured -->\n"
NOT_MEASURED = "not measured"


def readme_markdown(readme: str) -> str:
    """The README with its measured table written anew."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + headline_section() + END + rest.split(END)[1]


def headline_section() -> str:
    frontier = load("frontier-bert")
    default = {level: frontier["ways"][f"{DEFAULT}/{level:g}"] for level in LEVELS}
    accuracy = percent(frontier["dense_accuracy"], 2)
    body = load("gap")[0]
    results = {result["worker"]: result for result in body["results"]}
    rows = [
        (
            percent(level),
            interval(*way["drop"]),
            *(speedup(results, variant, level, against) for variant, against in COLUMNS),
        )
        for level, way in default.items()
    ]
    seeds = default[LEVELS[0]]["seeds"]
    environment = body["environment"]
    return f"""
{markdown_table(HEADINGS, rows)}
Accuracy: the embedded 6-layer BERT, {frontier["texts"]:,} test sentences, dense accuracy
{accuracy}, mean of {seeds} calibration samples, 95 % interval. Speed: the bert-base shape,
batch 1, 128 tokens, fp32, {environment["cpu"]}, {environment["threads"]} threads, ONNX Runtime against itself dense
and against PyTorch dense. How, and all else: [docs/RESULTS.md](docs/RESULTS.md).

"""


HEADINGS = (
    "FFN neurons removed",
    "accuracy lost, points",
    "masked, × dense",
    "sliced, × dense",
    "sliced, × PyTorch dense",
)
COLUMNS = (("mask", "speedup"), ("slice", "speedup"), ("slice", "torch_speedup"))


def speedup(results: dict[str, dict], variant: str, removed: float, against: str) -> str:
    result = results.get(f"ort {variant} {1 - removed:g}")
    return NOT_MEASURED if result is None else ratio(result[against], result[f"{against}_interval"])
