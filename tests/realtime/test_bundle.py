"""A bundle is whole or refused, in one line, with exit code 3."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest

import realtime.bundle
from realtime.bundle import Bundle, load_bundle, load_reference, write_bundle
from realtime.errors import BundleError, UsageError

KEYS = [
    key for key in Bundle.__dataclass_fields__ if key not in ("path", "graphs", "directed")
]  # old bundles lack graphs


@pytest.fixture
def folder(tmp_path, bundle_spec, bundle_files):
    return write_bundle(tmp_path / "tiny", bundle_spec, bundle_files)


def packed(**arrays: np.ndarray) -> bytes:
    """The bytes of an .npz file."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def edit(folder, change) -> None:
    """Rewrites bundle.json by hand."""
    document = json.loads((folder / "bundle.json").read_text())
    change(document)
    (folder / "bundle.json").write_text(json.dumps(document))


def refusal(folder, load=load_bundle) -> str:
    with pytest.raises(BundleError) as caught:
        load(folder)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_written_bundle_is_read_back(folder, bundle_spec, bundle_files):
    bundle = load_bundle(folder)
    assert bundle.layout.name == "CORE_16" and bundle.window == 16 and bundle.fps == 20.0
    assert bundle.classes == ("nothing", "walk", "sit_down")
    assert bundle.actions[1].name == "sitting down" and bundle.actions[1].off == 0.4
    assert {name: bundle.read(name) for name in bundle.files} == bundle_files
    assert load_reference(bundle).skeleton.shape == (2, 9, 16, 16)


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "MODEL_CARD.md"])
def test_one_flipped_bit_in_any_file_is_refused(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert name in refusal(folder) and "sha256" in refusal(folder)


def test_a_shortened_file_is_refused(folder):
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[:-1])
    assert f"has {len(data) - 1} bytes where bundle.json says {len(data)}" in refusal(folder)


def test_a_file_that_is_gone_is_refused(folder):
    (folder / "model.onnx").unlink()
    assert "model.onnx cannot be read" in refusal(folder)


def test_a_file_changed_after_loading_is_refused_when_read(folder):
    bundle = load_bundle(folder)
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match="sha256"):
        bundle.read("model.onnx")


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_refused_by_name(folder, key):
    edit(folder, lambda document: document.pop(key))
    assert f"lacks the key '{key}'" in refusal(folder)


