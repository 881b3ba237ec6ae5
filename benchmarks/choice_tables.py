"""The sections of pareto-bert.json, target-speedup.json and calibration-cost.json: what choosing gives and costs."""

from cells import BAR_HEADINGS, Bar, load, percent, yes

from anatomy_export.bench.tables import markdown_table, ratio


def pareto_section() -> str:
    body = load("pareto-bert")
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

`anatomy pareto --model bert` ({body["models"]:,} models, {settings["calibration_examples"]:,} calibration
sentences, seed {settings["seed"]}): the ways that no other beats at both, chosen on validation. Speed is read off a
table of FFN widths timed through ONNX Runtime on {latency["device"]}: batch {latency["batch"]}, {latency["seq_len"]}
tokens.

{markdown_table(("way", "removed", "× dense", "validation", "test", "agreement", "change of probability"), rows)}
Agreement with the dense model's classes and mean change of a class's probability are on test.

![accuracy against speed](../benchmarks/pareto-bert.svg)
"""


def speedup_section() -> str:
    body = load("target-speedup")
    predicted = f"{body['predicted']:.2f}"
    rows = [(asked, predicted, measured, met) for _, asked, measured, met in speedup_bars()]
    environment = body["bench"]["environment"]
    return f"""## A speed asked for

`benchmarks/target_speedup.py`: `--target-speedup {body["target"]:g}` on the bert-base shape, batch 1, 128 tokens, then
timed against the dense model ({machine(environment)}).

{markdown_table(("asked", "predicted by the latency table", "measured", "within 5 %"), rows)}
"""


def speedup_bars() -> list[Bar]:
    body = load("target-speedup")
    met = yes(abs(body["measured"] / body["target"] - 1) <= 0.05)
    return [("a speed asked for, bert-base", f"{body['target']:g}", ratio(body["measured"], body["interval"]), met)]


def machine(environment: dict) -> str:
    """CPU, its widest vectors, threads."""
    vectors = "AVX-512" if "avx512f" in environment["cpu_flags"] else "AVX2"
    return f"{environment['cpu']} with {vectors}, {environment['threads']} threads"


def cost_section() -> str:
    body = load("calibration-cost")
    settings = body["settings"]
    rows = [
        (stage["name"], f"{stage['seconds']:.0f}", f"{stage['peak_rss_bytes'] / 1e9:.2f}") for stage in body["stages"]
    ]
    return f"""## What choosing and repairing costs

`benchmarks/calibration_cost.py`: bert-base, {settings["sentences"]} sentences of {settings["tokens"]} tokens, half of
the neurons kept ({machine(body["environment"])}).

{markdown_table(("stage", "s", "peak memory, GB"), rows)}
{markdown_table(BAR_HEADINGS, cost_bars())}
"""


def cost_bars() -> list[Bar]:
    stages = load("calibration-cost")["stages"]
    seconds = sum(stage["seconds"] for stage in stages if stage["name"] != "load")
    peak = max(stage["peak_rss_bytes"] for stage in stages) / 1e9
    return [
        ("time without loading", "< 8 min", f"{seconds / 60:.1f} min", yes(seconds < 480)),
        ("peak memory", "< 3 GB", f"{peak:.2f} GB", yes(peak < 3)),
    ]
