"""Texts of the classes, by data set: `load("nw_ucla").pick(classes)`; a file a set, prompts/1, beside this one.

Each class has a readable name, synonyms, one sentence on how the body moves over time, and a phrase for each of
four parts of the body (see `ClassText`). `python -m train.prompts --help` shows, checks and writes such files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realtime.errors import UsageError

SCHEMA = "prompts/1"
PARTS = ("head", "arms", "torso", "legs")  # the order of a class's parts
SETS = ("ntu120", "pku_mmd", "nw_ucla", "utd_mhad", "utkinect", "msr_action3d", "msrc12", "sbu", "pooled")
SAME_TEXTS = {"ntu60": "ntu120", "pku_mmd1": "pku_mmd", "pku_mmd2": "pku_mmd"}  # sets whose labels another set has
FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class ClassText:
    """What is said of one class: its name (1-6 words), synonyms, a sentence, and a phrase a part of the body."""

    name: str
    synonyms: tuple[str, ...]
    sentence: str
    parts: dict[str, str]  # keys: PARTS, in that order


@dataclass(frozen=True)
class Prompts:
    """The texts of a data set's classes; labels are those that its reader gives."""

    data: str
    author: str
    texts: dict[str, ClassText]

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the file's order."""
        return tuple(self.texts)

    def pick(self, classes: Iterable[str]) -> list[ClassText]:
        """The texts of these classes, in the order asked; UsageError naming those without any."""
        asked = list(classes)
        missing = [label for label in asked if label not in self.texts]
        if missing:
            raise UsageError(
                f"prompts of {self.data} have no text for class {', '.join(map(repr, missing))}; write them with: "
                "python -m train.prompts write --classes FILE --endpoint URL --model NAME --out MY.json"
            )
        return [self.texts[label] for label in asked]

    def to_json(self) -> dict[str, Any]:
        """The content of a file that `load` reads as these prompts."""
        classes = {
            label: {
                "name": text.name,
                "synonyms": list(text.synonyms),
                "sentence": text.sentence,
                "parts": {part: text.parts[part] for part in PARTS},
            }
            for label, text in self.texts.items()
        }
        return {"schema": SCHEMA, "data": self.data, "author": self.author, "classes": classes}


def load(name: str | Path) -> Prompts:
    """The prompts of a set that ships (SETS, SAME_TEXTS), or of a file: any Path, and a name that ends in .json.

    Raises UsageError where there is none, or it is not of the form `prompts/1`. How good the texts are is another
    question: train.prompts.filters.problems answers it.
    """
    path = Path(name)
    if isinstance(name, str) and not name.endswith(".json"):
        known = SAME_TEXTS.get(name, name)
        if known not in SETS:
            known_names = ", ".join((*SETS, *SAME_TEXTS))
            raise UsageError(f"no prompts for {name!r}; there are {known_names}, or give a file that ends in .json")
        path = FOLDER / f"{known}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise UsageError(f"prompts {path} cannot be read ({error.strerror}); --help says how to write some") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such
        raise UsageError(f"prompts {path} are not JSON in UTF-8 ({error}); correct that place") from error
    return _prompts(content, str(path))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where it says a key twice, of which one would be lost without a word."""
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"{', '.join(map(repr, twice))} given twice")
    return dict(pairs)


def _prompts(content: Any, where: str) -> Prompts:
    keys = {"schema", "data", "author", "classes"}
    if not isinstance(content, dict) or set(content) != keys or content["schema"] != SCHEMA:
        raise UsageError(f"{where}: prompts are an object of schema {SCHEMA!r} with exactly {', '.join(sorted(keys))}")
    classes = content["classes"]
    if not isinstance(classes, dict) or not classes:
        raise UsageError(f"{where}: classes must be an object with at least one class")
    texts = {label: _class_text(entry, f"{where}: class {label!r}") for label, entry in classes.items()}
    return Prompts(_text(content["data"], f"{where}: data"), _text(content["author"], f"{where}: author"), texts)


def _class_text(entry: Any, where: str) -> ClassText:
    keys = {"name", "synonyms", "sentence", "parts"}
    if not isinstance(entry, dict) or set(entry) != keys:
        raise UsageError(f"{where} must have exactly {', '.join(sorted(keys))}")
    synonyms, parts = entry["synonyms"], entry["parts"]
    if not isinstance(synonyms, list) or not synonyms:
        raise UsageError(f"{where}: synonyms must be a list with at least one text, got {synonyms!r}")
    if not isinstance(parts, dict) or set(parts) != set(PARTS):
        raise UsageError(f"{where}: parts must have exactly {', '.join(PARTS)}")
    return ClassText(
        _text(entry["name"], f"{where}: name"),
        tuple(_text(synonym, f"{where}: synonym {number}") for number, synonym in enumerate(synonyms, 1)),
        _text(entry["sentence"], f"{where}: sentence"),
        {part: _text(parts[part], f"{where}: {part}") for part in PARTS},
    )


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value or value != " ".join(value.split()):
        raise UsageError(f"{where} must be text, with single spaces and none at its ends, got {value!r}")
    return value
