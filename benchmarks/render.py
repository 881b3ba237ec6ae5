"""Write docs/RESULTS.md, PAPER.md, T4.md and the README's table from the JSON files of this folder, every figure."""

import json
from pathlib import Path
from statistics import median

from claims_page import paper_markdown
from frontier_tables import frontier_section, second_training_section
from headline import readme_markdown
from precision_tables import precision_section
from study_tables import score_section, study_section
from surgery_tables import surgery_section

from anatomy_export.bench.stats import paired_ratio
from anatomy_export.bench.tables import (
    HEADINGS,
    PAPER_HEADINGS,
    bench_notes,
    bench_rows,
    markdown_table,
    milliseconds,
    paper_rows,
    ratio,
)

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"


def load(name: str):
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def gap_section() -> str:
    bodies = load("gap.json")
    rounds = ", ".join(
        f"{body['settings']['launches']} launches of {body['settings']['repeats']} rounds at batch "
        f"{body['settings']['batches'][0]}"
        for body in bodies
    )
    rows = [row for body in bodies for row in bench_rows(body)]
    bars = [(*row[:3], "yes" if row[3] else "**no**") for body in bodies for row in gap_bars(body)]
    return f"""## The latency gap

`benchmarks/gap.py`: bert-base shape, 128 tokens, {rounds}. Mask and slice keep the share of neurons in their name.
torch-compile and OpenVINO run dense only.

{markdown_table(HEADINGS, rows)}
{gap_notes(bodies)}
![latency against neurons removed](../benchmarks/gap.svg)

{markdown_table(("bar", "asked", "measured", "met"), bars)}
{chr(10).join(limit_sentence(body) for body in bodies)}
"""


def gap_notes(bodies: list[dict]) -> str:
    """The notes of both batch sizes, and which of them each peak is of."""
    told = [
        note.replace("in the same run", f"in the run at batch {body['settings']['batches'][0]}")
        for body in bodies
        for note in bench_notes(body)
    ]
    return "".join(f"{note}\n\n" for note in dict.fromkeys(told))


def limit_sentence(body: dict) -> str:
    """What the ratio to PyTorch could be at most on this machine."""
    found = {one["worker"]: one for one in body["results"]}
    torch, dense, half = found["torch dense"], found["ort dense"], found["ort slice 0.5"]
    limit = dense["torch_speedup"] / (1 - half["removed_share"])
    return (
        f"Batch {half['batch']}: PyTorch eager dense itself reaches {percent(torch['roofline_share'])} of the roofline "
        f"and ONNX Runtime dense is {dense['torch_speedup']:.2f}× as fast; the plan removes "
        f"{percent(half['removed_share'], 1)} of the FLOPs, so at a closure of 1 the 50 % sliced model would be "
        f"{limit:.2f}× PyTorch eager dense."
    )


def gap_bars(body: dict) -> list[tuple[str, str, str, bool]]:
    """What was asked of this batch size, what was measured, and whether it was met."""
    batch = body["settings"]["batches"][0]
    found = {one["worker"]: one for one in body["results"]}
    half, dense = found["ort slice 0.5"], found["ort dense"]
    slices = [found[f"ort slice {keep}"]["closure"] for keep in ("0.7", "0.5", "0.3")]
    masks = [found[f"ort mask {keep}"]["closure"] for keep in ("0.7", "0.5", "0.3")]
    best = min((one for one in found.values() if one["variant"] == "dense"), key=lambda one: one["median_s"])
    against_best = paired_ratio(best["times_s"], half["times_s"], launches=next(iter(body["launches"].values())))
    least = 1.7 if batch == 1 else 1.5
    removed = "30 / 50 / 70 % removed"
    rows = [
        (f"closure of slice on ORT, {removed}", "≥ 0.90", shown(slices), min(slices) >= 0.9),
        (f"closure of mask on ORT, {removed}", "0 ± 0.05", shown(masks), max(map(abs, masks)) <= 0.05),
        (
            "50 % sliced ORT against PyTorch eager dense",
            f"≥ {least}",
            interval(half, "torch_speedup"),
            half["torch_speedup"] >= least,
        ),
        (
            f"50 % sliced ORT against the best dense engine ({best['engine']})",
            "≥ 1.35",
            ratio(against_best.median, against_best.bounds),
            against_best.median >= 1.35,
        ),
    ]
    if batch == 8:
        for name, one, share in (("ORT dense", dense, 0.9), ("50 % sliced", half, 0.85)):
            found_share = one["roofline_share"]
            rows.append(
                (f"{name}, share of the roofline", f"≥ {percent(share)}", percent(found_share), found_share >= share)
            )
    return [(f"{name}, batch {batch}", asked, measured, met) for name, asked, measured, met in rows]


