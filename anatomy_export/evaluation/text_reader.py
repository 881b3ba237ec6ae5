"""Text as an ONNX file takes it: its tokenizer.json, and what the files beside it say of lengths and padding."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from anatomy_export.core.errors import AnatomyError, MissingExtraError, first_line
from anatomy_export.data.labels import class_names
from anatomy_export.evaluation.batches import Batch
from anatomy_export.evaluation.classifier_inputs import Inputs

DEFAULT_LENGTH = 512
UNLIMITED = 10**6
POSITION_KEYS = ("max_position_embeddings", "n_positions")
POSITIONS_AFTER_PADDING = {
    "roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "longformer", "mpnet", "ibert",
    "data2vec-text", "luke", "mluke", "xmod",
}  # fmt: skip
HUB_FOLDER = "onnx"


@dataclass(frozen=True)
class TextForm:
    """How a graph takes a text: `max_length` tokens at most, cut at the side `truncation`, None for tokenizer.json's.

    `batch` and `tokens` are its sizes where they are fixed; a text is then repeated, and padded at the side `padding`
    with the token `pad_token`, which `pads` says that it can be told of.
    """

    max_length: int = DEFAULT_LENGTH
    truncation: str | None = None
    padding: str = "right"
    batch: int | None = None
    tokens: int | None = None
    pads: bool = True
    pad_token: str | int = 0


def beside(folder: Path, name: str) -> Path:
    """The file of this name that belongs to a model in `folder`; one directory up where that is the hub's onnx/."""
    if not (folder / name).exists() and folder.absolute().name == HUB_FOLDER:
        return folder.parent / name
    return folder / name


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object of a model's or a tokenizer's settings; an empty one where there is no such file.

    Raises:
        AnatomyError: it is no JSON object.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise AnatomyError(f"{path} is damaged ({first_line(error)}); next step: restore or remove it") from error
    if not isinstance(settings, dict):
        raise AnatomyError(f"{path} is damaged (no JSON object); next step: restore or remove it")
    return settings


def config_classes(config: Path) -> tuple[str, ...]:
    """The class names of a model by a transformers config.json; none where there is no such file."""
    try:
        return class_names(read_settings(config), str(config.parent))
    except (AttributeError, TypeError, ValueError) as error:
        raise AnatomyError(f"{config} is damaged ({first_line(error)}); next step: restore or remove it") from error


def text_form(graph: onnx.GraphProto, config: Path, tokenizer: Path, asked: int | None = None) -> TextForm:
    """What the graph itself, the model's config.json and the settings beside tokenizer.json say.

    Args:
        asked: tokens at most; None takes the least that one of the three allows, 512 where none says anything.

    Raises:
        AnatomyError: more is asked for than the graph takes, or a file is damaged.
    """
    model, settings = read_settings(config), read_settings(tokenizer.with_name("tokenizer_config.json"))
    batch, tokens = _fixed_sizes(graph)
    if asked is not None and tokens is not None and asked > tokens:
        raise AnatomyError(f"--max-length is {asked}, this graph takes {tokens} tokens; next step: ask for less")
    limits = [tokens, _whole(settings.get("model_max_length")), _positions(model)]
    known = [limit for limit in limits if limit is not None]
    return TextForm(
        max_length=asked or min(known, default=DEFAULT_LENGTH),
        truncation=_side(settings, "truncation_side"),
        padding=_side(settings, "padding_side") or "right",
        batch=batch,
        tokens=tokens,
        pads="attention_mask" in {value.name for value in graph.input},
        pad_token=_pad_token(settings, model),
    )


def _fixed_sizes(graph: onnx.GraphProto) -> tuple[int | None, int | None]:
    """Rows and tokens of input_ids, None where they are free."""
    ids = next((value for value in graph.input if value.name == "input_ids"), None)
    dims = [] if ids is None else [dim.dim_value or None for dim in ids.type.tensor_type.shape.dim]
    return (dims[0], dims[1]) if len(dims) == 2 else (None, None)


