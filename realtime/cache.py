"""The user's own cache of engines: where it is, whose its files are, and writing there all or nothing.

    $XDG_CACHE_HOME/pcle-live/engines/<key>/      ~/.cache where XDG_CACHE_HOME is not set; mode 0700, files 0600
Another user who could write there could run code on the GPU as this one, so owner and mode are looked at, each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from realtime.errors import UsageError

ENDING = ".engine"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OURS = ("pcle-live", "engines")  # below the user's cache


def cache_folder() -> Path:
    """The folder of this user's engines; it need not exist. Raises UsageError where this user has no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of XDG_CACHE_HOME has paths that are not absolute ignored.
    try:
        base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError as error:
        raise UsageError(
            "this user has no home for a cache of engines; set XDG_CACHE_HOME to a folder of your own"
        ) from error
    return base.joinpath(*_OURS)


def engine_key(
    onnx_sha256: str, kind: str, version: str, gpu: str | None, capability: str, precision: str,
    profile: tuple[int, int, int],
) -> str:  # fmt: skip
    """The name of an engine's folder in the cache: whatever makes it another engine makes it another key."""
    parts = [onnx_sha256, kind, version, gpu, capability, precision, list(profile)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def engine_name(precision: str, kind: str, capability: str, version: str) -> str:
    """Such as model.fp16.sm87.trt10.3.0.engine, for people; what counts stands in the sidecar."""
    short = {"tensorrt": "trt", "tensorrt_rtx": "rtx"}[kind]
    return f"model.{precision}.sm{capability.replace('.', '')}.{short}{version}{ENDING}"


def all_cached() -> Iterator[Path]:
    """Every engine of the cache that has a sidecar; neither has been looked at.

    The sidecar is written last, so an engine that has none is not whole.
    """
    try:
        folders = sorted(cache_folder().iterdir())
    except (OSError, UsageError):  # no engine was ever cached
        return
    for folder in folders:
        for sidecar in sorted(folder.glob(f"*{ENDING}.json")):
            engine = sidecar.with_suffix("")
            if engine.is_file():
                yield engine


def in_cache(path: Path) -> bool:
    """Whether a file, its links followed, lies in the user's cache."""
    try:
        return path.resolve().is_relative_to(cache_folder().resolve())
    except (OSError, RuntimeError, UsageError):  # a loop of links; no home
        return False


def _ours(place: Path) -> bool:
    """Whether a place without links lies in the cache, or is the folder that the cache, or a link to it, lies in."""
    root = cache_folder()
    return place.is_relative_to(root.resolve()) or place == root.parent.resolve()


def foreign(path: Path) -> str | None:
    """Why a file is not known to be this user's own work; None where only this user can have written it."""
    if not in_cache(path):
        return "it does not lie in your own cache"
    real, above = path.resolve(), cache_folder().parent.resolve()
    try:
        for place in dict.fromkeys((real, *real.parents, above, *above.parents)):
            status = place.stat()
            if not _ours(place):
                if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
                    return f"anybody may rename what is in {place}"
            elif status.st_uid != os.geteuid():
                return f"{place} belongs to user {status.st_uid}, not to you ({os.geteuid()})"
            elif status.st_mode & _OTHERS_WRITE:
                return f"others may write to {place} (mode {stat.S_IMODE(status.st_mode):04o})"
    except OSError as error:
        return f"{error.filename} cannot be looked at ({error.strerror})"
    return None


def read_plain(file: Path, most: int) -> bytes:
    """A plain file's bytes. Raises OSError, ValueError where it is none or has more than `most` bytes."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:  # a pipe would block
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{file.name} is not a plain file")
        if status.st_size > most:
            raise ValueError(f"{file.name} has {status.st_size} bytes, at most {most}")
        return stream.read(most)


def write_pair(folder: Path, name: str, plan: bytes, sidecar: str) -> Path:
    """Writes an engine, then its sidecar, and returns the engine's path; a reader finds both whole or no sidecar.

    A folder that is made here is the user's alone; below the cache it is made so again. Two that write the same name
    at once may leave one's engine with the other's sidecar, which its sha256 then refuses.
    Raises UsageError where the folder cannot be written.
    """
    target, described = folder / name, folder / f"{name}.json"
    try:
        _make(folder)
        described.unlink(missing_ok=True)
        _sync(folder)
        for file, data in ((target, plan), (described, sidecar.encode())):
            _replace(file, data)
            _sync(folder)
    except OSError as error:
        raise UsageError(
            f"the engine {target} cannot be written ({error.strerror or error}); make room, or choose a folder of your "
            "own with -o or XDG_CACHE_HOME"
        ) from error
    return target


def _make(folder: Path) -> None:
    """Makes the folder and what is missing above it, 0700; the cache's own folders get that mode in any case."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
    if in_cache(folder):
        for place in (folder.resolve(), *folder.resolve().parents):
            if _ours(place):
                place.chmod(0o700)


def _replace(file: Path, data: bytes) -> None:
    handle, made = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(made, file)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    """What was renamed or removed in the folder outlasts a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
