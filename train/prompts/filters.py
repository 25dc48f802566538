"""Which texts of a class are kept: no duplicates, none too long, none of another sense of the word.

What a language model answers is sifted by `sift`, each refused text with its reason; `problems` holds a whole file to
the same rules, and to the labels of its data set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from train.prompts import PARTS, ClassText, Prompts
from train.prompts.traps import TRAPS

NAME_WORDS = (1, 6)
SYNONYM_WORDS = (1, 12)
SENTENCE_WORDS = (15, 30)
PART_WORDS = (6, 16)
SYNONYMS = (6, 10)  # texts a class
# Least cosine between "a person <name>" and a synonym, for all-MiniLM-L6-v2: 2 % of the synonyms written by hand lie
# below it, and 40 % of the words of TRAPS (measured on the sets here; without "a person" before the name, 6 %).
# So it catches what is far off, and does not stand in for TRAPS.
SIMILAR = 0.18

# Cosine of the features of two texts, in [-1, 1].
Similarity = Callable[[str, str], float]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_ARTICLES = {"a", "an", "the"}
_MARKUP = re.compile(r"[<>{}\[\]|\\`*#_=]|https?:|\.\w|[:;?!]")


@dataclass(frozen=True)
class Refusal:
    """A text that is not kept: the class it was for, and why."""

    label: str
    text: str
    reason: str  # begins with its kind: empty, form, long, duplicate, homonym


def fold(text: str) -> str:
    """What two texts are compared by: words in lower case without articles, punctuation and plural endings."""
    return " ".join(_singular(word) for word in _WORD.findall(text.casefold()) if word not in _ARTICLES)


def homonym(name: str, text: str) -> str:
    """Why a text tells of another sense of the class name's words (see TRAPS); empty where nothing says so."""
    named, said = _words(name), _words(text)
    for trigger, betrayers in TRAPS.items():
        if not all(_forms(word) & named for word in trigger.split()):
            continue
        for word in betrayers.split():
            if _forms(word) & said and not _forms(word) & named:
                return f"{word!r} is of another sense of {trigger!r}"
    return ""


def sift(
    label: str, name: str, texts: Iterable[str], kept: Iterable[str] = (), similarity: Similarity | None = None
) -> tuple[list[str], list[Refusal]]:
    """The texts that may stand as synonyms of a class, in order, and those refused.

    kept: texts that stand already; a text that equals one of them or the name is a duplicate.
    similarity: where there is one, a text of less than SIMILAR is refused as well as those that TRAPS betray.
    """
    seen = {fold(name), *map(fold, kept)}
    good: list[str] = []
    refused: list[Refusal] = []
    for text in texts:
        reason = _reason(name, text, seen, similarity)
        if reason:
            refused.append(Refusal(label, text, reason))
        else:
            good.append(text)
            seen.add(fold(text))
    return good, refused


def _reason(name: str, text: str, seen: set[str], similarity: Similarity | None) -> str:
    key, words = fold(text), len(text.split())
    if not key:
        return "empty: no word in it"
    if _MARKUP.search(text) or not text.isascii():
        return "form: not plain words"
    if words > SYNONYM_WORDS[1]:
        return f"long: {words} words, at most {SYNONYM_WORDS[1]}"
    if key in seen:
        return "duplicate: said already"
    betrayed = homonym(name, text)
    if betrayed:
        return f"homonym: {betrayed}"
    if similarity is not None:
        cosine = similarity(f"a person {name}", text)
        if not cosine >= SIMILAR:  # so that not-a-number is refused too
            return f"homonym: similarity to 'a person {name}' is {cosine:.2f}, at least {SIMILAR}"
    return ""


def problems(prompts: Prompts, labels: Iterable[str] | None = None) -> list[str]:
    """One line for each rule that a set's texts break; none where all is well.

    labels: those of the set's reader; each needs a text, and no other has one. None where they are not known.
    """
    found = []
    if labels is not None:
        wanted = list(labels)
        missing = [label for label in wanted if label not in prompts.texts]
        found += [f"class {label!r}: no text" for label in missing]
        found += [f"class {label!r}: no such class in {prompts.data}" for label in prompts.texts if label not in wanted]
    for label, text in prompts.texts.items():
        found += [f"class {label!r}: {line}" for line in _of_class(label, text)]
    return found + _shared(prompts)


def _of_class(label: str, text: ClassText) -> list[str]:
    found = [
        _count("name", len(text.name.split()), NAME_WORDS, "words"),
        _count("synonyms", len(text.synonyms), SYNONYMS, "texts"),
        sentence_fault(text.sentence),
        *(part_fault(part, text.parts[part]) for part in PARTS),
    ]
    _, refused = sift(label, text.name, text.synonyms)
    return [line for line in found if line] + [f"synonym {one.text!r}: {one.reason}" for one in refused]


def sentence_fault(sentence: str) -> str:
    """What is wrong with a class's sentence: its length, or that it is not one sentence; empty where nothing is."""
    if not re.fullmatch(r"[A-Z][^.!?]*\.", sentence):
        return f"sentence: one sentence from a capital to a full stop, got {sentence!r}"
    return _count("sentence", len(sentence.split()), SENTENCE_WORDS, "words")


def part_fault(part: str, phrase: str) -> str:
    """What is wrong with a phrase of a part of the body; empty where nothing is."""
    return _count(part, len(phrase.split()), PART_WORDS, "words")


def _shared(prompts: Prompts) -> list[str]:
    """Names, synonyms and sentences that stand for two classes, and so teach neither."""
    owners: dict[str, list[str]] = {}
    for label, text in prompts.texts.items():
        for said in {fold(said) for said in (text.name, *text.synonyms, text.sentence)}:
            owners.setdefault(said, []).append(label)
    shared = {said: labels for said, labels in owners.items() if len(labels) > 1}
    return [f"classes {', '.join(map(repr, labels))}: all say {said!r}" for said, labels in shared.items()]


def by_kind(refused: Iterable[Refusal]) -> dict[str, int]:
    """How many texts were refused, by the kind of reason."""
    return dict(Counter(one.reason.partition(":")[0] for one in refused).most_common())


def _count(what: str, number: int, bounds: tuple[int, int], unit: str) -> str:
    if bounds[0] <= number <= bounds[1]:
        return ""
    return f"{what}: {number} {unit}, must be {bounds[0]} to {bounds[1]}"


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _singular(word: str) -> str:
    if len(word) <= 3 or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") else word


@cache
def _forms(word: str) -> frozenset[str]:
    """A word and its endings, those that English does not have among them: none of them is another word here."""
    stem = word[:-1] if word.endswith("e") else word
    stems = {stem, stem + stem[-1]}
    whole = (word, word + "s", word + "es", word + "d")
    return frozenset((*whole, *(one + end for one in stems for end in ("ing", "ed", "er"))))
