"""Pictures of clips: frames, crops, what models say of them and CLIP's image tower."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from realtime.errors import UsageError
from tests.train.tiny_texts import tiny_encoder
from tests.train.told_sets import StopsAfter, bytes_of, prepared_of
from train.knowledge.frames import FRAMES, around, pictures_of, places
from train.knowledge.make import finish, models_of, seen, with_language
from train.knowledge.pictures import Eyes
from train.knowledge_folder import load, sentences


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    return prepared_of(tmp_path_factory.mktemp("set") / "prepared", each=2)


def test_frames_are_the_middles_of_even_parts():
    assert places(160, 16) == list(range(5, 160, 10))
    assert places(3, 16) == [0, 1, 2] and places(1, 16) == [0]


def test_a_crop_holds_all_boxes_with_a_margin_and_stays_inside():
    assert around([], 640, 480) == (0, 0, 640, 480)
    assert around([(100, 100, 200, 300)], 640, 480) == (90, 80, 210, 320)
    assert around([(0, 10, 50, 60), (600, 400, 640, 480)], 640, 480) == (0, 0, 640, 480)
    assert around([(-50, -50, -20, -20)], 640, 480) == (0, 0, 640, 480)


@pytest.fixture(scope="module")
def rgb(tmp_path_factory: pytest.TempPathFactory, prepared) -> Path:
    """Pictures of every clip, each clip another grey; one clip as a video."""
    folder = tmp_path_factory.mktemp("rgb")
    for i, name in enumerate(prepared.name):
        if i == 5:
            video = cv2.VideoWriter(str(folder / f"{name}_rgb.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
            for _ in range(20):
                video.write(np.full((48, 64, 3), 40 * i, np.uint8))
            video.release()
            continue
        (folder / name).mkdir()
        for j in range(3):
            picture = np.full((48, 64, 3), 40 * i, np.uint8)
            picture[:, :, 0] = 10 * j  # blue in OpenCV's order
            cv2.imwrite(str(folder / name / f"{j:03d}.png"), picture)
    return folder


def test_pictures_come_as_rgb_from_folders_and_videos(rgb: Path):
    three = pictures_of(rgb, "clap-0")
    assert len(three) == 3 and three[2][0, 0].tolist() == [40, 40, 20]
    film = pictures_of(rgb, "bow-1")
    assert len(film) == FRAMES and film[0].shape == (48, 64, 3) and abs(int(film[3][9, 9, 0]) - 200) < 6
    with pytest.raises(UsageError, match="no pictures of jump-0"):
        pictures_of(rgb, "jump-0")


def test_a_folder_whose_name_is_no_text_gives_pictures_and_refuses_a_video(rgb: Path, tmp_path: Path):
    folder = Path(shutil.copytree(rgb, tmp_path / os.fsdecode(b"b\xfcro")))
    assert len(pictures_of(folder, "clap-0")) == 3
    with pytest.raises(UsageError, match="not valid Unicode; rename it"):
        pictures_of(folder, "bow-1")


class Middle:
    """Finds one person in the middle."""

    def boxes(self, picture: np.ndarray):
        return [(16.0, 12.0, 48.0, 36.0)]


class Grey:
    """Says how bright a crop is, and gives it as a feature."""

    width = 4

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, picture: np.ndarray) -> str:
        self.asked += 1
        return f"It is {int(picture.mean())} bright, {picture.shape[1]} wide."

    def encode(self, pictures):
        return torch.tensor([[1.0, float(p.mean()), 2.0, 3.0] for p in pictures])


def test_frames_are_cropped_told_of_and_seen_and_resume(prepared, rgb: Path, tmp_path: Path):
    def run(out: Path, left: int = 10**9) -> Grey:
        grey = Grey()
        eyes = Eyes(Middle(), grey, grey, FRAMES)
        made = seen(eyes, {"answerer": "grey"}, prepared, rgb, out, StopsAfter(left))
        finish(with_language(made, tiny_encoder(), "mean", out), out)
        return grey

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", left=4)
    again = run(tmp_path / "broken")
    assert bytes_of(tmp_path / "broken") == bytes_of(tmp_path / "whole")
    assert again.asked == FRAMES  # only the last clip was left
    knowledge = load(tmp_path / "whole")
    assert knowledge.language.shape == (6, 16) and knowledge.vision.shape == (6, 4) and knowledge.known.all()
    assert dict(sentences(tmp_path / "whole"))["clap-0"][0].endswith(
        "39 wide."
    )  # 32, a margin of 3.2 on each side, whole pixels


def test_clips_images_are_open_clips_own(tmp_path: Path):
    open_clip = pytest.importorskip("open_clip", reason="the extra `text` is not installed")
    from PIL import Image
    from safetensors.torch import save_file

    from train.text_clip import load_image

    shape = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1},
    }
    (tmp_path / "tiny-eye.json").write_text(json.dumps(shape))
    open_clip.add_model_config(tmp_path / "tiny-eye.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-eye", pretrained=None, force_quick_gelu=True).eval()
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    tower = load_image("tiny-eye", tmp_path / "tiny.safetensors")
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (90, 64, 3), np.uint8), (9, 9), 0)
    theirs = open_clip.image_transform(32, is_train=False)(Image.fromarray(picture))
    assert float((tower.prepared(picture) - theirs).abs().max()) < 0.03  # one of 255 levels is 0.015
    with torch.no_grad():
        expected = model.encode_image(theirs[None])
    feature = tower.encode([picture, picture])
    assert feature.shape == (2, 24)
    assert float(torch.nn.functional.cosine_similarity(feature[:1], expected)) > 0.9999
    eyes = Eyes(None, None, tower, FRAMES)
    assert models_of(eyes)["image"] == "tiny-eye" and len(models_of(eyes)["image_sha256"]) == 64
    (tmp_path / "tiny.pt").write_bytes(b"pickle")
    with pytest.raises(UsageError, match=r"not a \.safetensors file"):
        load_image("tiny-eye", tmp_path / "tiny.pt")
    with pytest.raises(UsageError, match="knows no model"):
        load_image("no-such-eye", tmp_path / "tiny.safetensors")
