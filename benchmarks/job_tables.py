"""The sections of paper-<name>.json: the paper's job, padded and bucketed."""

from cells import load

from anatomy_export.bench.tables import PAPER_HEADINGS, bench_notes, markdown_table, paper_rows


def job_section(name: str) -> str:
    body = load(name)
    settings = body["settings"]
    texts_named = " and ".join(body["texts"])
    parts = [
        f"## The paper's job, {settings['model']}, {texts_named}\n\n`{command(settings)}` (`benchmarks/paper_job.py`): "
        f"{settings['examples']:,} texts, batches of {settings['batch']}, {settings['length']} tokens; padded to that, "
        f"or bucketed by length.\n\n![seconds for the job](../benchmarks/{name}.svg)\n"
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


def notes(body: dict) -> str:
    return "".join(f"{note}\n\n" for note in dict.fromkeys(bench_notes(body)))
