"""JSON is read strictly, and what is wrong is named with its place."""

import json
import re
from dataclasses import dataclass
from typing import Annotated

import pytest
from msgspec import Meta

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.json_files import JsonFile, checksum


@dataclass(frozen=True)
class Layer:
    width: Annotated[int, Meta(ge=1)]
    keep: tuple[int, ...]
    share: float | None = None


@dataclass(frozen=True)
class Model:
    name: str
    layers: tuple[Layer, ...]


RIGHT = {"name": "m", "layers": [{"width": 3, "keep": [0, 2], "share": 1, "more": 5}]}
WRONG = {
    "missing": ({"name": "m"}, "$ lacks layers"),
    "a list": ([], "$ is a list of 0, expected object, got array"),
    "text": ({**RIGHT, "name": 5}, "$.name is 5, expected str, got int"),
    "a truth value": (
        {"name": "m", "layers": [{"width": True, "keep": []}]},
        "$.layers[0].width is True, expected int",
    ),
    "a fraction": ({"name": "m", "layers": [{"width": 2.0, "keep": []}]}, "$.layers[0].width is 2.0, expected int"),
    "too small": ({"name": "m", "layers": [{"width": 0, "keep": []}]}, "$.layers[0].width is 0, expected int >= 1"),
    "a surrogate": ({"name": "m", "layers": "\ud800"}, "surrogates not allowed"),
}


def written(folder, text: str) -> JsonFile:
    (folder / "m.json").write_text(text, encoding="utf-8")
    return JsonFile(folder / "m.json", "make it again")


def test_a_right_file(tmp_path):
    file = written(tmp_path, json.dumps(RIGHT))
    model = file.convert(file.read_object(), Model)
    assert model == Model("m", (Layer(3, (0, 2), 1.0),))


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_named(case, tmp_path):
    body, message = WRONG[case]
    with pytest.raises(AnatomyError, match=rf"m\.json: a field is .*{re.escape(message)}.*; next step: make it again"):
        written(tmp_path, json.dumps(body)).convert(body, Model)


@pytest.mark.parametrize(
    "text", ["", '{"name": ', "[" * 200_000, '{"name": NaN}', '{"name": 1e999}', '{"name": 1' + "0" * 5000 + "}"]
)
def test_what_is_no_json(text, tmp_path):
    with pytest.raises(AnatomyError, match=r"m\.json: not valid JSON, so damaged or half-written \(.+\); next step"):
        written(tmp_path, text).read_object()


def test_what_is_no_text_or_not_there(tmp_path):
    (tmp_path / "m.json").write_bytes(b"\xff\xfe")
    with pytest.raises(AnatomyError, match="not valid JSON"):
        JsonFile(tmp_path / "m.json", "again").read_object()
    with pytest.raises(AnatomyError, match=r"^the plan: No such file or directory; next step: again"):
        JsonFile(tmp_path / "none.json", "again", title="the plan").read_object()


@pytest.mark.parametrize("version", [2, True, 1.0, "1", None])
def test_another_version_or_kind(version, tmp_path):
    file = written(tmp_path, json.dumps({"format_version": version, "kind": "study"}))
    with pytest.raises(AnatomyError, match=r"format version .+, expected 1; next step"):
        file.read_object(format_version=1)
    with pytest.raises(AnatomyError, match="kind 'study', expected 'pareto'"):
        file.read_object(kind="pareto")
    assert file.read_object(kind="study")["format_version"] == version


def test_a_seal(tmp_path):
    file, body = JsonFile(tmp_path / "m.json", "again"), {"b": [1.5], "a": None}
    file.check_seal({**body, "checksum": checksum(body)})
    with pytest.raises(AnatomyError, match="checksum None is not that of its content"):
        file.check_seal(body)
