"""The labels that a set's prompts must cover."""

from __future__ import annotations

from train.data import msr_action3d, msrc12, nw_ucla, sbu, utd_mhad, utkinect
from train.vocabulary import CLASSES

LABELS: dict[str, tuple[str, ...]] = {
    "ntu120": tuple(f"A{number:03d}" for number in range(1, 121)),  # as the files' names have them
    "pku_mmd": tuple(str(number) for number in range(1, 52)),  # as the label files have them
    "nw_ucla": nw_ucla.LABELS,
    "utd_mhad": utd_mhad.LABELS,
    "utkinect": tuple(utkinect.LABELS.values()),
    "msr_action3d": msr_action3d.LABELS,
    "msrc12": msrc12.LABELS,
    "sbu": sbu.LABELS,
    "pooled": CLASSES,
}


def labels_of(data: str) -> tuple[str, ...] | None:
    """The labels of a set's reader, or None where the set is not one of ours."""
    return LABELS.get(data)
