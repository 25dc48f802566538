"""Runs of train.fit of a second, for tests of the exporter; and what they are compared on, gathered once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from rich.console import Console

from export import windows
from realtime.bundle import default_bundle, load_bundle
from tests.train.tiny_runs import prepared_set, settings
from tests.train.tiny_texts import tiny_encoder
from train import compose
from train.fit import fit

STREAMS = ("joint", "bone", "motion")  # those of the shipped bundle, whose windows are used


def live_run(folder: Path, method: str = "pcle", **changes) -> Path:
    """A run on live windows of generated people."""
    return _fitted(folder, method=method, streams=STREAMS, **changes)


def published_run(folder: Path) -> Path:
    """A run by the protocol of a published set, which lies beside it."""
    return _fitted(folder / "run", method="pcle", prepared=prepared_set(folder / "nw_ucla"), window=16)


def _fitted(folder: Path, **changes) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "open_encoder", tiny_encoder)
        fit(settings(folder, **changes), Console(quiet=True))
    return folder


@cache
def gathered() -> windows.Windows:
    """Windows of generated people, as the exporter gathers them where no data is given."""
    return windows.gather(load_bundle(default_bundle()))