BAD = {
    "schema": ["bundle/2", None, []],
    "name": ["", 3, "two\nlines"],
    "created": ["yesterday", "2025-01-31T12:00:00", "2025-01-31T12:00:00+02:00"],
    "layout": ["COCO_17", "KINECT", 16, ["CORE_16"]],
    "joints": [["hip_center"], "hip_center", [1]],
    "streams": [["speed"], [], "joint", ["joint", "joint"]],
    "channels": [8, "9", True, 9.0],
    "window": [0, -64, 64.0, True, 10**9],
    "fps": [0, "20", None, True],
    "stride": [0, 17, 1.5],
    "normalisation": ["other/1", None],
    "actions": [{}, [], [{"id": "walk"}]],
    "classes": [["nothing", "walk"], ["walk", "walk", "nothing"], ["nothing", "walk", "sit.down"], {}],
    "nothing": ["idle", None],
    "temperature": [0, -1, "1"],
    "smoothing_s": [-0.1, [0.3]],
    "onset_shift_s": [-0.1, None],
    "offset_shift_s": [-0.1, 11],
    "text": ["words", 1],
    "training": [None, []],
    "files": [[], {}, {"model.onnx": {"sha256": "0" * 64, "bytes": 7}}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_by_the_name_of_its_key(folder, key, value):
    edit(folder, lambda document: document.update({key: value}))
    assert key.rstrip("s") in refusal(folder)


RULES = [("on", 1.1), ("off", 0.7), ("off", 0), ("on", "high"), ("min_on_s", -1), ("min_off_s", None), ("id", "run")]


@pytest.mark.parametrize(("key", "value"), RULES)
def test_a_bad_decision_rule_is_refused(folder, key, value):
    edit(folder, lambda document: document["actions"][0].update({key: value}))
    assert "actions" in refusal(folder)


def test_joints_in_another_order_are_refused(folder):
    edit(folder, lambda document: document["joints"].reverse())
    assert "must be the joints of CORE_16 in its order" in refusal(folder)


def test_an_unknown_key_is_refused(folder):
    edit(folder, lambda document: document.update({"strid": 4}))
    assert "strid" in refusal(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "bundle.json", "", "a\\b", "C:x"])
def test_a_file_outside_the_folder_is_refused(folder, name):
    edit(folder, lambda document: document["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))
    assert "must be a path inside the bundle" in refusal(folder)


def test_a_link_that_leaves_the_folder_is_refused_even_when_its_bytes_are_right(folder):
    os.rename(folder / "model.onnx", folder.parent / "elsewhere")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere")
    assert "a link that leaves the bundle" in refusal(folder)


def test_a_loop_of_links_and_a_folder_are_refused(folder):
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("model.onnx")
    assert "model.onnx" in refusal(folder)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    assert "not a plain file" in refusal(folder)


def test_a_folder_reached_by_a_link_is_fine(folder):
    (folder.parent / "current").symlink_to(folder)
    assert load_bundle(folder.parent / "current").name == "tiny"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"fps": NaN}', b"[" * 100_000, b"9" * 10_000, b" " * 4_000_001]
)
def test_what_is_not_a_description_is_refused(folder, text):
    (folder / "bundle.json").write_bytes(text)
    assert "bundle.json" in refusal(folder)


def test_a_folder_that_is_none_or_empty_is_refused(tmp_path):
    assert "no such folder" in refusal(tmp_path / "absent")
    assert "holds no bundle.json" in refusal(tmp_path)


def test_reference_arrays_that_are_pickled_or_misshapen_are_refused(tmp_path, bundle_spec, bundle_files):
    good = dict(np.load(io.BytesIO(bundle_files["reference.npz"])))
    bad = {
        "pickle": packed(**{**good, "logits": np.array([{}, {}], object)}),
        "rows": packed(**{**good, "logits": good["logits"][:1]}),
        "type": packed(**{**good, "logits": good["logits"].astype(np.float64)}),
        "nan": packed(**{**good, "logits": good["logits"] * np.nan}),
        "empty": packed(**{name: array[:0] for name, array in good.items()}),
        "lacking": packed(skeleton=good["skeleton"]),
        "not a zip": b"PK",
    }
    for name, data in bad.items():
        with pytest.raises(BundleError, match=r"reference\.npz"):
            write_bundle(tmp_path / name, bundle_spec, {**bundle_files, "reference.npz": data})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten_unless_asked(folder, bundle_spec, bundle_files):
    with pytest.raises(UsageError, match="exists already"):
        write_bundle(folder, bundle_spec, bundle_files)
    write_bundle(folder, {**bundle_spec, "name": "newer"}, bundle_files, replace=True)
    assert load_bundle(folder).name == "newer"
    assert [entry.name for entry in folder.parent.iterdir()] == ["tiny"]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path, bundle_spec, bundle_files):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not a bundle"):
        write_bundle(tmp_path, bundle_spec, bundle_files, replace=True)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("fault", [{"fps": -1}, {"temperature": float("nan")}, {"training": {"when": object()}}])
def test_a_bad_new_bundle_leaves_the_old_one(folder, bundle_spec, bundle_files, fault):
    with pytest.raises(BundleError):
        write_bundle(folder, {**bundle_spec, **fault}, bundle_files, replace=True)
    assert load_bundle(folder).name == "tiny"
    assert [entry.name for entry in folder.parent.iterdir()] == ["tiny"]


def test_the_old_bundle_comes_back_when_the_new_one_cannot_take_its_place(
    folder, bundle_spec, bundle_files, monkeypatch
):
    rename = realtime.bundle.Path.rename

    def fail_once(self, target):
        if target == folder and self.name.startswith(".tiny."):
            raise OSError("planted")
        return rename(self, target)

    monkeypatch.setattr(realtime.bundle.Path, "rename", fail_once)
    with pytest.raises(OSError, match="planted"):
        write_bundle(folder, {**bundle_spec, "name": "newer"}, bundle_files, replace=True)
    assert load_bundle(folder).name == "tiny"
    assert [entry.name for entry in folder.parent.iterdir()] == ["tiny"]
