"""The order of imports, the doors and the size of files, read from the source by `ast`; nothing is imported.

Each rule is also seen to fail: a copy of the tree gets one planted fault.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("realtime", "train", "calib", "export", "scripts", "tests")  # each imports only itself and what is left of it
LINES_AT_MOST = 400

# What these reach through others is looked at as well, so helpers of the core need no line here.
CORE = {
    f"realtime.{name}"
    for name in (
        *("schema", "skeleton", "errors", "features", "window", "decoder", "bundle", "graphs", "smooth"),
        *("pipeline", "scoring", "people", "assignment"),
        *("generator", "generator.perform", "generator.crowd", "generator.sightings"),
    )
}

# The files of realtime/ that may import each library, and nothing but these libraries. A file that is itself a
# command line (it has `if __name__ == "__main__"`) may also import those of COMMAND_LINE.
DOORS = {
    "cv2": {"camera", "image", "show"},
    "av": {"camera"},
    "depthai": {"depth_oak"},
    "mediapipe": {"pose"},
    "onnxruntime": {"engine"},
    "pyorbbecsdk": {"depth_orbbec"},
    "pyrealsense2": {"depth_realsense"},
    "tensorrt": {"trt"},
    "tensorrt_rtx": {"trt"},
    "zmq": {"client", "outlet_child", "zap", "keys", "control"},
    "ai_edge_litert": {"litert"},
    "msgspec": {"messages", "control_messages"},
    "mcap": {"recording"},
    "rich": {"command", "logs", "show", "terminal"},
    "tomli": {"configfile"},
    "tyro": {"command", "settings", "config"},
}
COMMAND_LINE = {"tyro", "rich"}

# The file on the workshop's side that may import each of these, one a purpose; tests may do so too.
WORKSHOP_DOORS: dict[str, str | tuple[str, ...]] = {
    "cv2": ("calib.vision", "train.knowledge.frames", "scripts.id_switches", "scripts.mjpeg_server"),
    "open_clip": "train.text_clip",
    "cv2": ("calib.vision", "train.knowledge.frames", "scripts.id_switches", "scripts.mjpeg_server"),
    "polygraphy": "export.build",
    "tensorrt": "export.build",
    "tensorrt_rtx": "export.build",
    "tokenizers": "train.text_minilm",
    "transformers": ("train.prompts.local", "train.knowledge.models"),  # texts, pictures
}


@dataclass(frozen=True)
class Import:
    """One import: its line, the module named, the names taken from it, whether it runs (not only for type checks)."""

    line: int
    module: str
    names: tuple[str, ...]
    runs: bool


@dataclass(frozen=True)
class Module:
    """One source file by its dotted name."""

    name: str
    path: Path
    imports: tuple[Import, ...]
    lines: int
    is_command: bool


def read_tree(root: Path) -> dict[str, Module]:
    """Every module of the project under root, by dotted name."""
    modules = {}
    for top in ORDER:
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source, str(path))
            is_command = any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)
            package = ".".join(parts[:-1])
            modules[name] = Module(name, path, tuple(_imports(tree, package)), source.count("\n"), is_command)
    return modules


def _imports(node: ast.AST, package: str, runs: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(child.lineno, alias.name, (), runs)
        elif isinstance(child, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
            module = ".".join([*above, *([child.module] if child.module else [])])
            yield Import(child.lineno, module, tuple(alias.name for alias in child.names), runs)
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _imports(ast.Module(child.body, []), package, False)
            yield from _imports(ast.Module(child.orelse, []), package, runs)
        elif isinstance(child, ast.Call) and ast.unparse(child.func) in ("importlib.import_module", "__import__"):
            if child.args and isinstance(child.args[0], ast.Constant):
                yield Import(child.lineno, str(child.args[0].value), (), runs)
            yield from _imports(child, package, runs)
        else:
            yield from _imports(child, package, runs)


def violations(root: Path) -> list[str]:
    """One line for each broken rule: where, what, and the rule."""
    modules = read_tree(root)
    found = [
        f"{module.path.relative_to(root)}: {module.lines} lines; a file has at most {LINES_AT_MOST}"
        for module in modules.values()
        if module.lines > LINES_AT_MOST
    ]
    for module in modules.values():
        for item in module.imports:
            where = f"{module.path.relative_to(root)}:{item.line}"
            found += [f"{where}: {text}" for text in (_order(module, item), _door(module, item)) if text]
    found += [f"{name}: {text}" for name in sorted(CORE & set(modules)) for text in _beyond_numpy(name, modules)]
    return found + _cycles(modules)


def _order(module: Module, item: Import) -> str:
    here, there = module.name.split(".")[0], item.module.split(".")[0]
    if there not in ORDER or ORDER.index(there) <= ORDER.index(here):
        return ""
    return f"{here} imports {item.module}; the order is {' < '.join(ORDER)}"


def _door(module: Module, item: Import) -> str:
    here, library = module.name.split(".")[0], item.module.split(".")[0]
    if here != "realtime":
        return _workshop_door(module, here, library)
    if library in ORDER or library == "numpy" or library in sys.stdlib_module_names:
        return ""
    if library not in DOORS:
        return f"realtime imports {library}; a device has numpy, {', '.join(sorted(DOORS))} and no other"
    if module.name.removeprefix("realtime.") in DOORS[library] or (module.is_command and library in COMMAND_LINE):
        return ""
    files = [f"realtime/{name}.py" for name in sorted(DOORS[library])]
    files += ["the command lines"] if library in COMMAND_LINE else []
    return f"imports {library}; its door is {', '.join(files)}"


def _workshop_door(module: Module, here: str, library: str) -> str:
    if here == "tests":
        return ""
    door = WORKSHOP_DOORS.get(library, module.name)
    doors = (door,) if isinstance(door, str) else door
    files = " or ".join(f"{name.replace('.', '/')}.py" for name in doors)
    return "" if module.name in doors else f"imports {library}; its door is {files}"


def _targets(item: Import, modules: dict[str, Module]) -> Iterator[str]:
    """The project's modules that an import runs, packages that lead there left out."""
    inner = [f"{item.module}.{name}" for name in item.names if f"{item.module}.{name}" in modules]
    yield from inner
    if item.module in modules and (not inner or len(inner) < len(item.names)):
        yield item.module


