"""The three ways to knowledge, and how what they give becomes one folder.

N clips, D and E the widths of language and vision.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from realtime.errors import UsageError
from realtime.skeleton import CORE_16
from train.data.prepared import Prepared, sha256
from train.describe import describe, mirrored
from train.knowledge.log import key_of, logged
from train.knowledge.pictures import Eyes, look_at_all
from train.knowledge.sentences import Aggregate, language_of, weights_sha256
from train.knowledge_folder import INDEX, LANGUAGE, SENTENCES, VISION, Knowledge, load, sentences, write
from train.pool import Pool
from train.text import TextEncoder

PARTS = ".parts"  # what an interrupted run leaves
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Made:
    """What a run knows of N clips. said: N lists of sentences. vision: (N, E). about: file -> how it was made."""

    data: str
    names: tuple[str, ...]
    about: dict[str, dict[str, Any]]
    said: list[list[str]] | None = None
    language: np.ndarray | None = None
    vision: np.ndarray | None = None


def names_of(prepared: Prepared) -> tuple[str, ...]:
    """The clips' names as plain strings."""
    return tuple(str(name) for name in prepared.name)


def described(prepared: Prepared, source: Path, count: int, out: Path, advance: Advance = lambda _: None) -> Made:
    """Sentences of the describer about each clip's skeletons. source: the prepared folder."""
    names = names_of(prepared)
    row = {name: i for i, name in enumerate(names)}

    def make(name: str) -> dict[str, Any]:
        return {"sentences": describe(prepared.clip(row[name]), prepared.layout, prepared.fps, count=count)}

    log = out / PARTS / f"describe-{key_of(sha256(source / 'prepared.json'), count)}.jsonl"
    said = [line["sentences"] for line in logged(names, make, log, advance)]
    return Made(prepared.data, names, {LANGUAGE: {"by": "describe", "at_most": count}}, said)


def described_pool(pool: Pool, data: str, count: int, out: Path, advance: Advance = lambda _: None) -> Made:
    """Sentences about each unit of a pool of live windows, then about the mirror image of each."""
    names, digest = pool.names(), pool.digest()
    row = {name: i for i, name in enumerate(names)}

    def make(name: str) -> dict[str, Any]:
        return {"sentences": describe(pool.person(pool.units[row[name]]), CORE_16, pool.fps, count=count)}

    log = out / PARTS / f"describe-{key_of(digest, count)}.jsonl"
    said = [line["sentences"] for line in logged(names[: len(pool.units)], make, log, advance)]
    said += [[mirrored(sentence) for sentence in of_unit] for of_unit in said]
    return Made(data, tuple(names), {LANGUAGE: {"by": "describe", "at_most": count, "pool": digest}}, said)


def seen(
    eyes: Eyes, models: dict[str, str], prepared: Prepared, pictures: Path, out: Path, advance: Advance = lambda _: None
) -> Made:
    """What pictures say of each clip. models: what looks, by purpose, for the record; see `models_of`."""
    names = names_of(prepared)
    log = out / PARTS / f"frames-{key_of(models, eyes.frames, str(pictures))}.jsonl"
    found = look_at_all(eyes, pictures, names, log, advance)
    by = {"by": "frames", "frames": eyes.frames, **models}
    made = Made(prepared.data, names, {})
    if eyes.answerer is not None:
        made = replace(made, said=[one.sentences for one in found], about={LANGUAGE: by})
    if eyes.image is not None:
        rows = np.stack([one.feature for one in found if one.feature is not None])
        made = replace(made, vision=rows, about={**made.about, VISION: by})
    return made


def models_of(eyes: Eyes) -> dict[str, str]:
    """Names and weights' hashes of the models that look."""
    found = {}
    for purpose, model in (("detector", eyes.detector), ("answerer", eyes.answerer), ("image", eyes.image)):
        if model is not None:
            network = getattr(model, "network", model)
            found[purpose] = str(getattr(model, "name", purpose))
            found[f"{purpose}_sha256"] = weights_sha256(network)  # type: ignore[arg-type]
    return found


def distinct_of(said: Sequence[Sequence[str]]) -> int:
    """How many different sentences there are."""
    return len({sentence for of_clip in said for sentence in of_clip})


def with_language(
    made: Made, encoder: TextEncoder, how: Aggregate, out: Path, advance: Advance = lambda _: None
) -> Made:
    """With the features of what was said."""
    assert made.said is not None
    language, about = language_of(made.said, encoder, how, out / PARTS, advance)
    return replace(made, language=language, about={**made.about, LANGUAGE: {**made.about[LANGUAGE], **about}})


def earlier(out: Path, data: str, names: Sequence[str]) -> Knowledge | None:
    """What a folder already knows of these clips, None where nothing; UsageError where it is about other clips."""
    if not (out / INDEX).is_file():
        return None
    before = load(out)
    if before.data != data or before.names != tuple(names):
        raise UsageError(
            f"{out} is about other clips ({before.data or 'captions'}, {len(before)}); choose another --out"
        )
    return before


def finish(made: Made, out: Path) -> dict[str, Any]:
    """Writes the folder, keeps what it already knew of the other kind, and removes the parts; see `write`."""
    before = earlier(out, made.data, made.names)
    arrays = {kind: rows for kind, rows in ((LANGUAGE, made.language), (VISION, made.vision)) if rows is not None}
    said, about = made.said, dict(made.about)
    if before is not None:
        kept = {kind: rows for kind, rows in ((LANGUAGE, before.language), (VISION, before.vision)) if rows is not None}
        for kind in kept.keys() - arrays.keys():
            arrays[kind], about[kind] = kept[kind], before.about["made"][kind]
        if said is None and SENTENCES in before.about["sha256"]:
            said = [of_clip for _, of_clip in sentences(out)]
    content = write(out, made.data, made.names, arrays, said, {"made": {kind: about[kind] for kind in sorted(about)}})
    shutil.rmtree(out / PARTS, ignore_errors=True)
    return content
