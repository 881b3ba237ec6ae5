"""The sections of gap.json, gap-pair.json and gap-harness.json: latency by engine and variant, and the harness."""

from cells import BAR_HEADINGS, Bar, load, percent, yes

from anatomy_export.bench.tables import HEADINGS, bench_notes, bench_rows, markdown_table, ratio


def gap_section() -> str:
    bodies = load("gap")
    rounds = ", ".join(
        f"{body['settings']['launches']} launches of {body['settings']['repeats']} rounds at batch "
        f"{body['settings']['batches'][0]}"
        for body in bodies
    )
    rows = [row for body in bodies for row in bench_rows(body)]
    return f"""## The latency gap

`benchmarks/gap.py`: bert-base shape, 128 tokens, {rounds}. Mask and slice keep the share of neurons in their name.
torch-compile and OpenVINO run dense only.

{markdown_table(HEADINGS, rows)}
{gap_notes(bodies)}
![latency against neurons removed](../benchmarks/gap.svg)

{markdown_table(BAR_HEADINGS, [bar for body in bodies for bar in gap_bars(body)])}
{chr(10).join(limit_sentence(body) for body in bodies)}
"""


def gap_notes(bodies: list[dict]) -> str:
    """The notes of both batch sizes, and which of them each peak is of."""
    notes = [
        note.replace("in the same run", f"in the run at batch {body['settings']['batches'][0]}")
        for body in bodies
        for note in bench_notes(body)
    ]
    return "".join(f"{note}\n\n" for note in dict.fromkeys(notes))


def limit_sentence(body: dict) -> str:
    """What the ratio to PyTorch could be at most on this machine."""
    results = results_by_worker(body)
    torch, dense, half = results["torch dense"], results["ort dense"], results["ort slice 0.5"]
    limit = dense["torch_speedup"] / (1 - half["removed_share"])
    return (
        f"Batch {half['batch']}: PyTorch eager dense itself reaches {percent(torch['roofline_share'])} of the roofline "
        f"and ONNX Runtime dense is {dense['torch_speedup']:.2f}× as fast; the plan removes "
        f"{percent(half['removed_share'], 1)} of the FLOPs, so at a closure of 1 the 50 % sliced model would be "
        f"{limit:.2f}× PyTorch eager dense."
    )


def gap_bars(body: dict) -> list[Bar]:
    """What was asked of this batch size, what was measured, and whether it was met."""
    batch = body["settings"]["batches"][0]
    results = results_by_worker(body)
    half, dense, best = results["ort slice 0.5"], results["ort dense"], body["against_best_dense"]
    slices = [results[f"ort slice {keep}"]["closure"] for keep in ("0.7", "0.5", "0.3")]
    masks = [results[f"ort mask {keep}"]["closure"] for keep in ("0.7", "0.5", "0.3")]
    least = 1.7 if batch == 1 else 1.5
    removed = "30 / 50 / 70 % removed"
    rows = [
        (f"closure of slice on ORT, {removed}", "≥ 0.90", shown(slices), min(slices) >= 0.9),
        (f"closure of mask on ORT, {removed}", "0 ± 0.05", shown(masks), max(map(abs, masks)) <= 0.05),
        (
            "50 % sliced ORT against PyTorch eager dense",
            f"≥ {least}",
            ratio(half["torch_speedup"], half["torch_speedup_interval"]),
            half["torch_speedup"] >= least,
        ),
        (
            f"50 % sliced ORT against the best dense engine ({best['engine']})",
            "≥ 1.35",
            ratio(best["ratio"], best["interval"]),
            best["ratio"] >= 1.35,
        ),
    ]
    if batch == 8:
        for name, result, asked in (("ORT dense", dense, 0.9), ("50 % sliced", half, 0.85)):
            share = result["roofline_share"]
            rows.append((f"{name}, share of the roofline", f"≥ {percent(asked)}", percent(share), share >= asked))
    return [(f"{name}, batch {batch}", asked, measured, yes(met)) for name, asked, measured, met in rows]


def results_by_worker(body: dict) -> dict[str, dict]:
    return {result["worker"]: result for result in body["results"]}


def shown(values: list[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)


def harness_section() -> str:
    body = load("gap-harness")
    pairs = "; ".join(
        f"batch {result['batch']}: {ratio(result['speedup'], result['speedup_interval'])}"
        for pair in load("gap-pair")
        for result in pair["results"][1:]
    )
    coverage = ", ".join(
        f"{percent(share, 1)} of {rounds} rounds" for rounds, share in body["coverage_by_rounds"].items()
    )
    sentences = [
        f"`benchmarks/gap.py` too. In {body['simulated_runs']:,} seeded simulated runs of two equal engines under "
        f"drift, the 95 % interval of the ratio contains 1 in {coverage}; of 4 launches whose processes differ by "
        f"luck, in {percent(body['coverage_of_launches'], 1)}; with one engine after the other it would in "
        f"{percent(body['coverage_one_after_the_other'], 1)}.",
        f"Two copies of one model, really run: {pairs}.",
        f"The harness adds {percent(body['overhead_share'], 2)} to a call of {1e3 * body['median_call_s']:.0f} ms (the "
        "timing itself, and that the call comes after a wait and not in a tight loop).",
    ]
    return "## The harness itself\n\n" + " ".join(sentences) + "\n"
