"""Names in files that are written: without the place where a model or data lies, and as text that stays text."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

MARKDOWN = re.compile(r"[\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_])")
DIRECTORIES = re.compile(r"(?<![\w:/\\.~])(?:~?/|[A-Za-z]:\\)(?:[^\s'\"<>|:;,()/\\]+[/\\])*(?=[^\s/\\])")


def is_local(name: str | Path) -> bool:
    """Is it a file or directory here, or spelled like one (from the root, `.` or `~`), and so no hub id?"""
    text = str(name)
    return text.startswith((".", "~", "/")) or PureWindowsPath(text).is_absolute() or Path(text).exists()


def public_name(name: str | Path) -> str:
    """The base name of what is local; a hub id or the name of an embedded model or data as a whole.

    >>> public_name("/home/someone/models/reviews"), public_name("openai-community/gpt2")
    ('reviews', 'openai-community/gpt2')
    """
    if not is_local(name):
        return str(name)
    text = str(name)
    path = PureWindowsPath(text) if PureWindowsPath(text).is_absolute() else Path(os.path.abspath(text))
    return path.name or str(name)


def without_directories(text: str) -> str:
    """A message with the base name in place of every path from the root.

    >>> without_directories("Load model from /home/someone/b/model.onnx failed")
    'Load model from model.onnx failed'
    """
    return DIRECTORIES.sub("", text)


def first_names(names: Sequence[object], most: int, *, separator: str = ", ", counted: bool = False) -> str:
    """The first `most` of some names; whether there are more is said by an ellipsis, or how many where `counted`.

    >>> first_names("abc", 2), first_names("abc", 3), first_names("abcd", 2, counted=True)
    ('a, b, …', 'a, b, c', 'a, b and 2 more')
    """
    shown, left = separator.join(map(str, names[:most])), len(names) - most
    if left <= 0:
        return shown
    if not counted:
        return f"{shown}{separator}…"
    return f"{shown}{' ' if separator == ', ' else separator}and {left:,} more"


def markdown_text(text: str) -> str:
    """Text on one line that Markdown shows as it is, in a paragraph, a heading or a table's cell.

    >>> markdown_text("a|b <i> [x](y)")
    'a\\\\|b \\\\<i\\\\> \\\\[x\\\\](y)'
    """
    return MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))
