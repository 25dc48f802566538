"""Grounding DINO and LLaVA through transformers: small and random, but of the real classes, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the extra `engine` is not installed")

from realtime.errors import UsageError
from tests.train.tiny_eyes import WORDS, tiny_answerer, tiny_detector
from tests.train.tiny_texts import tiny_encoder
from tests.train.told_sets import prepared_of
from train.knowledge import models
from train.knowledge.make import finish, models_of, seen, with_language
from train.knowledge.models import NEW_TOKENS, Answerer, Detector
from train.knowledge.pictures import Eyes
from train.knowledge_folder import LANGUAGE, load, sentences

CPU = torch.device("cpu")
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}{% endfor %}"
)
PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture(
    scope="module", params=[(None, torch.float32), (TEMPLATE, torch.bfloat16)], ids=["plain", "template, halves"]
)
def answerer(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_answerer(tmp_path_factory.mktemp("answerer"), *request.param)


def test_boxes_lie_in_the_picture_and_the_surest_come_first(detector: Path, monkeypatch):
    monkeypatch.setattr(models, "BOX", 0.0)
    monkeypatch.setattr(models, "TEXT", 0.0)
    boxes = Detector(str(detector), CPU).boxes(PICTURE)
    assert len(boxes) == 9 and all(len(box) == 4 for box in boxes)
    assert all(-64 < left <= right < 128 and -48 < top <= bottom < 96 for left, top, right, bottom in boxes)
    monkeypatch.setattr(models, "BOX", 1.0)
    assert Detector(str(detector), CPU).boxes(PICTURE) == []


def test_the_same_picture_gets_the_same_answer_without_the_question(answerer: Path):
    one = Answerer(str(answerer), CPU, new_tokens=6)
    said = one.answer(PICTURE)
    assert said == Answerer(str(answerer), CPU, new_tokens=6).answer(PICTURE)
    assert set(said.split()) <= set(WORDS) and len(said.split()) <= 6 and NEW_TOKENS > 6


def test_frames_go_through_both_to_a_folder(detector: Path, answerer: Path, tmp_path: Path):
    import cv2

    prepared = prepared_of(tmp_path / "prepared")
    for name in prepared.name:
        (tmp_path / "rgb" / name).mkdir(parents=True)
        for j in range(2):
            cv2.imwrite(str(tmp_path / "rgb" / name / f"{j}.png"), PICTURE)
    eyes = Eyes(Detector(str(detector), CPU), Answerer(str(answerer), CPU, new_tokens=4), None, 2)
    made = seen(eyes, models_of(eyes), prepared, tmp_path / "rgb", tmp_path / "out")
    finish(with_language(made, tiny_encoder(), "mean", tmp_path / "out"), tmp_path / "out")
    about = load(tmp_path / "out").about["made"][LANGUAGE]
    assert about["detector"] == str(detector) and len(about["answerer_sha256"]) == 64
    assert len(sentences(tmp_path / "out")) == 3


@pytest.mark.parametrize("kind", [Detector, Answerer])
def test_models_that_are_not_here_are_named(kind, tmp_path: Path):
    with pytest.raises(UsageError, match="hf download nobody/nothing"):
        kind("nobody/nothing", CPU)
    with pytest.raises(UsageError, match="is not a folder"):
        kind("./nowhere", CPU)
    with pytest.raises(UsageError, match="not on this machine, or not whole"):
        kind(str(tmp_path), CPU)
