"""Readers of published data sets, each into one in-memory form (train.data.clip)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from realtime.errors import UsageError
from train.data import msr_action3d, msrc12, ntu, nw_ucla, pku_mmd, sbu, utd_mhad, utkinect
from train.data.clip import Clip, Recording

READERS: dict[str, Callable[..., Iterator[Clip] | Iterator[Recording]]] = {
    "nw_ucla": nw_ucla.read,
    "utd_mhad": utd_mhad.read,
    "utkinect": utkinect.read,
    "msr_action3d": msr_action3d.read,
    "msrc12": msrc12.read,
    "sbu": sbu.read,
    **{data: partial(ntu.read, data) for data in ntu.ACTIONS},
    **{data: partial(pku_mmd.read, data) for data in pku_mmd.VIDEOS},
}


def subject_key(subject: int | str) -> str:
    """What subjects are compared by: 6, "6" and "06" are the same one; names such as "s01s02" stay as they are."""
    text = str(subject).strip()
    return str(int(text)) if text.isdecimal() else text


def read(name: str, path: Path, subjects: Collection[int | str] | None = None) -> Iterator[Clip | Recording]:
    """The clips or recordings of a data set by name, from the folder of its published files.

    subjects: only these, compared by `subject_key`; None for all.
    Raises UsageError for a name not in `READERS`, and as the set's own reader does.
    """
    if name not in READERS:
        raise UsageError(f"no reader for data set {name!r}; there are {', '.join(READERS)}")
    if subjects is None:
        return READERS[name](path, None)
    keys = {subject_key(subject) for subject in subjects}
    return READERS[name](
        path, keys | {int(key) for key in keys if key.isdecimal()}
    )  # readers of either kind find theirs
