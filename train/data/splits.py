"""The published splits of prepared data, as masks of its clips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from realtime.errors import UsageError
from train.data.prepared import Prepared

# Training subjects of NTU RGB+D (Shahroudy et al. 2016, section 3.2) and those that NTU RGB+D 120 adds (Liu et al.
# 2020, section 3.3).
NTU60_SUBJECTS = (1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38)
NTU120_SUBJECTS = (
    *NTU60_SUBJECTS,
    *(45, 46, 47, 49, 50, *range(52, 60), 70, 74, 78, *range(80, 87), 89, *range(91, 96), 97, 98, 100, 103),
)
# The five folds of SBU (Yun et al. 2012) by pair, as `Prepared.subject` numbers them: s01s02 is 102.
SBU_FOLDS = (
    (102, 304, 502, 604),
    (203, 207, 305, 503),
    (103, 107, 701, 703),
    (201, 206, 302, 306),
    (402, 403, 406, 602, 603),
)

SUBJECTS = "subjects:"  # what a split by numbers begins with

Masks = tuple[np.ndarray, np.ndarray]
Rule = Callable[[Prepared], Masks]


def split(prepared: Prepared, name: str) -> Masks:
    """Boolean masks (N,) of the training and the test clips.

    xsub is across subjects, xview across cameras, xset across setups; SBU has fold1 to fold5, of which the named one
    is for testing. subjects:9,10 tests on these subjects of any set and trains on the others. A clip of a recording
    that a set's own list does not name is in neither.
    Raises UsageError for a split that the set does not have, and where one side would be empty.
    """
    rules = _RULES.get(prepared.data, {"xsub": _odd_subjects})
    if name.startswith(SUBJECTS):
        train, test = _left_out(prepared, name.removeprefix(SUBJECTS))
    elif name in rules:
        train, test = rules[name](prepared)
    else:
        raise UsageError(f"{prepared.data} has no split {name!r}; it has {', '.join(rules)} and {SUBJECTS}NUMBERS")
    if not (train.any() and test.any()):
        raise UsageError(
            f"split {name} of this {prepared.data} has {train.sum()} clips to train and {test.sum()} to test; "
            f"prepare the whole set: python -m train.prepare {prepared.data} SRC DST"
        )
    return train, test


def names(data: str) -> tuple[str, ...]:
    """The splits of a data set."""
    return tuple(_RULES.get(data, {"xsub": _odd_subjects}))


def _left_out(prepared: Prepared, listed: str) -> Masks:
    """The named subjects are for testing; UsageError where one has no clip."""
    there = sorted({int(subject) for subject in prepared.subject})
    wanted = [part.strip() for part in listed.split(",")]
    strange = [part for part in wanted if not part.isdecimal() or int(part) not in there]
    if strange:
        known = ", ".join(map(str, there))
        raise UsageError(f"split {SUBJECTS}{listed}: {prepared.data} has no subject {strange[0]!r}; it has {known}")
    test = np.isin(prepared.subject, [int(part) for part in wanted])
    return ~test, test


def _merged(prepared: Prepared) -> Masks:
    """The sides that each set's own split gave its clips when `train.merge` put them together."""
    sides = prepared.lists["merged"]
    return np.isin(prepared.name, list(sides["train"])), np.isin(prepared.name, list(sides["test"]))


def _among(field: str, wanted: tuple[int, ...]) -> Rule:
    """A rule that trains on the clips whose field has one of these values and tests on the others."""

    def rule(prepared: Prepared) -> Masks:
        train = np.isin(getattr(prepared, field), wanted)
        return train, ~train

    return rule


def _odd_subjects(prepared: Prepared) -> Masks:
    odd = prepared.subject % 2 == 1
    return odd, ~odd


def _even_setups(prepared: Prepared) -> Masks:
    even = prepared.setup % 2 == 0
    return even, ~even


def _fold(pairs: tuple[int, ...]) -> Rule:
    def rule(prepared: Prepared) -> Masks:
        test = np.isin(prepared.subject, pairs)
        return ~test, test

    return rule


def _listed(name: str, file: str) -> Rule:
    """A rule that follows the set's own list, which `train.prepare` kept."""

    def rule(prepared: Prepared) -> Masks:
        lists = prepared.lists.get(name)
        if lists is None:
            raise UsageError(
                f"split {name} of {prepared.data} is the published list {file}, which was not there when it was "
                f"prepared; put it into SRC or give it: python -m train.prepare {prepared.data} SRC DST "
                f"--split-file {file}"
            )
        videos = np.array([clip.rpartition("_")[0] for clip in prepared.name.tolist()])
        return np.isin(videos, list(lists["train"])), np.isin(videos, list(lists["test"]))

    return rule


_RULES: dict[str, dict[str, Rule]] = {
    "ntu60": {"xsub": _among("subject", NTU60_SUBJECTS), "xview": _among("camera", (2, 3))},
    "ntu120": {"xsub": _among("subject", NTU120_SUBJECTS), "xset": _even_setups},
    "nw_ucla": {"xview": _among("camera", (1, 2)), "xsub": _odd_subjects},
    "pku_mmd1": {"xsub": _listed("xsub", "cross-subject.txt"), "xview": _listed("xview", "cross-view.txt")},
    "pku_mmd2": {"xsub": _listed("xsub", "cross_subject_v2.txt"), "xview": _listed("xview", "cross_view_v2.txt")},
    "merged": {"merged": _merged},
    "sbu": {f"fold{number}": _fold(pairs) for number, pairs in enumerate(SBU_FOLDS, start=1)},
}
