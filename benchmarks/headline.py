"""The README's measured table, from the frontier of bert and the latency gap; render.py puts it there."""

import json
from pathlib import Path

from frontier_tables import DEFAULT, LEVELS, Study, interval, level_name

from anatomy_export.bench.tables import markdown_table, ratio

HERE = Path(__file__).parent
BEGIN, END = "<!-- measured: written by benchmarks/render.py -->\n", "<!-- end of measured -->\n"
NOT_MEASURED = "not measured"


def readme_markdown(readme: str) -> str:
    """The README with its measured table written anew."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + headline_section() + END + rest.split(END)[1]


def headline_section() -> str:
    study = Study("frontier-bert")
    body = json.loads((HERE / "gap.json").read_text(encoding="utf-8"))[0]
    found = {one["worker"]: one for one in body["results"]}
    rows = [
        (
            level_name(level),
            interval(*study.drop(f"{DEFAULT}/{level:g}")),
            *(speedup(found, variant, level, against) for variant, against in COLUMNS),
        )
        for level in LEVELS
    ]
    seeds = study.groups[f"{DEFAULT}/{LEVELS[0]:g}"].seeds
    environment = body["environment"]
    return f"""
{markdown_table(HEADINGS, rows)}
Accuracy: the embedded 6-layer BERT, {len(study.dense_right):,} test sentences, dense accuracy
{100 * study.dense_right.mean():.2f} %, mean of {seeds} calibration samples, 95 % interval. Speed: the bert-base shape,
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


def speedup(found: dict[str, dict], variant: str, removed: float, against: str) -> str:
    one = found.get(f"ort {variant} {1 - removed:g}")
    return NOT_MEASURED if one is None else ratio(one[against], one[f"{against}_interval"])
