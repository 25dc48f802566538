"""Files that hold secrets: made for their owner alone, refused where others could read or change them, as ssh does."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from realtime.errors import UsageError

MOST_BYTES = 1_000_000  # read of a file of keys or passwords


def make_folder(folder: Path) -> None:
    """Makes a folder for its owner alone where there is none; UsageError where the one there is open to others."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}; name another folder with --keys") from error
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """UsageError unless it is a folder that only its owner, this user or root, can write to."""
    try:
        state = folder.stat()
    except OSError as error:
        raise UsageError(
            f"no folder of keys {folder} ({error.strerror}); run: python -m realtime.keys --keys {folder} make server"
        ) from error
    if not stat.S_ISDIR(state.st_mode):
        raise UsageError(f"--keys {folder} is no folder; a line needs the folder that `make server` made")
    _check_owner(folder, state)
    if state.st_mode & 0o022:
        raise UsageError(f"others can write to {folder} (mode {state.st_mode & 0o777:04o}); run: chmod 700 {folder}")


def read_secret(path: Path) -> str:
    """The text of a file that only its owner can read; UsageError with the chmod to run where others can."""
    return _read(path, others_may_read=False)


def read_guarded(path: Path) -> str:
    """The text of a file that others may read but not change; UsageError with the chmod to run where they can."""
    return _read(path, others_may_read=True)


def write_new(path: Path, text: str) -> None:
    """Writes a file for its owner alone, whole or not at all; UsageError where one of the name is there."""
    made = _written(path, text, 0o600)
    try:
        os.link(made, path)  # unlike a rename this replaces nothing
    except FileExistsError:
        raise UsageError(f"{path} is there already and is not replaced; move it away first") from None
    finally:
        made.unlink()


def replace_file(path: Path, text: str, mode: int) -> None:
    """Writes a file, whole or not at all, in the place of the one that is there."""
    os.replace(_written(path, text, mode), path)


def _read(path: Path, *, others_may_read: bool) -> str:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            state = os.fstat(file.fileno())  # of what was opened, whatever the name may mean by now
            if not stat.S_ISREG(state.st_mode):
                raise UsageError(f"{path} is no plain file; name one")
            _check_owner(path, state)
            _check_mode(path, state, others_may_read)
            return file.read(MOST_BYTES).decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text; name another file") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for its writer


def _check_mode(path: Path, state: os.stat_result, others_may_read: bool) -> None:
    forbidden, verb, wanted = (0o022, "write to", "644") if others_may_read else (0o077, "read", "600")
    if not others_may_read and _handed_over(path, state):
        forbidden = 0o037
    if state.st_mode & forbidden:
        mode = f"{state.st_mode & 0o777:04o}"
        raise UsageError(f"others can {verb} {path} (mode {mode}); run: chmod {wanted} {path}")


def _check_owner(path: Path, state: os.stat_result) -> None:
    if state.st_uid not in (0, os.geteuid()):
        raise UsageError(f"{path} belongs to another user (uid {state.st_uid}); run: sudo chown $USER {path}")


def _handed_over(path: Path, state: os.stat_result) -> bool:
    """Whether systemd put it there (LoadCredential): root's, and readable by an access list that shows as the group."""
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(given) and state.st_uid == 0 and path.resolve().parent == Path(str(given)).resolve()


def _written(path: Path, text: str, mode: int) -> Path:
    """The text in a new file beside the path, on the disk; UsageError where it cannot be written."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        made.unlink(missing_ok=True)  # what a crash left
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            made.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}; check space and permissions") from error
    return made
