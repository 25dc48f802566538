"""What this machine has and what the line lacks on it, row by row; `python -m realtime.doctor` prints it.

Nothing is read from the network and no camera is opened. What may crash on import is tried in a child process.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from realtime import limits
from realtime.accelerator import accelerator
from realtime.bundle import default_bundle, load_bundle
from realtime.errors import BundleError
from realtime.litert import DETECTOR, LANDMARKS
from realtime.probe import Check, Probe, probe

INSTALL = "run `make install` in the project's folder"
# Package, oldest version that will do, first version that will not.
PACKAGES = (
    ("numpy", "1.26", "2"),
    ("onnxruntime", "1.20", ""),
    ("mediapipe", "0.10.18", "0.10.22"),
    ("opencv-contrib-python", "4.10", "4.12"),
    ("protobuf", "4.25.3", "5"),
    ("av", "14", ""),
    ("pyzmq", "26", ""),
    ("msgspec", "0.19", ""),
    ("mcap", "1.2", ""),
    ("rich", "13", ""),
    ("tyro", "0.9", ""),
)
OTHER_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python-headless")
_OPENCV = "import cv2; print(cv2.__version__)"
_POSE = "from realtime.pose import MediaPipePose; MediaPipePose().close(); print('starts')"
_PROVIDERS = "import onnxruntime; print(', '.join(onnxruntime.get_available_providers()))"
_ENGINE = (  # as the line opens it
    "import sys; from realtime.bundle import load_bundle; from realtime.backends import open_engine; "
    "engine = open_engine(load_bundle(sys.argv[1]), precision='auto'); "
    "print(f'{engine.backend} ({engine.why})')"
)


def examine(folder: Path | None = None, port: int = 5556, ask: Probe = probe) -> list[Check]:
    """Every row, in the order of the tables.

    folder: the bundle to check, None for the one that ships. port: where the line is going to publish.
    ask: how a line of Python is tried in another process.
    """
    folder = folder or default_bundle()
    with ThreadPoolExecutor(4) as pool:  # these wait for child processes, side by side
        opencv, pose, lite = pool.submit(_opencv, ask), pool.submit(_pose, ask), pool.submit(limits.litert, ask)
        bundle, providers = pool.submit(_bundle, ask, folder), pool.submit(_providers, ask)
        gpu = pool.submit(accelerator, ask, folder, _version)
        rows = [*_machine(), limits.files(), limits.clock(), *_packages(_version), *_models()]
        rows += [opencv.result(), pose.result(), lite.result(), *bundle.result(), providers.result(), *gpu.result()]
    return [*rows, *_cameras(), _display(), *limits.ports(port), limits.telemetry(_version)]


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparing: 4.11.0.86 -> (4, 11, 0, 86)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0].partition("rc")[0]))


def _version(package: str) -> str | None:
    """The installed version by the package's own record; nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> Iterator[Check]:
    version, good = platform.python_version(), (3, 10) <= sys.version_info[:2] <= (3, 12)
    advice = "" if good else "make the environment anew with Python 3.10, 3.11 or 3.12: make clean install"
    yield Check("machine", "Python", "ok" if good else "missing", version, advice)
    yield Check("machine", "system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    few = "" if usable >= 2 else "MediaPipe keeps one core busy; expect a lower frame rate"
    yield Check("machine", "processor cores", "ok" if usable >= 2 else "note", str(usable), few)
    yield _memory(Path("/proc/meminfo"))


def _memory(path: Path) -> Check:
    try:
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in path.open()) if rest}
    except (OSError, ValueError):
        return Check("machine", "memory", "note", "unknown", "this system does not tell; the line needs about 0.6 GB")
    total, free = (kilobytes.get(name, 0) / 1e6 for name in ("MemTotal", "MemAvailable"))
    tight = free < 1.0
    advice = "close other programs: the line needs about 0.6 GB" if tight else ""
    return Check("machine", "memory", "note" if tight else "ok", f"{total:.1f} GB, {free:.1f} GB free", advice)


