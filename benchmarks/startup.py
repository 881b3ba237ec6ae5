"""What the command line takes on a tiny model: processor and wall time of importing, `--help`, and a whole export.

Run `.venv/bin/python benchmarks/startup.py` on an idle machine. Every measurement has a process of its own. Writes
startup.json beside this file.
"""

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from summarize import write_json
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from anatomy_export.bench.environment import describe_environment
from anatomy_export.core.platform import usable_cores
from anatomy_export.data.probes import BUILT_IN_PROBES

WORDS = sorted({word for probe in BUILT_IN_PROBES for word in re.findall("[a-z]+", probe.lower())})
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
LAYERS, HIDDEN, ROWS, RUNS = 2, 32, 120, 5
ANATOMY = Path(sys.executable).with_name("anatomy")
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import anatomy_export": [sys.executable, "-c", "import anatomy_export"],
    "anatomy --help": [str(ANATOMY), "--help"],
    "anatomy export --help": [str(ANATOMY), "export", "--help"],
    "import torch and transformers": [sys.executable, "-c", "import torch, transformers; transformers.BertModel"],
}


def main() -> None:
    environment = describe_environment(usable_cores())
    with tempfile.TemporaryDirectory() as folder:
        model, data = tiny_model(Path(folder) / "tiny"), labelled_text(Path(folder) / "texts.csv")
        export = [str(ANATOMY), "export", "--model", str(model), "--data", str(data), "--json", "--force"]
        export += ["--allow-bad-labels", "--align", "1", "--keep-ratio", "0.5", "--output", str(Path(folder) / "out")]
        commands = {**COMMANDS, "anatomy export": export}
        runs: dict[str, list[dict]] = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, command in commands.items():
                runs[name].append(timed(command))
                print(name, {key: runs[name][-1][key] for key in ("wall_s", "cpu_s")}, flush=True)
    body = {
        "environment": environment,
        "settings": {"layers": LAYERS, "hidden": HIDDEN, "rows": ROWS, "runs": RUNS},
        "commands": {name: medians(of_name) for name, of_name in runs.items()},
    }
    write_json(Path(__file__).with_name("startup.json"), body)


def timed(command: list[str]) -> dict:
    """Seconds of one process, the user's and the system's of it and of its children, and the stages that it tells."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    stages = json.loads(done.stdout)["stages"] if "--json" in command else []
    return {"wall_s": wall, "cpu_s": spent, "stages": {stage["name"]: stage["seconds"] for stage in stages}}


def medians(runs: list[dict]) -> dict:
    """Of each measure over the runs, in seconds."""
    stages = {name: round(statistics.median(run["stages"][name] for run in runs), 3) for name in runs[0]["stages"]}
    measures = {key: round(statistics.median(run[key] for run in runs), 3) for key in ("wall_s", "cpu_s")}
    return {**measures, "stages": stages}


def tiny_model(directory: Path) -> Path:
    """A BERT classifier of random weights with a tokenizer of whole words."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(directory)
    return directory


def labelled_text(path: Path) -> Path:
    count = len(WORDS)
    rows = [f"the film {WORDS[row % count]} {WORDS[row * 7 % count]} {row},{row % 2}\n" for row in range(ROWS)]
    path.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
