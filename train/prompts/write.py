"""Asks a knowledge engine for the texts of every class, and sifts what it says (PCKE)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from realtime.errors import UsageError
from train.prompts import SAME_TEXTS, SCHEMA, SETS, ClassText, Prompts, load, questions
from train.prompts.engine import KnowledgeEngine
from train.prompts.filters import SYNONYMS, Refusal, Similarity, fold, sift
from train.prompts.questions import AnswerError

TRIES = 3  # how often one thing is asked, each time with what was wrong or said before
Read = TypeVar("Read")
# Called after each class: its number from 1, its label, its synonyms that were kept, and its refused texts so far.
Told = Callable[[int, str, int, int], None]


@dataclass
class Harvest:
    """What an engine's answers gave: the usable texts, those refused, and the classes without, with the reason."""

    texts: dict[str, ClassText] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)


def read_classes(source: str) -> tuple[str, dict[str, str]]:
    """The name of a set, and its classes' names by label.

    source: a set that ships; prompts of any set; or a file with an object {label: name} in JSON, or a line a class:
    its label, a tab, its name; or the name alone, which is then the label. Empty lines and those with # do not count.
    UsageError where there is no such file, no class, a label twice or without a name.
    """
    if source in SETS or source in SAME_TEXTS:
        prompts = load(source)
        return prompts.data, {label: text.name for label, text in prompts.texts.items()}
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else None
    except OSError as error:
        known = ", ".join(SETS)
        raise UsageError(
            f"classes {source} cannot be read ({error.strerror}); give a file, or one of {known}"
        ) from error
    except ValueError as error:
        raise UsageError(f"classes {source} are not what their ending says ({error}); correct that place") from error
    if isinstance(content, dict) and content.get("schema") == SCHEMA:
        prompts = load(path)
        return prompts.data, {label: one.name for label, one in prompts.texts.items()}
    pairs = _lines(text) if content is None else list(content.items()) if isinstance(content, dict) else []
    names = {label: " ".join(name.split()) for label, name in pairs if isinstance(name, str)}
    if not names or len(names) < len(pairs) or not all(label and name for label, name in names.items()):
        raise UsageError(f"classes {source} must have a label and a name each, every label once, and at least one")
    return path.stem, names


def _lines(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            label, tab, name = line.strip().partition("\t")
            found.append((label.strip(), name if tab else label))
    return found


def harvest(
    names: Mapping[str, str], engine: KnowledgeEngine, similarity: Similarity | None = None, told: Told | None = None
) -> Harvest:
    """The texts of all classes (names by label) as the engine tells them, in the order of the classes.

    A class whose answers stay useless after TRIES is left out and named; engine errors of any other kind end all.
    """
    found = Harvest()
    for number, (label, name) in enumerate(names.items(), 1):
        try:
            found.texts[label] = _class_text(label, name, engine, similarity, found.refused)
        except AnswerError as error:
            found.unusable[label] = str(error)
        if told is not None:
            kept = len(found.texts[label].synonyms) if label in found.texts else 0
            told(number, label, kept, len(found.refused))
    _drop_shared(found)
    return found


def _class_text(
    label: str, name: str, engine: KnowledgeEngine, similarity: Similarity | None, refused: list[Refusal]
) -> ClassText:
    synonyms: list[str] = []
    question = questions.SYNONYMS.format(name=name)
    for _ in range(TRIES):
        good, bad = sift(label, name, _ask(label, engine, question, questions.synonyms, refused), synonyms, similarity)
        synonyms += good
        refused += bad
        if len(synonyms) >= SYNONYMS[0]:
            break
        said = ", ".join([*synonyms, *(one.text for one in bad)])
        question = questions.MORE.format(question=questions.SYNONYMS.format(name=name), said=said)
    if not synonyms:
        raise AnswerError("none of the synonyms is usable")
    for text in synonyms[SYNONYMS[1] :]:
        refused.append(Refusal(label, text, f"surplus: {SYNONYMS[1]} are enough"))
    return ClassText(
        name,
        tuple(synonyms[: SYNONYMS[1]]),
        _ask(label, engine, questions.SENTENCE.format(name=name), questions.sentence, refused),
        _ask(label, engine, questions.PARTS_OF_BODY.format(name=name), questions.parts, refused),
    )


def _ask(
    label: str, engine: KnowledgeEngine, question: str, read: Callable[[str], Read], refused: list[Refusal]
) -> Read:
    """What `read` makes of the answer; a wrong answer is asked again with all that was wrong before."""
    faults: list[str] = []
    for _ in range(TRIES):
        asked = questions.AGAIN.format(question=question, fault="; ".join(faults)) if faults else question
        answer = ""
        try:
            answer = engine.ask(asked)
            return read(answer)
        except AnswerError as error:
            faults.append(str(error))
            refused.append(Refusal(label, answer, f"answer: {error}"))
    raise AnswerError(faults[-1])


def _drop_shared(found: Harvest) -> None:
    """Takes out synonyms that two classes have, or that name another class: they would teach neither."""
    owners: dict[str, set[str]] = {}
    for label, text in found.texts.items():
        for said in (text.name, *text.synonyms):
            owners.setdefault(fold(said), set()).add(label)
    for label, text in found.texts.items():
        shared = [said for said in text.synonyms if len(owners[fold(said)]) > 1]
        for said in shared:
            others = ", ".join(sorted(owners[fold(said)] - {label}))
            found.refused.append(Refusal(label, said, f"shared: with class {others}"))
        own = tuple(said for said in text.synonyms if said not in shared)
        found.texts[label] = ClassText(text.name, own, text.sentence, text.parts)
    for label in [label for label, text in found.texts.items() if not text.synonyms]:
        del found.texts[label]
        found.unusable[label] = "other classes have all its synonyms"


def refusals_json(refused: list[Refusal]) -> list[dict[str, Any]]:
    """The refused texts as they are written beside the prompts."""
    return [{"class": one.label, "text": one.text, "reason": one.reason} for one in refused]


def as_prompts(data: str, author: str, found: Harvest, answers: Path) -> Prompts:
    """The prompts of a harvest; UsageError naming the classes that have no usable text."""
    if found.unusable:
        which = "; ".join(f"{label}: {why}" for label, why in found.unusable.items())
        raise UsageError(
            f"{len(found.unusable)} classes have no usable answer ({which}); ask another --model, put the name in "
            f"other words, or correct the answer by hand in {answers}, and give the command again"
        )
    return Prompts(data, author, found.texts)
