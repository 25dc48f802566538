"""Writes the table of settings in docs/operations.md from realtime/settings.py: python -m scripts.make_settings"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from realtime.configfile import is_optional
from realtime.settings import InputFlags, OutputFlags, RecognitionFlags

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
BEGIN, END = "<!-- settings: python -m scripts.make_settings -->", "<!-- end of settings -->"


def table() -> str:
    """A row for each setting, group by group: key, what it takes, default, what it does."""
    rows = ["| key | takes | default | |", "|---|---|---|---|"]
    for group in (InputFlags, RecognitionFlags, OutputFlags):
        hints, told = get_type_hints(group), _docstrings(group)
        for name, hint in hints.items():
            default = getattr(group, name)
            shown = "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
            text = " ".join(told[name].split()).replace("|", "\\|")
            rows.append(f"| `{name.replace('_', '-')}` | {_takes(hint)} | `{shown}` | {text} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """The page with the table of today between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _takes(hint: Any) -> str:
    if is_optional(hint):
        return _takes(next(one for one in get_args(hint) if one is not type(None)))
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    return {bool: "true, false", int: "whole number", float: "number", str: "text"}.get(hint, "path")


def _docstrings(group: type) -> dict[str, str]:
    """The text below each field."""
    body = next(node for node in ast.parse(inspect.getsource(group)).body if isinstance(node, ast.ClassDef)).body
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            assert isinstance(text.value, ast.Constant)
            found[field.target.id] = re.sub(r"\s+", " ", str(text.value.value))
    return found


def main() -> int:
    """Rewrites the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
