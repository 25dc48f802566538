"""Knowledge folders: aligned with the clips, the same after an interrupt, refused where they are not whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from realtime.errors import UsageError
from tests.train.tiny_texts import tiny_encoder
from tests.train.told_sets import StopsAfter, bytes_of, prepared_of
from train.describe import describe
from train.knowledge import captions, make
from train.knowledge import sentences as sentences_module
from train.knowledge.log import logged
from train.knowledge.make import described, finish, with_language
from train.knowledge.sentences import aggregated, fitted, language_of
from train.knowledge_folder import INDEX, LANGUAGE, VISION, load, sentences, write

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "prepared"
    prepared_of(folder, each=2)
    return folder


@pytest.fixture(scope="module")
def prepared(source: Path):
    from train.data.prepared import load as load_prepared

    return load_prepared(source)


def unit(rows: int, width: int, seed: int = 0) -> np.ndarray:
    array = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


# --- the folder ---


def test_what_is_written_is_read_by_name_in_any_order(tmp_path: Path):
    language, vision = unit(3, 8), unit(3, 5, seed=1)
    language[1] = 0
    write(tmp_path, "set", ["a", "b", "c"], {LANGUAGE: language, VISION: vision}, [["A."], [], ["C."]], {"made": {}})
    knowledge = load(tmp_path)
    assert knowledge.data == "set" and len(knowledge) == 3
    assert (knowledge.language == language).all() and (knowledge.vision == vision).all()
    assert knowledge.known.tolist() == [True, False, True] and knowledge.about["known"][LANGUAGE] == 2
    assert knowledge.rows(["c", "a"]).tolist() == [2, 0]
    assert sentences(tmp_path) == [("a", ["A."]), ("b", []), ("c", ["C."])]
    with pytest.raises(UsageError, match="says nothing of 1 of 2 clips, such as d"):
        knowledge.rows(["a", "d"])


@pytest.mark.parametrize(("names", "arrays", "said", "words"), [
    (["a", "b"], {LANGUAGE: unit(3, 4)}, None, r"must be \(2, D\) float32"),
    (["a", "b"], {LANGUAGE: unit(2, 4).astype(np.float64)}, None, "float32"),
    (["a", "b"], {LANGUAGE: 2 * unit(2, 4)}, None, "must be a unit vector or zeros"),
    (["a", "b"], {VISION: np.full((2, 4), np.nan, np.float32)}, None, "must be a unit vector or zeros"),
    (["a", "b"], {LANGUAGE: unit(2, 4)}, [["A."]], "one list of sentences a clip, got 1 for 2"),
    (["a", "a"], {LANGUAGE: unit(2, 4)}, None, "comes twice"),
    (["a", "b"], {}, None, "neither"),
])  # fmt: skip
def test_wrong_counts_and_rows_are_refused_before_anything_is_written(tmp_path: Path, names, arrays, said, words: str):
    with pytest.raises(UsageError, match=words):
        write(tmp_path / "out", "set", names, arrays, said, {})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "harm", ["no index", "a name less", "another row count", "a byte", "no array", "another schema"]
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, harm: str):
    write(tmp_path, "set", ["a", "b"], {LANGUAGE: unit(2, 4)}, None, {})
    content = json.loads((tmp_path / INDEX).read_text())
    if harm == "no index":
        (tmp_path / INDEX).unlink()
    elif harm == "a name less":
        (tmp_path / INDEX).write_text(json.dumps({**content, "names": ["a"]}))
    elif harm == "another row count":
        (tmp_path / INDEX).write_text(json.dumps({**content, "names": ["a"], "clips": 1}))
    elif harm == "another schema":
        (tmp_path / INDEX).write_text(json.dumps({**content, "schema": "knowledge/9"}))
    elif harm == "a byte":
        with (tmp_path / LANGUAGE).open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\x00")
    else:
        (tmp_path / LANGUAGE).unlink()
    with pytest.raises(UsageError, match=r"train\.knowledge"):
        load(tmp_path)


# --- the describer ---


def made_by_describing(prepared, source: Path, out: Path, stops: tuple[int, int] = (10**9, 10**9)) -> None:
    made = described(prepared, source, 6, out, StopsAfter(stops[0]))
    finish(with_language(made, tiny_encoder(), "mean", out, StopsAfter(stops[1])), out)


def test_descriptions_become_one_unit_row_a_clip(prepared, source: Path, tmp_path: Path):
    made_by_describing(prepared, source, tmp_path)
    knowledge = load(tmp_path)
    assert knowledge.names == tuple(prepared.name) and knowledge.known.all() and knowledge.vision is None
    assert knowledge.rows(prepared.name).tolist() == list(range(6))
    said = dict(sentences(tmp_path))
    assert said["clap-1"] == describe(prepared.clip(4), prepared.layout, prepared.fps, count=6)
    by_hand = torch.nn.functional.normalize(tiny_encoder().encode(said["clap-1"]), dim=1).mean(dim=0)
    np.testing.assert_allclose(knowledge.language[4], torch.nn.functional.normalize(by_hand, dim=0), atol=1e-5)
    about = knowledge.about["made"][LANGUAGE]
    assert about["by"] == "describe" and about["encoder"] == "tiny" and len(about["encoder_sha256"]) == 64
    assert sorted(path.name for path in tmp_path.iterdir()) == [INDEX, LANGUAGE, "sentences.jsonl"]


@pytest.mark.parametrize("stops", [(2, 10**9), (10**9, 5)], ids=["while describing", "while encoding"])
def test_an_interrupted_run_goes_on_to_the_same_bytes(prepared, source: Path, tmp_path: Path, monkeypatch, stops):
    monkeypatch.setattr(sentences_module, "PART", 4)
    made_by_describing(prepared, source, tmp_path / "whole")
    calls = []
    monkeypatch.setattr(make, "describe", lambda *a, **k: calls.append(1) or describe(*a, **k))
    with pytest.raises(KeyboardInterrupt):
        made_by_describing(prepared, source, tmp_path / "broken", stops)
    assert not (tmp_path / "broken" / INDEX).exists()
    with pytest.raises(UsageError, match="holds no knowledge"):
        load(tmp_path / "broken")
    (log,) = (tmp_path / "broken" / make.PARTS).glob("describe-*.jsonl")
    with log.open("a") as file:
        file.write('{"name": "half a li')  # killed while it wrote
    made_by_describing(prepared, source, tmp_path / "broken")
    assert bytes_of(tmp_path / "broken") == bytes_of(tmp_path / "whole")
    assert len(calls) == 6  # no clip was described twice


def test_a_damaged_log_is_named(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text("no json\n")
    with pytest.raises(UsageError, match=r"log\.jsonl is damaged"):
        logged(["a"], lambda name: {}, tmp_path / "log.jsonl")


def test_a_second_run_keeps_the_other_kind_and_refuses_other_clips(prepared, source: Path, tmp_path: Path):
    made_by_describing(prepared, source, tmp_path)
    language = load(tmp_path).language
    names = tuple(str(name) for name in prepared.name)
    finish(make.Made(prepared.data, names, {VISION: {"by": "frames"}}, vision=unit(6, 5)), tmp_path)
    knowledge = load(tmp_path)
    assert (knowledge.language == language).all() and knowledge.vision.shape == (6, 5)
    assert set(knowledge.about["made"]) == {LANGUAGE, VISION} and len(sentences(tmp_path)) == 6
    with pytest.raises(UsageError, match="about other clips"):
        finish(make.Made("other", names, {VISION: {}}, vision=unit(6, 5)), tmp_path)


# --- sentences ---


def test_aggregates():
    rows = unit(3, 6)
    vectors = rows[[0, 1, 1, 2]]
    mean, distinct = vectors.mean(axis=0), rows.mean(axis=0)
    np.testing.assert_allclose(aggregated(vectors, "mean"), mean / np.linalg.norm(mean), rtol=1e-5)
    np.testing.assert_allclose(aggregated(vectors, "distinct"), distinct / np.linalg.norm(distinct), rtol=1e-5)
    assert (aggregated(vectors, "medoid") == rows[(rows @ mean).argmax()]).all()
    assert (aggregated(np.stack([rows[0], -rows[0]]), "mean") == rows[0]).all()  # they cancel out


def test_a_sentence_too_long_for_the_encoder_keeps_its_first_words(tmp_path: Path):
    encoder = tiny_encoder()
    long = " ".join(f"word{i}" for i in range(100))
    assert fitted(encoder, long) == " ".join(long.split()[:75]) and fitted(encoder, "two  words") == "two  words"
    language, about = language_of([[long], []], encoder, "mean", tmp_path)
    assert about["shortened"] == 1 and about["distinct"] == 1 and not language[1].any()


# --- captions ---


def test_captions_of_a_prepared_clip_go_by_its_name_or_pku_mmds_id(tmp_path: Path):
    assert list(captions.ids_of("A13N08-M_004", "48")) == ["A13N08-M_004", "A013N008V002C048L005"]
    assert list(captions.ids_of("0002-L_000", "48")) == ["0002-L_000"]
    (tmp_path / "said.json").write_text(json.dumps({"x": [" A. ", "B."], "y": ["C."]}))
    assert captions.read(tmp_path / "said.json") == {"x": ["A.", "B."], "y": ["C."]}


@pytest.mark.parametrize("content", ["[]", "{}", '{"a": "text"}', '{"a": [""]}', '{"a": [1]}', "no json"])
def test_other_files_are_no_captions(tmp_path: Path, content: str):
    (tmp_path / "said.json").write_text(content)
    with pytest.raises(UsageError, match=r"said\.json"):
        captions.read(tmp_path / "said.json")


def test_captions_of_other_clips_are_refused(prepared):
    with pytest.raises(UsageError, match="none is the same"):
        captions.of_prepared({"elsewhere": ["A."]}, prepared)
    found = captions.of_prepared({"bow-1": ["It bows."]}, prepared)
    assert found[5] == ["It bows."] and not any(found[:5])


def test_the_published_captions_are_read_whole(shared: Path, tmp_path: Path):
    archive = shared / "data" / "pku_mmd2_captions.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    said = captions.read(archive)
    assert len(said) == 6952 and {len(of_clip) for of_clip in said.values()} == {16}
    assert all(re.fullmatch(r"A\d{3}N\d{3}V00[123]C\d{3}L\d{3}", name) for name in said)
    few = dict(list(said.items())[:40])
    out = finish(
        with_language(
            make.Made("", tuple(few), {LANGUAGE: {"by": "captions"}}, list(few.values())),
            tiny_encoder(), "distinct", tmp_path,
        ),
        tmp_path,
    )  # fmt: skip
    about = out["made"][LANGUAGE]
    assert about["sentences"] == 640 and 300 < about["distinct"] < 640
    assert load(tmp_path).known.all() and dict(sentences(tmp_path)) == few


# --- the command ---


def command(*arguments: str):
    whole = [sys.executable, "-m", "train.knowledge", *arguments]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, " ".join(done.stderr.split())


def test_the_command_describes_and_shows(source: Path, tmp_path: Path):
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    code, _, told = command("describe", "--prepared", str(source), "--out", str(tmp_path / "out"))
    if "are not installed" in told:
        pytest.skip(told)
    assert code == 0 and "language.npy 6 of 6 x 384" in told, told
    code, printed, _ = command("show", "--folder", str(tmp_path / "out"), "--clip", "wave-0")
    assert code == 0 and "The right hand is raised" in printed
    knowledge = load(tmp_path / "out")
    near = knowledge.language @ knowledge.language.T - 2 * np.eye(6)
    assert [name.split("-")[0] for name in knowledge.names] == [
        knowledge.names[i].split("-")[0] for i in near.argmax(axis=1)
    ]  # of two people, the same motion is nearest


@pytest.mark.parametrize(("flags", "words"), [
    (["--vision", "ViT-B-32", "--vision-weights", "nowhere.safetensors"], "ViT-B-32"),
    ([], "needs --answerer"),
    (["--answerer", "some/llava"], "transformers|hf download some/llava"),
    (["--answerer", "./nowhere"], "transformers|is not a folder"),
    (["--vision", "ViT-B-32", "--vision-weights", "nowhere.safetensors", "--detector", "a/b"],
     "transformers|hf download a/b|ViT-B-32"),
])  # fmt: skip
def test_what_is_missing_is_named_with_what_to_fetch(source: Path, tmp_path: Path, flags, words: str):
    code, _, told = command(
        "frames", "--prepared", str(source), "--pictures", str(tmp_path), "--out", str(tmp_path / "out"), *flags
    )
    assert code == 2 and re.search(words, told), told
