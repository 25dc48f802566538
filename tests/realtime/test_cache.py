"""The cache holds whole engines or none, is its user's alone, and finds what was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realtime import cache
from realtime.bundle import Bundle, load_bundle, write_bundle
from realtime.cache import all_cached, cache_folder, engine_key, engine_name
from realtime.errors import BundleError, UsageError
from realtime.sidecar import find_cached, read_engine, write_engine
from tests.realtime.engines import KEY, NAME, PLAN, expected, put, sidecar


@pytest.fixture
def bundle(tmp_path, bundle_spec, bundle_files, monkeypatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return load_bundle(write_bundle(tmp_path / "tiny", bundle_spec, bundle_files))


def test_what_is_written_is_the_users_alone(bundle, monkeypatch):
    before = os.umask(0)
    try:
        path = put(bundle)
    finally:
        os.umask(before)
    file = path.with_name(path.name + ".json")
    assert [place.stat().st_mode & 0o777 for place in (path, file)] == [0o600] * 2
    assert [place.stat().st_mode & 0o777 for place in (path.parent, cache_folder())] == [0o700] * 2
    assert sorted(path.parent.iterdir()) == [path, file]  # and nothing left behind


def test_building_again_makes_an_open_cache_the_users_alone(bundle):
    path = put(bundle)
    path.parent.chmod(0o777)
    assert read_engine(put(bundle), expected(bundle)).plan == PLAN


def test_a_folder_that_was_there_before_keeps_its_mode(bundle, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    put(bundle, folder=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o755


def test_a_cache_that_links_elsewhere_leaves_the_folder_above_its_target_alone(bundle, tmp_path):
    disk = tmp_path / "disk"
    (disk / "engines").mkdir(parents=True)
    disk.chmod(0o755)
    cache_folder().parent.mkdir(parents=True)
    cache_folder().symlink_to(disk / "engines")
    path = put(bundle)
    assert disk.stat().st_mode & 0o777 == 0o755
    assert read_engine(path, expected(bundle)).plan == PLAN
    cache_folder().parent.chmod(0o777)  # who writes there may put another link in its place
    with pytest.raises(BundleError, match="others may write to"):
        read_engine(path, expected(bundle))


def test_a_user_with_no_home_has_no_cache_and_may_still_name_a_folder(bundle, tmp_path, monkeypatch):
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(cache.Path, "home", unknown)
    assert list(all_cached()) == [] and find_cached(expected(bundle)) is None
    with pytest.raises(UsageError, match="set XDG_CACHE_HOME to a folder of your own"):
        cache_folder()
    path = put(bundle, folder=tmp_path / "elsewhere")
    assert read_engine(path, expected(bundle), trust=True).plan == PLAN
    with pytest.raises(BundleError, match="give --trust where you know who built it"):
        read_engine(path, expected(bundle))


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("step", range(7))
def test_an_engine_whose_writing_is_cut_short_is_never_found(bundle, monkeypatch, old, step):
    """At whichever rename or flush to disk it ends: the cache has a whole pair or none."""
    if old:
        put(bundle)
    plan, calls = PLAN + b" anew", iter(range(100))
    real = {name: getattr(os, name) for name in ("replace", "fsync")}

    def cut(name: str) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            if next(calls) >= step:
                raise OSError(28, "No space left on device")
            return real[name](*arguments)

        return act

    for name in real:
        monkeypatch.setattr(cache.os, name, cut(name))
    with pytest.raises(UsageError, match=r"cannot be written.*No space left on device") as caught:
        write_engine(cache_folder() / KEY, NAME, plan, sidecar(bundle, plan))
    assert "\n" not in str(caught.value)
    for found in all_cached():
        assert read_engine(found, expected(bundle)).plan in (PLAN, plan)
    assert not [file for file in (cache_folder() / KEY).iterdir() if file.name.startswith(".")]


def test_a_sidecar_of_another_plan_is_not_written(bundle):
    with pytest.raises(ValueError, match="another plan"):
        write_engine(cache_folder() / KEY, NAME, PLAN + b"x", sidecar(bundle))
    assert list(all_cached()) == []


def test_a_cached_engine_is_found_by_what_it_must_be(bundle):
    assert list(all_cached()) == [] and find_cached(expected(bundle)) is None
    path = put(bundle)
    assert list(all_cached()) == [path] and find_cached(expected(bundle)) == path
    for other in ({"version": "10.4.0"}, {"capability": "8.6"}, {"precision": "int8"}, {"onnx_sha256": "c" * 64}):
        assert find_cached(expected(bundle, **other)) is None
    assert find_cached(expected(bundle, gpu="another Orin")) == path
    path.with_name(f"{NAME}.json").write_text("{")
    assert find_cached(expected(bundle)) is None


def test_of_two_cached_engines_the_newer_is_taken(bundle):
    put(bundle)
    newer = put(bundle, folder=cache_folder() / ("b" * 32), created="2026-02-01T00:00:00+00:00")
    assert find_cached(expected(bundle)) == newer


def test_the_cache_follows_xdg_where_that_is_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, base in (("/var/x", Path("/var/x")), ("", tmp_path / ".cache"), ("relative", tmp_path / ".cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == base / "pcle-live" / "engines"


def test_whatever_makes_another_engine_makes_another_key():
    given = ("a" * 64, "tensorrt", "10.3.0", "Orin", "8.7", "fp16", (1, 1, 8))
    others = ("b" * 64, "tensorrt_rtx", "10.3.1", "Orin Nano", "8.6", "int8", (1, 1, 4))
    keys = {engine_key(*given)} | {engine_key(*given[:i], other, *given[i + 1 :]) for i, other in enumerate(others)}  # type: ignore[arg-type]
    assert len(keys) == len(given) + 1 and all(key.isalnum() for key in keys)


def test_engines_are_named_for_people():
    assert engine_name("fp16", "tensorrt", "8.7", "10.3.0") == NAME
    assert engine_name("fp32", "tensorrt_rtx", "8.0+", "1.7.1.116") == "model.fp32.sm80+.rtx1.7.1.116.engine"
