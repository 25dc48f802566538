import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.train.runs_by_hand import CLASSES, write_run
from train import figures
from train.figures import draw_figures, most_confused, plane

LABELS = np.repeat([0, 1, 2], 8)
ANSWERS = np.where(np.arange(24) % 8 == 7, (LABELS + 1) % 3, LABELS)  # one of eight wrong in each class


def centres(width, seed=0):
    made = np.random.default_rng(seed).normal(size=(3, width))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def features(width=16):
    noise = np.random.default_rng(1).normal(scale=0.05, size=(24, width))
    return (centres(width)[LABELS] + noise).astype(np.float32)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def tints(picture):
    """How many pixels are of no grey: dots, diamonds, cells."""
    return int((np.ptp(picture.astype(int), axis=2) > 60).sum())


def test_a_run_gets_its_pictures_and_its_figures(tmp_path):
    run = write_run(tmp_path / "run", ANSWERS, LABELS, feature=features(), text=centres(16))
    assert draw_figures(run) is None
    for name in ("confusion.png", "tsne.png"):
        picture = pixels(run / name)
        assert min(picture.shape[:2]) > 300 and tints(picture) > 500
    found = json.loads((run / "per_class.json").read_text())
    assert list(found) == list(CLASSES)
    assert found["throw"] == {"clips": 8, "precision": 7 / 8, "recall": 7 / 8, "f1": 7 / 8}
    assert not list(run.glob("*.partial"))


def test_figures_of_nothing_are_null_and_not_a_number_that_json_has_not(tmp_path):
    run = write_run(tmp_path / "run", [0, 1], [0, 1])
    draw_figures(run)
    text = (run / "per_class.json").read_text()
    assert json.loads(text)["throw"] == {"clips": 0, "precision": None, "recall": None, "f1": None}
    assert "NaN" not in text


def test_diamonds_stand_for_texts_that_share_the_clips_space_only(tmp_path):
    pictures = {
        name: write_run(tmp_path / name, ANSWERS, LABELS, feature=features(), text=text) / "tsne.png"
        for name, text in (("none", None), ("other width", centres(12)), ("same", centres(16)))
    }
    for path in pictures.values():
        draw_figures(path.parent)
    none, other, same = (pixels(path) for path in pictures.values())
    np.testing.assert_array_equal(none, other)
    assert tints(same) > tints(none)


def test_without_features_there_is_no_map_of_them(tmp_path):
    run = write_run(tmp_path / "run", ANSWERS, LABELS)
    draw_figures(run)
    assert (run / "confusion.png").exists() and not (run / "tsne.png").exists()


def test_drawing_twice_gives_the_same_picture(tmp_path):
    run = write_run(tmp_path / "run", ANSWERS, LABELS, feature=features(), text=centres(16))
    draw_figures(run)
    before = pixels(run / "tsne.png")
    draw_figures(run)
    np.testing.assert_array_equal(before, pixels(run / "tsne.png"))


def test_clusters_stay_clusters_and_a_text_lies_in_its_own():
    places = plane(np.concatenate([features(), centres(16)]))
    middles = np.stack([places[:24][k == LABELS].mean(axis=0) for k in range(3)])
    distance = np.linalg.norm(places[:, None] - middles, axis=2)  # (27, 3)
    assert distance.argmin(axis=1).tolist() == [*LABELS, 0, 1, 2]


@pytest.mark.parametrize("points", [np.ones((1, 4)), np.ones((3, 1)), np.ones((9, 4)), np.zeros((6, 3)), np.eye(5)])
def test_few_or_equal_points_have_a_place_each(points):
    places = plane(points.astype(np.float32))
    assert places.shape == (len(points), 2) and np.isfinite(places).all()


def test_of_many_classes_the_most_confused_pairs_are_drawn():
    counts = np.diag([10] * 6)
    counts[4, 1], counts[1, 4], counts[5, 0], counts[2, 3] = 3, 3, 4, 1
    assert most_confused(counts, 6) == [0, 1, 2, 3, 4, 5]
    assert most_confused(counts, 2) == [1, 4]  # 6 of 26 clips together, before 4 of 14 one way
    assert most_confused(counts, 4) == [0, 1, 4, 5]
    assert most_confused(np.diag([10, 10, 0, 10, 10]), 3) == [0, 1, 3]  # nothing mistaken, and 2 has no clips


def test_of_many_clips_a_part_spread_over_all_is_drawn():
    labels = np.repeat([0, 1, 2], [1000, 3, 7])
    drawn = figures._drawn(labels, [0, 1])
    assert np.bincount(labels[drawn]).tolist() == [figures.CLIPS_DRAWN, 3]
    assert len(set(drawn.tolist())) == len(drawn) and {0, 999, 1000, 1002} <= set(drawn.tolist())


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["figures", *map(str, words)])
    return figures.main()


def test_the_command_draws_the_classes_asked_for(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run", ANSWERS, LABELS, feature=features(), text=centres(16))
    assert call(monkeypatch, run) == 0
    every = pixels(run / "tsne.png")
    assert call(monkeypatch, run, "--classes", "throw", "sit down") == 0
    assert (pixels(run / "tsne.png").shape != every.shape) or (pixels(run / "tsne.png") != every).any()
    assert call(monkeypatch, run, "--classes", "fly") == 2
    assert "no test clip is of class 'fly'; --classes takes some of: sit down, stand up, throw" in (
        capsys.readouterr().err.replace("\n", " ")
    )


def test_a_run_without_scores_is_refused(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, tmp_path) == 3
    assert "--resume" in capsys.readouterr().err