def _beyond_numpy(start: str, modules: dict[str, Module]) -> list[str]:
    """What a core module reaches, itself or through others, that is neither NumPy nor the standard library."""
    seen, queue, found = {start}, [start], []
    while queue:
        name = queue.pop()
        for item in modules[name].imports:
            library = item.module.split(".")[0]
            if not item.runs:
                continue
            if library not in ORDER and library != "numpy" and library not in sys.stdlib_module_names:
                found.append(f"the core reaches {library} through {name}; it has NumPy and the standard library only")
            for target in _targets(item, modules):
                if target not in seen:
                    seen.add(target)
                    queue.append(target)
    return found


def _cycles(modules: dict[str, Module]) -> list[str]:
    """Each module that imports itself through others; imports for type checks alone do not count."""
    reach = {
        name: {target for item in module.imports if item.runs for target in _targets(item, modules)} - {name}
        for name, module in modules.items()
    }
    found, done = [], set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            found.append(f"cycle of imports: {' -> '.join((*trail[trail.index(name) :], name))}")
        elif name not in done:
            for target in sorted(reach[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(modules):
        visit(name, ())
    return found


def test_the_tree_keeps_its_rules():
    broken = violations(ROOT)
    assert not broken, "\n" + "\n".join(broken)


def test_the_core_is_there():
    assert set(read_tree(ROOT)) >= CORE


@pytest.fixture(scope="module")
def before() -> set[str]:
    return set(violations(ROOT))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for top in ORDER:
        shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__", "assets", "runs"))
    return tmp_path


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("realtime/clock.py", "import train.data", "the order is"),
        ("realtime/engine.py", "def late():\n    from export import onnx_graph", "the order is"),
        ("train/fit.py", "from calib import floor", "the order is"),
        ("train/fit.py", "from scripts import demo", "the order is"),
        ("realtime/window.py", "import cv2", "its door is realtime/camera.py"),
        ("realtime/pipeline.py", "def late():\n    import zmq", "its door is realtime/client.py"),
        ("realtime/track.py", "import importlib\nimportlib.import_module('mediapipe')", "its door is realtime/pose.py"),
        ("realtime/engine.py", "import torch", "realtime imports torch"),
        ("realtime/trt.py", "import polygraphy", "realtime imports polygraphy"),
        ("realtime/trt.py", "def late():\n    import onnx", "realtime imports onnx"),
        ("realtime/backends.py", "import tensorrt", "its door is realtime/trt.py"),
        ("realtime/backends.py", "import onnxruntime", "its door is realtime/engine.py"),
        ("export/trt.py", "from polygraphy.backend import trt", "its door is export/build.py"),
        ("realtime/camera.py", "import tyro", "its door is realtime/command.py"),
        ("train/fit.py", "import open_clip", "its door is train/text_clip.py"),
        ("export/parity.py", "def late():\n    from tokenizers import Tokenizer", "its door is train/text_minilm.py"),
        ("train/text.py", "from transformers import AutoModel", "its door is train/prompts/local.py"),
        ("realtime/features.py", "from realtime import messages", "the core reaches msgspec"),
        ("realtime/schema.py", "from realtime import window", "cycle of imports"),
        ("realtime/skeleton.py", "from .schema import Pose", "cycle of imports"),
        ("realtime/errors.py", "\n" * LINES_AT_MOST, "a file has at most"),
    ],
)
def test_a_planted_fault_is_found(copy: Path, before: set[str], path: str, line: str, complaint: str):
    with (copy / path).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    new = set(violations(copy)) - before
    assert any(complaint in text for text in new), sorted(new)


def test_an_import_for_type_checks_alone_makes_no_cycle(copy: Path, before: set[str]):
    with (copy / "realtime/schema.py").open("a", encoding="utf-8") as file:
        file.write(
            "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from realtime.window import WindowBuffer\n"
        )
    assert set(violations(copy)) == before