def harness_section() -> str:
    body = load("gap-harness.json")
    pairs = "; ".join(
        f"batch {one['batch']}: {ratio(one['speedup'], one['speedup_interval'])}"
        for pair in load("gap-pair.json")
        for one in pair["results"][1:]
    )
    coverage = ", ".join(
        f"{percent(share, 1)} of {rounds} rounds" for rounds, share in body["coverage_by_rounds"].items()
    )
    added = 1e3 * median(call["second_s"] for call in body["calls"])
    sentences = [
        f"`benchmarks/gap.py` too. In {body['simulated_runs']:,} seeded simulated runs of two equal engines under "
        f"drift, the 95 % interval of the ratio contains 1 in {coverage}; of 4 launches whose processes differ by "
        f"luck, in {percent(body['coverage_of_launches'], 1)}; with one engine after the other it would in "
        f"{percent(body['coverage_one_after_the_other'], 1)}.",
        f"Two copies of one model, really run: {pairs}.",
        f"The harness adds {percent(body['overhead_share'], 2)} to a call of {added:.0f} ms (the timing itself, and "
        "that the call comes after a wait and not in a tight loop).",
    ]
    return "## The harness itself\n\n" + " ".join(sentences) + "\n"


def paper_section(name: str) -> str:
    body = load(name)
    settings = body["settings"]
    texts_named = " and ".join(body["texts"])
    parts = [
        f"## The paper's job, {settings['model']}, {texts_named}\n\n`{command(settings)}` (`benchmarks/paper_job.py`): "
        f"{settings['examples']:,} texts, batches of {settings['batch']}, {settings['length']} tokens; padded to that, "
        f"or bucketed by length.\n\n![seconds for the job](../benchmarks/{Path(name).stem}.svg)\n"
    ]
    for texts, described in body["texts"].items():
        parts.append(f"{described}\n\n{markdown_table(PAPER_HEADINGS, paper_rows(body, texts))}")
    return "\n".join([*parts, notes(body)])


def command(settings: dict) -> str:
    removed = ",".join(f"{share:g}" for share in settings["removed"])
    variants, texts = ",".join(settings["modes"]), ",".join(settings["texts"])
    return (
        f"anatomy-bench paper --model {settings['model']} --removed {removed} --variant {variants} --texts {texts} "
        f"--examples {settings['examples']}"
    )


def notes(*bodies: dict) -> str:
    return "".join(f"{note}\n\n" for note in dict.fromkeys(note for body in bodies for note in bench_notes(body)))


def interval(one: dict, name: str) -> str:
    return ratio(one[name], one[f"{name}_interval"])