def _whole(value) -> int | None:
    """A length that a settings file names; none where it is no limit."""
    sensible = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < UNLIMITED
    return int(value) if sensible else None


def _positions(config: dict[str, Any]) -> int | None:
    """Tokens that a model has positions for."""
    known = [limit for key in POSITION_KEYS if (limit := _whole(config.get(key))) is not None]
    if known and config.get("model_type") in POSITIONS_AFTER_PADDING:
        padding = config.get("pad_token_id")
        return known[0] - 1 - (padding if isinstance(padding, int) else 1)
    return known[0] if known else None


def _side(settings: dict[str, Any], key: str) -> str | None:
    return settings[key] if settings.get(key) in ("left", "right") else None


def _pad_token(settings: dict[str, Any], config: dict[str, Any]) -> str | int:
    token = settings.get("pad_token")
    if isinstance(token, dict):
        token = token.get("content")
    number = config.get("pad_token_id")
    return token if isinstance(token, str) else number if isinstance(number, int) else 0


class TextReader:
    """A tokenizer.json that reads one text at a time, in the given form.

    Raises:
        AnatomyError: the file cannot be used. MissingExtraError: tokenizers is not installed.
    """

    def __init__(self, tokenizer: Path, form: TextForm | None = None):
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtraError(str(error.name), "edge") from error
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        except Exception as error:
            raise AnatomyError(
                f"{tokenizer} cannot be used to read text ({first_line(error)[:200]}); "
                "next step: pass the model's tokenizer.json as --tokenizer"
            ) from error
        self.form = form or TextForm()
        if isinstance(self.form.pad_token, str):
            self.form = replace(self.form, pad_token=self.tokenizer.token_to_id(self.form.pad_token) or 0)
        side = self.form.truncation or (self.tokenizer.truncation or {}).get("direction", "right")
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.form.max_length, direction=side)

    def count(self, text: str) -> int:
        """Tokens of a text that are read."""
        return len(self.tokenizer.encode(text).ids)

    def cut_off(self, texts: Collection[str]) -> int:
        """How many of the texts have more tokens than are read."""
        return sum(bool(self.tokenizer.encode(text).overflowing) for text in texts)

    def place(self, text: str) -> slice:
        """Where a row holds the text's tokens, and not padding."""
        count = self.count(text)
        start = self._padding(count) if self.form.padding == "left" else 0
        return slice(start, start + count)

    def inputs(self, text: str) -> Inputs:
        """Whatever a graph may ask for, each (batch, tokens) int64: one row without padding where the graph leaves both
        free.

        Raises:
            AnatomyError: the text is shorter than the graph takes, and nothing could tell it what is padding.
        """
        encoded = self.tokenizer.encode(text)
        count = len(encoded.ids)
        missing = self._padding(count)
        if missing and not self.form.pads:
            raise AnatomyError(
                f"the graph takes {self.form.tokens} tokens, a text has {count}, and without an input attention_mask "
                "padding would be read as text; next step: export the model with a free sequence length"
            )
        rows = {
            "input_ids": (encoded.ids, self.form.pad_token),
            "attention_mask": (encoded.attention_mask, 0),
            "token_type_ids": (encoded.type_ids, 0),
            "position_ids": (list(range(count)), 0),
        }
        return {name: self._rows([*values], [fill] * missing) for name, (values, fill) in rows.items()}

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        """Each text alone, as `inputs` has it."""
        return (([position], self.inputs(text)) for position, text in enumerate(texts))

    def _padding(self, count: int) -> int:
        return 0 if self.form.tokens is None else self.form.tokens - count

    def _rows(self, values: list, padding: list) -> np.ndarray:
        row = padding + values if self.form.padding == "left" else values + padding
        return np.array([row] * (self.form.batch or 1), np.int64)
