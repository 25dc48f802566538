"""The sidecar of a TensorRT engine: what it was built from, for and on; and where engines lie.

    <cache>/<key>/model.fp16.sm87.trt10.3.0.engine         the plan, as TensorRT wrote it
    <cache>/<key>/model.fp16.sm87.trt10.3.0.engine.json    its sidecar, schema "engine/1", written last
An engine is code that runs on the GPU: only one in the user's own cache, which nobody else may write to, is loaded
without being told to trust it. Each refusal is a BundleError of one line that ends in the command that mends it.
NumPy and the standard library only; none of this needs TensorRT or a GPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from realtime.bundle import Bundle
from realtime.cache import all_cached, foreign, in_cache, read_plain, write_pair
from realtime.errors import BundleError
from realtime.fields import short
from realtime.graphs import FP32_FILE

SCHEMA = "engine/1"
BACKENDS = {"tensorrt": "trt", "tensorrt_rtx": "rtx"}  # kind of engine, which is the library's name: --backend
NAMES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_MAJORS = {"tensorrt": range(8, 31), "tensorrt_rtx": range(1, 8)}  # what can be a version in a plan's bytes
_MOST_JSON = 1_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Profile:
    """Fewest, usual and most people in one call."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True, slots=True)
class Source:
    """What the engine was built from.

    onnx_sha256: of the bundle's graph of this precision, or of its fp32 graph where the bundle has none and the graph
    was converted for this build; then `gate` is what export.parity found of it, otherwise None.
    """

    onnx_sha256: str
    bundle: str  # its name
    exporter: str  # version of this project
    gate: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """How and where it was built.

    compute_capability: "8.7"; for TensorRT-RTX also several, "8.6+8.9", or that and later, "8.0+". gpu: None where it
    was built without one.
    """

    precision: str
    tensorrt: str
    gpu: str | None
    compute_capability: str
    os: str
    machine: str
    profile: Profile
    created: str  # UTC, ISO 8601


@dataclass(frozen=True, slots=True)
class Verified:
    """How the engine compared with reference.npz on the GPU it was built on."""

    max_logits: float
    top1_agree: float
    windows: int


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Everything that is known of an engine. verified: None where it was built without a GPU."""

    kind: str
    plan_sha256: str
    plan_bytes: int
    contract: dict[str, Any]
    source: Source
    build: Build
    verified: Verified | None
    schema: str = SCHEMA

    def to_json(self) -> str:
        """The sidecar's text."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Sidecar:
        """Raises ValueError naming the key."""
        document = json.loads(text, parse_constant=_no_constant)
        if isinstance(document, dict) and document.get("schema") != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA!r}, got {short(document.get('schema'))}")
        sidecar: Sidecar = _parse(cls, document, "")
        if sidecar.kind not in BACKENDS:
            raise ValueError(f"kind must be one of {', '.join(BACKENDS)}, got {short(sidecar.kind)}")
        return sidecar


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


_PARTS: dict[str, Any] = {"Source": Source, "Build": Build, "Profile": Profile, "Verified": Verified}
_TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "dict[str, Any]": dict}


def _parse(kind: Any, values: Any, where: str) -> Any:
    """A dataclass of a JSON object that has exactly its fields. Raises ValueError."""
    known = {entry.name: str(entry.type) for entry in fields(kind)}
    if not isinstance(values, dict) or set(values) != set(known):
        raise ValueError(f"{where or 'it'} must be an object with the keys {', '.join(known)}, got {short(values)}")
    parsed: dict[str, Any] = {}
    for key, declared in known.items():
        wanted, value, place = declared.removesuffix(" | None"), values[key], f"{where}{'.' if where else ''}{key}"
        if value is None and declared.endswith("None"):
            parsed[key] = None
        elif wanted in _PARTS:
            parsed[key] = _parse(_PARTS[wanted], value, place)
        elif not isinstance(value, _TYPES[wanted]) or isinstance(value, bool):
            raise ValueError(f"{place} must be {declared}, got {short(value)}")
        elif isinstance(value, str) and not (0 < len(value) <= 200 and value.isprintable()):
            raise ValueError(f"{place} must be a line of 1 to 200 characters, got {short(value)}")
        else:
            parsed[key] = value
    return kind(**parsed)


def contract_of(bundle: Bundle) -> dict[str, Any]:
    """What a program feeds to an engine of this bundle, and what it takes from it."""
    names = ("joints", "streams", "channels", "window", "fps", "normalisation", "classes", "nothing", "text")
    return contract_from({"layout": bundle.layout.name, **{name: getattr(bundle, name) for name in names}})


