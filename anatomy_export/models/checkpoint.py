"""Checkpoints in Hugging Face layout: loaded strictly, saved with their per-layer FFN widths.

No loader here may initialise a weight anew: every tensor of the model comes from the file, and every tensor of the
file goes into the model. The one exception is a classification head that is asked for (`allow_random_head`).
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from anatomy_export.core.errors import AnatomyError, first_line
from anatomy_export.core.files import MANIFEST, sha256_file
from anatomy_export.models.recognise import (
    HARMLESS_EXTRA,
    check_config,
    check_head,
    check_stored_types,
    check_task,
    no_head,
    refuse_wrapped_names,
    require_checkpoint,
    require_classes,
)
from anatomy_export.models.supported_families import family_of, model_blocks
from anatomy_export.models.tokenizing import (
    check_tokenizer,
    fit_tokenizer,
    forget_last_call,
    require_tokenizer_files,
    settle_padding,
    settle_token_types_,
)

WIDTHS_KEY = "anatomy_ffn_widths"
DEFAULT_SEQUENCE = 128
LEGACY_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclass(frozen=True)
class Checkpoint:
    """A classifier in evaluation mode on the CPU in float32, with its tokenizer.

    `random_head`: the classification head was missing and is freshly initialised.
    """

    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    random_head: bool = False


def checkpoint_of(directory) -> Path | str:
    """The checkpoint directory inside a bundle, or the argument itself where it is no bundle.

    Raises:
        AnatomyError: a bundle without a checkpoint.
    """
    path = Path(directory)
    if not (path / MANIFEST).is_file():
        return directory
    if not (path / "checkpoint").is_dir():
        raise AnatomyError(f"bundle {path} holds no checkpoint; next step: export it again with --with-checkpoint")
    return path / "checkpoint"


def load_checkpoint(
    source: str, *, allow_random_head: bool = False, num_labels: int | None = None, seed: int = 0
) -> Checkpoint:
    """Load a directory or hub id, dense or sliced by this toolkit.

    Args:
        num_labels: classes of a missing head, which `seed` initialises; a head that is there keeps its own.

    Raises:
        AnatomyError: nothing there, no classifier of a supported family, a damaged file, weights that are missing,
            left over or not finite, no tokenizer that fits, or a hub that does not answer.
    """
    require_checkpoint(source)
    config = _from_hub(transformers.AutoConfig.from_pretrained, source)
    family = family_of(config)
    check_config(source, config, family)
    check_task(source, config, fresh_head=allow_random_head)
    check_stored_types(source)
    _settle(config)
    random_head = False
    if getattr(config, WIDTHS_KEY, None):
        model = _load_sliced(source, config)
    else:
        model, random_head = _load_dense(source, config, allow_random_head, num_labels, seed)
    if not random_head:
        require_classes(source, model.config)
    require_tokenizer_files(source)
    tokenizer = _from_hub(transformers.AutoTokenizer.from_pretrained, source, part="its tokenizer ")
    check_tokenizer(tokenizer, config, source)
    settle_token_types_(model, tokenizer, family, source)
    fit_tokenizer(tokenizer, family)
    _check_finite(model, source)
    settle_padding(model, tokenizer, source)
    model_blocks(model)
    return Checkpoint(model.eval(), tokenizer, random_head)


def _settle(config) -> None:
    """Undo what changes how a model is run and what it returns, and not its logits."""
    config.chunk_size_feed_forward = 0  # the same function of any number of tokens
    config.return_dict = True
    if getattr(config, "torchscript", False):
        config.torchscript = False
    config.output_hidden_states = config.output_attentions = False


def save_checkpoint(checkpoint: Checkpoint, directory: Path) -> None:
    """Save weights as safetensors, config with the FFN widths, and tokenizer into `directory`.

    Raises:
        AnatomyError: a file cannot be written.
    """
    model = checkpoint.model
    setattr(model.config, WIDTHS_KEY, [block.width for block in model_blocks(model)])
    model.config.architectures = [type(model).__name__]
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    forget_last_call(checkpoint.tokenizer)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        model.config.save_pretrained(directory)
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        checkpoint.tokenizer.save_pretrained(directory)
    except Exception as error:  # the tokenizers library raises bare Exception where a write fails
        raise AnatomyError(
            f"cannot write the checkpoint ({first_line(error)}); next step: check the free space"
        ) from error


def text_limit(checkpoint: Checkpoint, asked: int | None, option: str = "--max-length") -> int:
    """Tokens that a text is cut off at: `asked` by `option`, or what the model and its tokenizer take, as transformers'
    pipeline cuts it.

    Raises:
        AnatomyError: more than the model takes is asked for.
    """
    limit = _positions(checkpoint, asked, option)
    return asked or min(limit, checkpoint.tokenizer.model_max_length)


def sequence_length(checkpoint: Checkpoint, asked: int | None, option: str = "--seq-len") -> int:
    """Tokens of the sequences that are timed: `asked` by `option`, or 128 or what the model takes, whichever is less.

    Raises:
        AnatomyError: more than the model takes is asked for.
    """
    limit = _positions(checkpoint, asked, option)
    return asked or min(DEFAULT_SEQUENCE, limit)


def _positions(checkpoint: Checkpoint, asked: int | None, option: str) -> int:
    limit = family_of(checkpoint.model.config).max_positions(checkpoint.model.config)
    if asked is not None and asked > limit:
        raise AnatomyError(f"{option} is {asked}, this model takes at most {limit} tokens; next step: ask for less")
    return limit


def weights_identity(source: str, model) -> dict[str, str]:
    """Which weights these are: the hub's `revision` (commit), or `weights_sha256` of a directory's file or files."""
    path = Path(source)
    if not path.is_dir():
        commit = getattr(model.config, "_commit_hash", None) or _snapshot(source)
        return {"revision": commit} if commit else {}
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
    digests = [sha256_file(file) for file in files]
    if len(digests) == 1:
        return {"weights_sha256": digests[0]}
    return {"weights_sha256": hashlib.sha256("".join(digests).encode()).hexdigest()}


def _snapshot(source: str) -> str | None:
    """The commit of a hub id's files in the hub's cache, where they lie in a directory of that name."""
    name = Path(str(transformers.utils.cached_file(source, "config.json"))).parent.name
    return name if re.fullmatch("[0-9a-f]{40}", name) else None


def build_with_widths(config, widths: list[int]) -> transformers.PreTrainedModel:
    """An uninitialised classifier whose FFN blocks have `widths` neurons."""
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    blocks = model_blocks(model)
    if len(widths) != len(blocks):
        raise AnatomyError(f"config records {len(widths)} FFN widths for {len(blocks)} layers")
    for block, width in zip(blocks, widths, strict=True):
        if not isinstance(width, int) or not 1 <= width <= block.width:
            raise AnatomyError(
                f"layer {block.layer}: config records FFN width {width!r}, expected 1–{block.width}; "
                "the checkpoint is damaged"
            )
        block.resize_(block.up_weight[:width], block.up_bias[:width], block.down_weight[:width])
    return model.float()


def _from_hub(load, source: str, part: str = "", **options):
    try:
        return load(source, trust_remote_code=False, **options)
    except AnatomyError:
        raise
    except Exception as error:
        if Path(source).is_dir():
            raise AnatomyError(
                f"model {source}: {part}cannot be loaded ({type(error).__name__}: {first_line(error)[:300]}); "
                "next step: check its files, or save it again with save_pretrained"
            ) from error
        raise _nothing_from_hub(source, error) from error


def _nothing_from_hub(source: str, error: Exception) -> AnatomyError:
    return AnatomyError(
        f"model {source}: not a directory here, and the hub gave nothing ({first_line(error)[:200]}); "
        "next step: check the name and the network, or pass a directory"
    )


def _load_dense(source: str, config, allow_random_head: bool, num_labels: int | None, seed: int):
    """The model, and whether its head is freshly initialised."""
    model, info = _read_dense(source, config, seed)
    missing = sorted(info["missing_keys"])
    extra = sorted(key for key in info["unexpected_keys"] if not HARMLESS_EXTRA.search(key))
    prefix = model.base_model_prefix + "."
    body = [key for key in missing if key.startswith(prefix) and ".pooler." not in key]
    refuse_wrapped_names(source, body, extra)
    _check_shapes(source, info["mismatched_keys"])
    if body:
        raise AnatomyError(
            f"model {source}: {len(body)} tensors are missing or of another shape, first {body[0]}; "
            "next step: restore its files, or save it again with save_pretrained"
        )
    check_head(source, config, missing, extra, [key for key in model.state_dict() if not key.startswith(prefix)])
    if missing and not allow_random_head:
        raise no_head(source, f"it lacks {', '.join(missing)}")
    if extra and not missing:
        raise AnatomyError(
            f"model {source}: {len(extra)} tensors of the file have no place in the model: {extra[0]}, …; "
            "next step: save it again with save_pretrained"
        )
    classes = num_labels or max(2, config.num_labels)
    if missing and classes != config.num_labels:
        config.num_labels = classes
        model, _ = _read_dense(source, config, seed)
    return model, bool(missing)


def _check_shapes(source: str, mismatched) -> None:
    """`mismatched`: tensors whose shape is not the model's, by name or as (name, shape in the file, shape wanted)."""
    if not mismatched:
        return
    first = min(mismatched, key=str)
    name, shapes = (first, "") if isinstance(first, str) else (first[0], f" ({tuple(first[1])}, not {tuple(first[2])})")
    raise AnatomyError(
        f"model {source}: {len(mismatched)} tensors have another shape than its config says, first {name}{shapes}; "
        "next step: pass the config.json that the weights were saved with"
    )


