"""What the command line itself takes, as a section of docs/RESULTS.md."""

from cells import BAR_HEADINGS, Bar, load
from choice_tables import machine

from anatomy_export.bench.tables import markdown_table

BARS = {"import anatomy_export": 0.3, "anatomy --help": 0.3, "anatomy export": 10.0}


def startup_section() -> str:
    body = load("startup")
    settings, commands = body["settings"], body["commands"]
    rows = [(f"`{name}`", f"{spent['wall_s']:.2f}", f"{spent['cpu_s']:.2f}") for name, spent in commands.items()]
    stages = [(name, f"{seconds:.2f}") for name, seconds in commands["anatomy export"]["stages"].items()]
    told = sum(commands["anatomy export"]["stages"].values())
    stages.append(("importing, and the rest", f"{commands['anatomy export']['wall_s'] - told:.2f}"))
    return f"""## What the command line takes

`benchmarks/startup.py`: a BERT of {settings["layers"]} layers of {settings["hidden"]}, {settings["rows"]} texts;
medians of {settings["runs"]} processes, on an idle machine; {machine(body["environment"])}.
The export ends with its check in a process without torch.

{markdown_table(("process", "wall, s", "processor, s"), rows)}
{markdown_table(("stage of `anatomy export`", "s"), stages)}
{markdown_table(BAR_HEADINGS, startup_bars())}"""


def startup_bars() -> list[Bar]:
    commands = load("startup")["commands"]
    return [
        (
            name,
            f"< {limit:g} s",
            f"{commands[name]['wall_s']:.2f} s",
            "yes" if commands[name]["wall_s"] < limit else "no",
        )
        for name, limit in BARS.items()
    ]
