"""How facts become words: sides and number, counts, and the choice among sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from train.describe.track import SIDES

MAIN, ORDER, DETAIL, THIRDS = range(4)  # granularity of a sentence, in the order in which they are told
_PRIORITY = {MAIN: 0, ORDER: 1, THIRDS: 2, DETAIL: 3}  # what is kept where fewer are asked for
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SWAP = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


@dataclass(frozen=True)
class Fact:
    """A sentence. level: MAIN to THIRDS. weight: how much it stands out among its level (metres moved)."""

    level: int
    weight: float
    text: str


def sided(part: str, by_side: Mapping[str, Sequence[tuple[int, float, str]]]) -> list[Fact]:
    """Facts of a limb's two sides, what both do said once.

    part: "hand". by_side: side -> (level, weight, template). A template has {it} for the limb and [is|are] for the
    verb's two numbers; it never names a side.
    """
    facts, (right, left) = [], SIDES
    shared = {text for _, _, text in by_side.get(right, ())} & {text for _, _, text in by_side.get(left, ())}
    plural = {"foot": "feet"}.get(part, part + "s")
    done = set()
    for side, entries in by_side.items():
        for level, weight, text in entries:
            if text not in shared:
                facts.append(Fact(level, weight, spoken(text, f"the {side} {part}", False)))
            elif text not in done:
                done.add(text)
                same = [entry for of_side in by_side.values() for entry in of_side if entry[2] == text]
                level, weight = min(entry[0] for entry in same), max(entry[1] for entry in same)
                facts.append(Fact(level, weight, spoken(text, f"both {plural}", True)))
    return facts


def spoken(template: str, subject: str, plural: bool) -> str:
    """A template with its subject, and the verbs in its number."""
    words = re.sub(r"\[([^|\]]*)\|([^\]]*)\]", lambda match: match[2 if plural else 1], template)
    return words.replace("{it}", subject)


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[0].upper() + text[1:] + "."


def number(count: int) -> str:
    """A count in words up to ten."""
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def times(count: int) -> str:
    """How often: once, twice, three times."""
    return {1: "once", 2: "twice"}.get(count, f"{number(count)} times")


def listed(clauses: Sequence[str]) -> str:
    """Clauses as a list: a, b and c."""
    return clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"


def owned(text: str, who: str) -> str:
    """A fact of the one person told of one among two, such as "the other person"."""
    text = re.sub(r"\bboth (hands|feet|knees)\b", rf"both \1 of {who}", text)
    text = re.sub(r"\bthe ((left|right) (hand|foot|knee)|upper body|shoulders|hips|hands|legs)\b", rf"{who}'s \1", text)
    return text.replace("the person", who)


def mirrored(text: str) -> str:
    """The words of the mirrored motion: left and right swapped."""
    return re.sub(r"\b(left|right)\b", lambda match: _SWAP[match[0]], text, flags=re.IGNORECASE)


def choose(facts: Sequence[Fact], count: int) -> list[str]:
    """At most `count` different sentences: the whole clip first, then order, limbs and thirds."""
    ranked = sorted(facts, key=lambda fact: (_PRIORITY[fact.level], *_rank(fact)))
    kept: dict[str, Fact] = {}
    for fact in ranked:
        if len(kept) < count:
            kept.setdefault(sentence(fact.text), fact)
    return [text for text, _ in sorted(kept.items(), key=lambda item: (item[1].level, *_rank(item[1])))]


def _rank(fact: Fact) -> tuple[float, str]:
    """Facts of one weight are ordered by words that the mirrored motion shares."""
    return -fact.weight, min(fact.text, mirrored(fact.text))
