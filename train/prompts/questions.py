"""What the language model is asked of each class, and how its answers are read: the texts stand here and only here.

Three questions a class (the form is told in train.prompts): synonyms as PCKE has them, one sentence on how the
body moves over time, and a phrase for each of four parts of the body. An answer that is not of the form asked is
refused by AnswerError, whose text goes back to the model with the question.
"""

from __future__ import annotations

import re

from realtime.errors import UsageError
from train.prompts import PARTS
from train.prompts.filters import part_fault, sentence_fault

SYNONYMS = (
    "List 10 different ways to say '{name}' as done by a person. Each is a phrase of 3 to 12 words that tells the "
    "bodily action. Avoid words that could mean something else. Answer with a numbered list and nothing more."
)
MORE = "{question} Leave out what was said already: {said}."
SENTENCE = (
    "Describe in one sentence of 18 to 28 words how the body of a person moves from beginning to end while doing this: "
    "'{name}'. Answer with that sentence and nothing more."
)
PARTS_OF_BODY = (
    "For a person doing this: '{name}', tell in 8 to 14 words each what the head, the arms, the torso and the legs do. "
    "Answer with four lines that begin with 'head:', 'arms:', 'torso:' and 'legs:', and nothing more."
)
AGAIN = "{question} An earlier answer was wrong: {fault}."

_ITEM = re.compile(r"\s*(?:\(?\d{1,2}\s*[.):]|[-*•])\s+(.*)")
_THINKING = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


class AnswerError(UsageError):
    """An answer that is not of the form asked; its text says what is wrong in words that a model can follow."""


def synonyms(answer: str) -> list[str]:
    """The items of a numbered or bulleted list; other lines are not taken. AnswerError where there is none."""
    items = [match[1] for line in _spoken(answer).splitlines() if (match := _ITEM.match(line))]
    if not items:
        raise AnswerError("it was not a numbered list")
    return [_plain(item) for item in items]


def sentence(answer: str) -> str:
    """One sentence of the length that class texts have; AnswerError where it is not."""
    text = _plain(_spoken(answer))
    text = text[:1].upper() + text[1:] + "."
    fault = sentence_fault(text)
    if fault:
        raise AnswerError(fault)
    return text


def parts(answer: str) -> dict[str, str]:
    """The phrases of PARTS, each from its line; AnswerError where one is missing, said twice or of another length."""
    found: dict[str, str] = {}
    for line in _spoken(answer).splitlines():
        match = re.match(r"[\s*\-•\d.)]*(\w+)\W*:\W*(.*)", line)
        part = match[1].lower() if match else ""
        if match is None or part not in PARTS:
            continue
        if part in found:
            raise AnswerError(f"it had two lines for {part}")
        found[part] = _plain(match[2])
    missing = [part for part in PARTS if part not in found]
    if missing:
        raise AnswerError(f"it had no line that begins with {missing[0]}:")
    faults = [fault for part in PARTS if (fault := part_fault(part, found[part]))]
    if faults:
        raise AnswerError("; ".join(faults))
    return {part: found[part] for part in PARTS}


def _spoken(answer: str) -> str:
    """The answer without what a reasoning model thought before it."""
    return _THINKING.sub("", answer).strip()


def _plain(text: str) -> str:
    """A text without quotation marks, emphasis, closing punctuation and double spaces."""
    return " ".join(text.replace("’", "'").replace("*", "").split()).strip(" \"'“”‘`.,;")
