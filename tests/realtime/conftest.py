"""A small made-up bundle for the tests of this folder: three classes, 16 rows, nothing trained."""

from __future__ import annotations

import io

import numpy as np
import pytest

from realtime.features import NORMALISATION
from realtime.skeleton import CORE_16


@pytest.fixture
def bundle_spec() -> dict:
    """The keys of bundle.json that a trainer gives."""
    rule = {"on": 0.6, "off": 0.4, "min_on_s": 0.4, "min_off_s": 0.4}
    return {
        "name": "tiny",
        "layout": "CORE_16",
        "joints": list(CORE_16.joints),
        "streams": ["joint", "bone", "motion"],
        "channels": 9,
        "window": 16,
        "fps": 20.0,
        "stride": 4,
        "normalisation": NORMALISATION,
        "actions": [{"id": "walk", "name": "walking", **rule}, {"id": "sit_down", "name": "sitting down", **rule}],
        "classes": ["nothing", "walk", "sit_down"],
        "nothing": "nothing",
        "temperature": 2.0,
        "smoothing_s": 0.3,
        "onset_shift_s": 0.0,
        "offset_shift_s": 0.0,
        "text": None,
        "training": {"data": ["made up"]},
    }


def packed(**arrays: np.ndarray) -> bytes:
    """The bytes of an .npz file."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.fixture
def bundle_files() -> dict:
    """Files that are whole but whose model is none: enough for whatever does not run it."""
    rng = np.random.default_rng(0)
    reference = packed(
        skeleton=rng.normal(size=(2, 9, 16, 16)).astype(np.float32),
        logits=rng.normal(size=(2, 3)).astype(np.float32),
        embedding=np.eye(2, 4, dtype=np.float32),
    )
    return {"model.onnx": b"a model", "reference.npz": reference, "MODEL_CARD.md": b"# Tiny\n"}
