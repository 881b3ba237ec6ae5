"""Tiny seeded models of every family, with a tokenizer made on the spot: no unit test needs a network."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import transformers
from click.testing import CliRunner
from graph_cache import graphs_kept
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from anatomy_export.cli import main
from anatomy_export.core.json_files import checksum
from anatomy_export.jobs.export_request import ExportResult
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.flops import count_flops
from anatomy_export.models.prune import slice_neurons
from anatomy_export.models.supported_families import FAMILIES, model_blocks

WORDS = [
    "the",
    "film",
    "is",
    "a",
    "good",
    "bad",
    "great",
    "awful",
    "story",
    "acting",
    "plot",
    "and",
    "but",
    "not",
    "very",
    "I",
    "walked",
    "out",
    "of",
    "cinema",
    "never",
]
PROGRESS = ("✓ ", "model ", "note: ")
FAMILY_NAMES = sorted(FAMILIES)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background
torch.set_num_threads(1)  # tiny products: more threads only wait for each other


def tiny_tokenizer(model_type: str):
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    vocabulary = {token: index for index, token in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    inputs = ["input_ids", "attention_mask"]
    if model_type in ("bert", "electra"):
        inputs.insert(1, "token_type_ids")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=inputs,
    )


def tiny_config(model_type: str, *, layers: int = 3, hidden: int = 16, heads: int = 2, width: int = 24):
    vocabulary = len(WORDS) + 4
    if model_type == "gpt2":
        return transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=64,
            n_embd=hidden,
            n_layer=layers,
            n_head=heads,
            n_inner=width,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            use_cache=False,
            num_labels=2,
        )
    if model_type == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=vocabulary,
            max_position_embeddings=64,
            dim=hidden,
            n_layers=layers,
            n_heads=heads,
            hidden_dim=width,
            pad_token_id=0,
            num_labels=2,
        )
    return transformers.CONFIG_MAPPING[model_type](
        vocab_size=vocabulary,
        max_position_embeddings=66,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=width,
        pad_token_id=0,
        num_labels=2,
    )


def tiny_checkpoint(model_type: str, *, seed: int = 0, **shape) -> Checkpoint:
    """Weights large enough for every neuron to matter, biases that are not zero."""
    transformers.set_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_config(tiny_config(model_type, **shape)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.2)
        for block in model_blocks(model):
            block.up_weight.normal_(0, 0.3)
            block.down_weight.normal_(0, 0.3)
    return Checkpoint(model, tiny_tokenizer(model_type))


@pytest.fixture(autouse=True, scope="session")
def kept_graphs(tmp_path_factory, worker_id):
    """Each graph of a tiny model is exported once, by whichever worker needs it first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "graphs"
    folder.mkdir(exist_ok=True)
    with graphs_kept(folder):
        yield


@pytest.fixture
def plan_only(monkeypatch):
    """The main job ends with its plan and repair: what it does with them is tested elsewhere."""

    def write_plan(job, target: Path) -> ExportResult:
        (job.staging / "plan.json").write_text(job.plan.to_json())
        if job.repair is not None:
            job.repair.save(job.staging)
        models = (job.checkpoint.model, slice_neurons(job.checkpoint.model, job.plan, job.repair))
        return ExportResult(
            output=target,
            neurons=(sum(job.plan.widths), sum(job.plan.kept_widths)),
            parameters=(2, 1),
            flops=tuple(count_flops(model).total(1, job.flops_tokens) for model in models),
            flops_tokens=job.flops_tokens,
            size_bytes=(2, 1),
            accuracy=(None, None),
            max_abs_error=0.0,
            operators={},
            stages=(),
        )

    monkeypatch.setattr("anatomy_export.jobs.export._ship", write_plan)


@pytest.fixture(params=FAMILY_NAMES)
def family_name(request) -> str:
    return request.param


@pytest.fixture
def bert_directory(tmp_path: Path) -> Path:
    """A tiny BERT classifier saved as transformers would save it."""
    return saved_dense(tiny_checkpoint("bert"), tmp_path / "tiny-bert")


def saved_dense(checkpoint: Checkpoint, directory: Path) -> Path:
    checkpoint.model.save_pretrained(directory)
    checkpoint.tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    rows = [f"the {WORDS[i % 20]} film {WORDS[(i * 7) % 20]},{i % 2}" for i in range(60)]
    path = tmp_path / "data.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def made_bundle(tmp_path_factory) -> Path:
    """A sliced and repaired bundle of a tiny BERT with model.ort beside; not to be changed."""
    folder = tmp_path_factory.mktemp("bundle")
    saved_dense(tiny_checkpoint("bert"), folder / "tiny-bert")
    (folder / "tiny-bert" / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Tiny\n")
    rows = [f"the good {word} film,1\nawful {word} acting and plot,0\n" for word in (*WORDS, *WORDS[:9])]
    (folder / "data.csv").write_text("text,label\n" + "".join(rows))
    arguments = ["--model", folder / "tiny-bert", "--data", folder / "data.csv", "--keep-ratio", "0.5", "--align", "1"]
    result = run("export", *arguments, "--compensate", "bias", "--ort-format", "--output", folder / "made")
    assert result.exit_code == 0, result.stderr
    return folder / "made"


def rewrite_manifest(bundle: Path, change) -> None:
    """Change a bundle's manifest and give it the checksum of what it then holds."""
    body = json.loads((bundle / "bundle.json").read_text())
    change(body)
    body["checksum"] = checksum(body)
    (bundle / "bundle.json").write_text(json.dumps(body))


def files_that_tell(directory: Path, *places: Path) -> list[str]:
    """The files, of any kind, that hold the path of one of `places`, of the home directory or of Python's."""
    told = [str(place).encode() for place in (*places, Path.home(), sys.prefix) if len(str(place)) > 1]
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    return sorted(path.name for path in files if any(place in path.read_bytes() for place in told))


def run(*arguments, command=main, judge_labels=False):
    """A command in this process; `judge_labels` as a user has it."""
    taken = list(map(str, arguments)) if judge_labels else with_bad_labels(arguments)
    return CliRunner(env={"COLUMNS": "400"}).invoke(command, taken)


def with_bad_labels(arguments) -> list[str]:
    """The arguments as text, and leave to go on where labels are judged: those of tiny random models are made up."""
    taken = list(map(str, arguments))
    judged = taken[:1] in (["export"], ["pareto"], ["study"]) and "--data" in taken and "--unlabelled" not in taken
    return [*taken, "--allow-bad-labels"] if judged else taken


def refused(result, output: Path, code: int, *parts: str):
    """One line on standard error, this exit code, nothing at the output path or beside it."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith(PROGRESS)]
    errors = [line for line in lines if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    assert errors[0] == lines[-1] and (code == 2 or len(lines) == 1), result.stderr
    for part in parts:
        assert part in errors[0]
    assert not output.exists()
    assert not list(output.parent.glob(".*partial*"))


def spawn(*arguments, limit: int | None = None) -> subprocess.Popen:
    """A command in a process of its own; `limit` is the largest file, in bytes, that it may write."""

    def limits():
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, Path(__file__).with_name("started_cli.py"), *with_bad_labels(arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limits)


class Boom:
    """Unpickled, it opens a file for writing: code that runs."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))
