"""Checkpoints in Hugging Face layout: loaded strictly, saved with their per-layer FFN widths.

No loader here may initialise a weight anew: every tensor of the model comes from the file, and every tensor of the
file goes into the model.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from anatomy_export.errors import AnatomyError
from anatomy_export.models import family_of, model_blocks

WIDTHS_KEY = "anatomy_ffn_widths"
HARMLESS_EXTRA = re.compile(r"position_ids$|\.attn\.(masked_)?bias$|embeddings\.token_type_ids$")


@dataclass(frozen=True)
class Checkpoint:
    """A classifier in evaluation mode on the CPU in float32, with its tokenizer."""

    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase


def load_checkpoint(source: str, *, allow_random_head: bool = False) -> Checkpoint:
    """Load a directory or hub id, dense or sliced by this toolkit.

    Raises:
        AnatomyError: nothing there, no classifier of a supported family, a damaged file, weights that are missing,
            left over or not finite, or a hub that does not answer.
    """
    _check_directory(source)
    config = _from_hub(transformers.AutoConfig.from_pretrained, source)
    family_of(config)
    if getattr(config, WIDTHS_KEY, None):
        model = _load_sliced(Path(source), config)
    else:
        model = _load_dense(source, config, allow_random_head)
    tokenizer = _from_hub(transformers.AutoTokenizer.from_pretrained, source)
    _check_finite(model, source)
    _settle_padding(model, tokenizer, source)
    model_blocks(model)
    return Checkpoint(model.eval(), tokenizer)


def save_checkpoint(checkpoint: Checkpoint, directory: Path) -> None:
    """Save weights as safetensors, config with the FFN widths, and tokenizer into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    model = checkpoint.model
    setattr(model.config, WIDTHS_KEY, [block.width for block in model_blocks(model)])
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    try:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise AnatomyError(f"cannot write the checkpoint ({error}); next step: check the free space") from error
    checkpoint.tokenizer.save_pretrained(directory)


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


def _check_directory(source: str) -> None:
    path = Path(source)
    looks_like_path = path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1
    if looks_like_path and not path.is_dir():
        raise AnatomyError(f"model {source}: no such directory; next step: check the path")
    if path.is_dir() and not (path / "config.json").is_file():
        state = "is empty" if not any(path.iterdir()) else "has no config.json, so it is no transformers checkpoint"
        raise AnatomyError(f"model {source}: the directory {state}; next step: pass a directory saved by transformers")


def _from_hub(load, source: str, **options):
    try:
        return load(source, trust_remote_code=False, **options)
    except AnatomyError:
        raise
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if Path(source).is_dir():
            raise AnatomyError(f"model {source}: cannot be loaded ({type(error).__name__}: {reason[:300]})") from error
        raise AnatomyError(
            f"model {source}: not a directory here, and the hub gave nothing ({reason[:200]}); "
            "next step: check the name and the network, or pass a directory"
        ) from error


def _load_dense(source: str, config, allow_random_head: bool):
    model, info = _from_hub(
        transformers.AutoModelForSequenceClassification.from_pretrained,
        source,
        config=config,
        output_loading_info=True,
        dtype=torch.float32,
    )
    missing = sorted(info["missing_keys"])
    extra = sorted(key for key in info["unexpected_keys"] if not HARMLESS_EXTRA.search(key))
    prefix = model.base_model_prefix + "."
    body = [key for key in missing if key.startswith(prefix) and ".pooler." not in key]
    if info["mismatched_keys"] or body:
        names = body or [str(key) for key in info["mismatched_keys"]]
        raise AnatomyError(f"model {source}: {len(names)} tensors are missing or of another shape, first {names[0]}")
    if missing and not allow_random_head:
        raise AnatomyError(
            f"model {source}: no classification head in the checkpoint ({', '.join(missing)}); next step: fine-tune it "
            "(anatomy finetune), or export with a random head by --allow-random-head"
        )
    if extra and not missing:
        raise AnatomyError(
            f"model {source}: {len(extra)} tensors of the file have no place in the model: {extra[0]}, …"
        )
    return model


def _load_sliced(path: Path, config):
    model = build_with_widths(config, list(getattr(config, WIDTHS_KEY)))
    file = path / "model.safetensors"
    if not file.is_file():
        raise AnatomyError(f"model {path}: a sliced checkpoint without model.safetensors")
    try:
        model.load_state_dict(load_file(file), strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise AnatomyError(f"model {path}: weights do not fit the recorded widths ({reason})") from error
    return model


def _check_finite(model, source: str) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise AnatomyError(f"model {source}: tensor {name} holds NaN or infinity; the checkpoint is damaged")


def _settle_padding(model, tokenizer, source: str) -> None:
    """A decoder's classifier finds its token by the padding id, so tokenizer and config must agree on one."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise AnatomyError(f"model {source}: its tokenizer has no padding token; next step: set one and save it")
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if model.config.pad_token_id != tokenizer.pad_token_id:
        raise AnatomyError(
            f"model {source}: config pads with id {model.config.pad_token_id}, its tokenizer with "
            f"{tokenizer.pad_token_id}; next step: save both with the same pad_token_id"
        )
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
