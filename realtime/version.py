"""Which version runs here: the package, its commit where that is known, and the libraries that decide the results."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

PACKAGE = "pcle-live"
STANDS_ON = ("numpy", "onnxruntime", "mediapipe", "ai-edge-litert", "av", "pyzmq")


ROOT = Path(__file__).resolve().parent.parent


def versions(root: Path = ROOT) -> list[str]:
    """One line each; root: the checkout whose commit is told. Nothing is imported and no program is run."""
    commit = _commit(root / ".git")
    lines = [f"{PACKAGE} {_version(PACKAGE)}{f' ({commit[:12]})' if commit else ''}"]
    lines.append(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    return lines + [f"{name} {_version(name)}" for name in STANDS_ON]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit(git: Path) -> str | None:
    """The commit that is checked out, None where there is no repository."""
    try:
        if git.is_file():  # a worktree
            git = Path(git.read_text().partition(":")[2].strip())
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head[5:]
        common = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
        if (common / name).is_file():
            return (common / name).read_text().strip()
        packed = (common / "packed-refs").read_text().splitlines()
    except OSError:
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