def shown(values: list[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def results_markdown() -> str:
    jobs = sorted(set(HERE.glob("paper-*.json")) - {HERE / "paper-claims.json"})
    papers = [paper_section(path.name) for path in jobs]
    return "\n".join(
        [
            "# Results\n\nWritten by `benchmarks/render.py` from the JSON files beside it.\n",
            gap_section(),
            harness_section(),
            *(frontier_section(path.stem.split("-")[1]) for path in sorted(HERE.glob("frontier-*.json"))),
            *(study_section(path.stem.split("-")[1]) for path in sorted(HERE.glob("study-*.json"))),
            *(section() for name, section in OPTIONAL.items() if (HERE / name).exists()),
            *papers,
        ]
    )


def pareto_section() -> str:
    body = load("pareto-bert.json")
    rows = [
        (
            name.rsplit("/", 1)[0],
            percent(body["results"][name]["removed"]),
            f"{body['results'][name]['speedup']:.2f}",
            percent(body["results"][name]["accuracy"], 1),
            percent(body["test"][name]["accuracy"], 1),
            percent(body["test"][name]["agreement"], 1),
            percent(body["test"][name]["probability_change"], 1),
        )
        for name in body["non_dominated"]
    ]
    latency, settings = body["latency"], body["settings"]
    return f"""## Accuracy against latency, bert

`anatomy pareto --model bert` ({len(body["results"]):,} models, {settings["calibration_examples"]:,} calibration
sentences, seed {settings["seed"]}): the ways that no other beats at both, chosen on validation. Speed is read off a
table of FFN widths timed through ONNX Runtime on {latency["device"]}: batch {latency["batch"]}, {latency["seq_len"]}
tokens.

{markdown_table(("way", "removed", "× dense", "validation", "test", "agreement", "change of probability"), rows)}
Agreement with the dense model's classes and mean change of a class's probability are on test.

![accuracy against speed](../benchmarks/pareto-bert.svg)
"""


def speedup_section() -> str:
    body = load("target-speedup.json")
    row = (
        f"{body['target']:g}",
        f"{body['predicted']:.2f}",
        ratio(body["measured"], body["interval"]),
        "yes" if abs(body["measured"] / body["target"] - 1) <= 0.05 else "**no**",
    )
    environment = body["bench"]["environment"]
    return f"""## A speed asked for

`benchmarks/target_speedup.py`: `--target-speedup {body["target"]:g}` on the bert-base shape, batch 1, 128 tokens, then
timed against the dense model ({machine(environment)}).

{markdown_table(("asked", "predicted by the latency table", "measured", "within 5 %"), [row])}
"""


def machine(environment: dict) -> str:
    """CPU, its widest vectors, threads."""
    vectors = "AVX-512" if "avx512f" in environment["cpu_flags"] else "AVX2"
    return f"{environment['cpu']} with {vectors}, {environment['threads']} threads"


def cost_section() -> str:
    body = load("calibration-cost.json")
    stages, settings = body["stages"], body["settings"]
    rows = [(one["name"], f"{one['seconds']:.0f}", f"{one['peak_rss_bytes'] / 1e9:.2f}") for one in stages]
    seconds = sum(one["seconds"] for one in stages if one["name"] != "load")
    peak = max(one["peak_rss_bytes"] for one in stages) / 1e9
    bars = [
        ("time without loading", "< 8 min", f"{seconds / 60:.1f} min", "yes" if seconds < 480 else "**no**"),
        ("peak memory", "< 3 GB", f"{peak:.2f} GB", "yes" if peak < 3 else "**no**"),
    ]
    return f"""## What choosing and repairing costs

`benchmarks/calibration_cost.py`: bert-base, {settings["sentences"]} sentences of {settings["tokens"]} tokens, half of
the neurons kept ({machine(body["environment"])}).

{markdown_table(("stage", "s", "peak memory, GB"), rows)}
{markdown_table(("bar", "asked", "measured", "met"), bars)}
"""


OPTIONAL = {
    "second-training.json": second_training_section,
    "score-cost.json": score_section,
    "pareto-bert.json": pareto_section,
    "target-speedup.json": speedup_section,
    "calibration-cost.json": cost_section,
    "precision.json": precision_section,
    "surgery.json": surgery_section,
}


T4_TEXT = """# On a T4

Measured by this project: not measured. Nobody has run it on a T4 yet.

To do it, open `benchmarks/t4.ipynb` on a machine with a T4 (a free Colab runtime has one), or:

```sh
pip install '.[gpu,report]'                  # onnxruntime-gpu 1.31 wants CUDA 13 and cuDNN 9
pip install 'onnxruntime-gpu[cuda,cudnn]'    # where the system does not have them
anatomy doctor --require cuda                # exit code 3, and why, if CUDA does not really start
anatomy-bench paper --model bert-base --provider cuda --removed 0.5 --variant dense,slice
anatomy-bench --model bert-base --provider cuda --backend ort --io-binding off,on --cuda-graph off,on
```

Every engine and variant has a process of its own, with its own CUDA context and copy of the weights: on a card of 16 GB
take one share of removed neurons at a time, as above, not the whole ladder at once.

## What to expect at best: a prediction, not a measurement

`benchmarks/t4.py`: every FLOP at the card's peak (8.1 TFLOP/s fp32, 65 TFLOP/s fp16), the weights read once a batch at
320 GB/s, whichever takes longer. Real engines stay above it. Published for a T4, BERT-base, batch 1, 128 tokens, fp16:
ONNX Runtime 2.19 ms (onnxruntime PR 12670), TorchScript 10.5 ms (NVIDIA/FasterTransformer, docs/bert_guide.md). The
paper took 10.29 s for its job, dense, with TensorFlow in fp32 once warm, and as long with 65 % of the neurons masked.

"""


def t4_markdown() -> str:
    rows = [
        (one["job"], one["precision"], percent(one["removed"]), milliseconds(one["at_least_s"]))
        for one in load("t4.json")
    ]
    return T4_TEXT + markdown_table(("bert-base", "precision", "neurons removed", "at least, ms"), rows)


def pages() -> dict[Path, str]:
    """Every page with figures, as it should be."""
    readme = HERE.parent / "README.md"
    return {
        DOCS / "RESULTS.md": results_markdown(),
        DOCS / "PAPER.md": paper_markdown(),
        DOCS / "T4.md": t4_markdown(),
        readme: readme_markdown(readme.read_text(encoding="utf-8")),
    }


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