def _packages(version_of: Callable[[str], str | None]) -> Iterator[Check]:
    for package, least, below in PACKAGES:
        version = version_of(package) or version_of(f"{package}-gpu")  # onnxruntime-gpu stands in for onnxruntime
        wanted = f"{least} or newer" + (f", older than {below}" if below else "")
        if version is None:
            yield Check("packages", package, "missing", "not installed", INSTALL)
        elif _numbers(version) < _numbers(least) or (below and _numbers(version) >= _numbers(below)):
            yield Check("packages", package, "missing", version, f"needs {wanted}: {INSTALL}")
        else:
            yield Check("packages", package, "ok", version)
    second = [f"{name} {version_of(name)}" for name in OTHER_OPENCV if version_of(name)]
    if second:
        advice = "two OpenCV wheels overwrite each other: pip uninstall every opencv-*, then " + INSTALL
        yield Check("packages", "a second OpenCV", "note", ", ".join(second), advice)


def _models() -> Iterator[Check]:
    spec = importlib.util.find_spec("mediapipe")
    folder = Path(spec.origin).parent.parent if spec and spec.origin else None
    for file in (DETECTOR, LANDMARKS):
        label = f"model {Path(file.path).name}"
        if folder is None or not (folder / file.path).is_file():
            yield Check("pose", label, "missing", "no such file", INSTALL)
        elif hashlib.sha256((folder / file.path).read_bytes()).hexdigest() != file.sha256:
            wheel = "mediapipe==0.10.18" if platform.machine() == "aarch64" else "mediapipe==0.10.21"
            advice = f"the file is not the one that ships: pip install --force-reinstall --no-deps {wheel}"
            yield Check("pose", label, "missing", "wrong SHA-256", advice)
        else:
            yield Check("pose", label, "ok", f"SHA-256 {file.sha256[:12]}...")
    stray = Path("mediapipe", "modules")
    if folder is not None and stray.exists() and not stray.samefile(folder / stray):
        advice = "MediaPipe would read its models from here: start the line in another folder"
        yield Check("pose", "this folder", "missing", f"has {stray}", advice)


def _opencv(ask: Probe) -> Check:
    good, said = ask(_OPENCV, "")
    advice = "" if good else "cameras and videos need it; Debian, Ubuntu: apt-get install libgl1 libglib2.0-0"
    return Check("pose", "OpenCV loads", "ok" if good else "missing", said, advice)


def _pose(ask: Probe) -> Check:
    good, said = ask(_POSE, "")
    return Check("pose", "MediaPipe", "ok" if good else "missing", said, "" if good else INSTALL)


def _bundle(ask: Probe, folder: Path) -> list[Check]:
    try:
        bundle = load_bundle(folder)
    except BundleError as error:
        return [Check("model", "bundle", "missing", str(error), "take the bundle from the repository again")]
    found = f"{bundle.name}, {len(bundle.actions)} actions, {bundle.window} rows at {bundle.fps:g} fps, files whole"
    good, said = ask(_ENGINE, str(folder))
    advice = "" if good else f"the model does not give its reference results here: {INSTALL}"
    proof = f"gives its reference results on {said}" if good else said
    return [
        Check("model", "bundle", "ok", found),
        Check("model", "engine", "ok" if good else "missing", proof, advice),
    ]


def _providers(ask: Probe) -> Check:
    good, said = ask(_PROVIDERS, "")
    advice = "" if good else f"onnxruntime does not load: {INSTALL}"
    return Check("model", "ONNX Runtime providers", "ok" if good else "missing", said, advice)


def _cameras() -> Iterator[Check]:
    """One row for each video device; a device that gives no pictures (metadata) is listed like any other."""
    devices = sorted(glob.glob("/dev/video*"), key=lambda path: (len(path), path))
    if not devices:
        advice = "plug one in, or use --source FILE, --source rtsp://... or --source synthetic"
        yield Check("camera", "cameras", "note", "no /dev/video*", advice)
    for device in devices:
        label = Path("/sys/class/video4linux", Path(device).name, "name")
        name = label.read_text(errors="replace").strip() if label.exists() else "unnamed"
        allowed = os.access(device, os.R_OK | os.W_OK)
        advice = "" if allowed else "no permission: sudo usermod -aG video $USER, then log in again"
        yield Check("camera", device, "ok" if allowed else "note", name, advice)


def _display() -> Check:
    try:
        from realtime.show import no_display
    except ImportError as error:
        return Check("output", "display", "note", f"unknown: {error}", "see the row about OpenCV")
    why = no_display()
    advice = "the line runs headless; --show needs a display" if why else ""
    return Check("output", "display", "note" if why else "ok", why or os.environ.get("DISPLAY", "yes"), advice)


def can_run(checks: list[Check]) -> bool:
    """Whether nothing that the line needs is missing."""
    return all(check.state != "missing" for check in checks)
