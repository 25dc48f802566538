"""Text of strangers, made fit for a terminal. Standard library only."""

from __future__ import annotations

import json


def printable(text: str) -> str:
    """The text with all that steers a terminal, hides or breaks the line written as JSON escapes it.

    Inside JSON's strings it means the same as before. A backslash stays, so this is for eyes and JSON, not for shells.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def one_line(payload: bytes) -> str:
    """JSON on one line, fit for a terminal; as it came, but for white space and letters that cannot be seen."""
    return printable(payload.decode("utf-8", "replace").translate(_SPACES))


_SPACES = str.maketrans("\t\r\n", "   ")  # between JSON's tokens; within its strings they are escaped already