def _read_dense(source: str, config, seed: int):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _from_hub(
            transformers.AutoModelForSequenceClassification.from_pretrained,
            source,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told in the loading info
            dtype=torch.float32,
        )


def _load_sliced(source: str, config):
    model = build_with_widths(config, list(getattr(config, WIDTHS_KEY)))
    file = _sliced_weights(source)
    try:
        tensors = {_current_name(name): tensor for name, tensor in load_file(file).items()}
        refuse_wrapped_names(source, set(model.state_dict()) - set(tensors), set(tensors) - set(model.state_dict()))
        model.load_state_dict(tensors, strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise AnatomyError(f"model {source}: weights do not fit the recorded widths ({reason})") from error
    return model


def _current_name(name: str) -> str:
    """A tensor's name as transformers has it by now, and as it renames old ones where it loads a dense checkpoint."""
    for old, new in LEGACY_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _sliced_weights(source: str) -> Path:
    if not Path(source).is_dir():
        try:
            return Path(str(transformers.utils.cached_file(source, "model.safetensors")))
        except Exception as error:
            raise _nothing_from_hub(source, error) from error
    file = Path(source) / "model.safetensors"
    if not file.is_file():
        raise AnatomyError(
            f"model {source}: a sliced checkpoint without model.safetensors; "
            "next step: pass the directory that holds it, or export the bundle again with --with-checkpoint"
        )
    return file


def _check_finite(model, source: str) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise AnatomyError(f"model {source}: tensor {name} holds NaN or infinity; the checkpoint is damaged")