def contract_from(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The contract from the keys of bundle.json, for a bundle that is not written yet."""
    shape = ["N", spec["channels"], spec["window"], len(spec["joints"])]
    return {
        "layout": spec["layout"],
        "joints": list(spec["joints"]),
        "streams": list(spec["streams"]),
        "channels": spec["channels"],
        "window": spec["window"],
        "fps": float(spec["fps"]),
        "normalisation": spec["normalisation"],
        "classes": list(spec["classes"]),
        "nothing": spec["nothing"],
        "text": spec["text"],
        "input": {"name": "skeleton", "shape": shape, "dtype": "float32"},
        "outputs": [
            {"name": "logits", "shape": ["N", len(spec["classes"])], "dtype": "float32"},
            {"name": "embedding", "shape": ["N", "D"], "dtype": "float32"},
        ],
    }


def contract_id(contract: Mapping[str, Any]) -> str:
    """The name that the network carries inside the engine, such as "pcle1:0123456789abcdef"."""
    text = json.dumps(contract, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "pcle1:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def graph_sha256(bundle: Bundle, precision: str) -> str:
    """The hash that an engine of this precision must have been built from: see `Source.onnx_sha256`."""
    graph = bundle.graphs.get(precision)
    return bundle.files[graph.file if graph else FP32_FILE][0]


def rebuild_command(
    bundle: str | os.PathLike[str], kind: str, precision: str, out: Path | None = None, anew: bool = False
) -> str:
    """The command that builds an engine of a bundle: into the user's cache, or anew into `out`.

    anew: also where the cache has one that fits as far as its sidecar tells.
    """
    into = (f" -o {shlex.quote(str(out))}" if out else "") + (" --replace" if out or anew else "")
    place = shlex.quote(os.fspath(bundle))
    return f"python -m export.trt {place} --backend {BACKENDS[kind]} --precision {precision}{into}"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the running program feeds, and the library and the machine that it runs on."""

    bundle: Path
    kind: str
    precision: str
    contract: dict[str, Any]
    onnx_sha256: str
    version: str  # of the library
    capability: str
    gpu: str
    os: str = field(default_factory=lambda: platform.system().lower())
    machine: str = field(default_factory=platform.machine)

    @classmethod
    def of(cls, bundle: Bundle, kind: str, precision: str, version: str, capability: str, gpu: str) -> Expected:
        """For a bundle on this machine."""
        graph = graph_sha256(bundle, precision)
        return cls(bundle.path, kind, precision, contract_of(bundle), graph, version, capability, gpu)


class Read(NamedTuple):
    """An engine that may be deserialised, and what is odd about it, for people."""

    plan: bytes
    sidecar: Sidecar
    warnings: tuple[str, ...]


def plan_version(plan: bytes, kind: str) -> tuple[int, int, int, int] | None:
    """The library's version in a plan: major, minor, patch, build. None where the bytes cannot be one.

    They are bytes 24 to 27 of what TensorRT 10 and TensorRT-RTX write. NVIDIA promises no layout.
    """
    if len(plan) < 28 or plan[24] not in _MAJORS[kind]:
        return None
    return plan[24], plan[25], plan[26], plan[27]


def write_engine(folder: Path, name: str, plan: bytes, sidecar: Sidecar) -> Path:
    """Writes an engine and its sidecar, the sidecar last, and returns the engine's path. Raises UsageError."""
    if (hashlib.sha256(plan).hexdigest(), len(plan)) != (sidecar.plan_sha256, sidecar.plan_bytes):
        raise ValueError(f"the sidecar of {name} is that of another plan")
    return write_pair(folder, name, plan, sidecar.to_json())


def find_cached(expected: Expected) -> Path | None:
    """The newest engine of the user's cache that was made for this graph, library and machine, or None."""
    found = []
    for path in all_cached():
        try:
            sidecar = Sidecar.from_json(read_plain(path.with_name(path.name + ".json"), _MOST_JSON))
        except (OSError, ValueError, RecursionError):  # not one that can be used, and not one that was asked for
            continue
        build = sidecar.build
        fits = (sidecar.kind, build.precision, sidecar.source.onnx_sha256, build.os, build.machine) == (
            *(expected.kind, expected.precision, expected.onnx_sha256, expected.os, expected.machine),
        ) and same_version(build.tensorrt, expected.version)
        if fits and fits_capability(build.compute_capability, expected.capability):
            found.append((build.gpu == expected.gpu, build.created, path))
    return max(found)[2] if found else None


def read_sidecar(path: Path, mend: str) -> Sidecar:
    """An engine's sidecar, checked for form alone. mend: the command that makes the engine anew."""
    file = path.with_name(path.name + ".json")
    try:
        if not path.exists():
            raise BundleError(f"engine {path}: no such file; build it: {mend}")
        if not file.exists():
            raise BundleError(f"engine {path}: it has no sidecar {file.name}; build it again: {mend}")
        return Sidecar.from_json(read_plain(file, _MOST_JSON))
    except OSError as error:
        raise BundleError(f"engine {path}: its sidecar cannot be read ({error}); build it again: {mend}") from error
    except (ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise BundleError(f"engine {path}: its sidecar is not valid ({what}); build it again: {mend}") from error


def read_engine(path: Path, expected: Expected, trust: bool = False) -> Read:
    """Reads an engine that fits this program and this machine; what was hashed is what is returned.

    trust: take an engine that is not in the user's own cache, or that others may have written. It skips no other
    check. Raises BundleError.
    """
    own = rebuild_command(expected.bundle, expected.kind, expected.precision)
    mend = own
    if not in_cache(path):
        mend = rebuild_command(expected.bundle, expected.kind, expected.precision, path.parent)
    sidecar = read_sidecar(path, mend)
    real = path.resolve()  # what is looked at is what is read: a link could be changed in between
    problem = None if trust else foreign(real) or foreign(path.with_name(path.name + ".json"))
    if problem:
        raise BundleError(
            f"engine {path}: {problem}, and an engine is code; give --trust where you know who built it, or build "
            f"your own: {own}"
        )

    def refuse(what: str) -> NoReturn:
        raise BundleError(f"engine {path}: {what}; build it here: {mend}")

    for key, found, wanted in (
        ("backend", BACKENDS[sidecar.kind], BACKENDS[expected.kind]),
        ("precision", sidecar.build.precision, expected.precision),
    ):
        if found != wanted:
            refuse(f"it is of {key} {found}, not {wanted}")
    try:
        if (size := real.stat().st_size) != sidecar.plan_bytes:
            refuse(f"it has {size} bytes where its sidecar says {sidecar.plan_bytes}")
        plan = read_plain(real, sidecar.plan_bytes)
    except (OSError, ValueError) as error:
        refuse(f"it cannot be read ({error})")
    if (digest := hashlib.sha256(plan).hexdigest()) != sidecar.plan_sha256:
        said = sidecar.plan_sha256[:12]
        refuse(f"it has sha256 {digest[:12]}... and its sidecar says {said}...: one of the two was replaced")
    warnings: list[str] = []
    differing = (
        _other_version(plan, sidecar, expected, warnings)
        or _other_machine(sidecar.build, expected, warnings)
        or _other_contract(sidecar, expected)
    )
    if differing:
        refuse(differing)
    return Read(plan, sidecar, tuple(warnings))


def _other_version(plan: bytes, sidecar: Sidecar, expected: Expected, warnings: list[str]) -> str | None:
    name = NAMES[sidecar.kind]
    if not same_version(sidecar.build.tensorrt, expected.version):
        return f"it was built with {name} {sidecar.build.tensorrt}, this machine has {expected.version}"
    inside = plan_version(plan, sidecar.kind)
    if inside is None:
        warnings.append(f"the {name} version inside the engine cannot be read, its sidecar says {expected.version}")
    elif not same_version(text := ".".join(map(str, inside)), expected.version):
        return f"it was built with {name} {text} whatever its sidecar says, this machine has {expected.version}"
    return None


def same_version(one: str, other: str) -> bool:
    """Whether two versions are the same as far as both say: a system's TensorRT may say 10.3.0 for 10.3.0.30."""
    first, second = ([int(part) for part in re.findall(r"\d+", text)[:4]] for text in (one, other))
    length = min(len(first), len(second))
    return length >= 3 and first[:length] == second[:length]


def fits_capability(built: str, here: str) -> bool:
    """Whether code for `built` ("8.7", "8.6+8.9", "8.0+" for that and later) runs on compute capability `here`."""
    try:
        later = built.endswith("+") and float(here) >= float(built[:-1].split("+")[-1])
    except ValueError:
        return False
    return later or here in built.split("+")


def _other_machine(build: Build, expected: Expected, warnings: list[str]) -> str | None:
    if not fits_capability(build.compute_capability, expected.capability):
        return (
            f"it was built for compute capability {build.compute_capability} ({build.gpu or 'no GPU'}), "
            f"this machine has {expected.capability} ({expected.gpu})"
        )
    if (build.os, build.machine) != (expected.os, expected.machine):
        return f"it was built on {build.os} {build.machine}, this is {expected.os} {expected.machine}"
    if build.gpu is not None and build.gpu != expected.gpu:
        warnings.append(
            f"the engine was built on {build.gpu} and runs on {expected.gpu}; it may be slower than its own"
        )
    return None


def _other_contract(sidecar: Sidecar, expected: Expected) -> str | None:
    """What differs between the engine's contract and the bundle's, by name; then whether the graph is another."""
    wanted = json.loads(json.dumps(expected.contract))  # tuples become lists
    for key in [*wanted, *(key for key in sidecar.contract if key not in wanted)]:
        found, needed = sidecar.contract.get(key), wanted.get(key)
        if found != needed and isinstance(found, list) and isinstance(needed, list) and len(found) == len(needed):
            place = next(i for i, pair in enumerate(zip(found, needed, strict=True)) if pair[0] != pair[1])
            return (
                f"its {key} are not this bundle's: entry {place} is {short(found[place])}, not {short(needed[place])}"
            )
        if found != needed:
            return f"its {key} is not this bundle's: {short(found)}, not {short(needed)}"
    if sidecar.source.onnx_sha256 != expected.onnx_sha256:
        return (
            f"it was built from the graph {sidecar.source.onnx_sha256[:12]}..., this bundle has "
            f"{expected.onnx_sha256[:12]}...: the bundle was exported again since"
        )
    return None
