"""Engines of a bundle: built, proven on the reference where there is a GPU, and put away. Needs no torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from export.build import KINDS, MAX_BATCH, Target, build_plan, target_of
from export.gates import gated
from export.precision import for_tensorrt
from export.progress import Steps
from export.windows import gather
from realtime.bundle import Bundle, load_reference
from realtime.cache import cache_folder, engine_key, engine_name
from realtime.cuda import driver_problem
from realtime.errors import BundleError, GpuError, ParityError, UsageError
from realtime.scoring import verify
from realtime.sidecar import (
    NAMES,
    Build,
    Profile,
    Sidecar,
    Source,
    Verified,
    contract_id,
    contract_of,
    find_cached,
    graph_sha256,
    read_engine,
    write_engine,
)
from realtime.trt import TrtEngine, expected_here, library

EXPORTER = "pcle-live"


@dataclass(frozen=True)
class Wish:
    """What is asked of engines. out: where they go; None for the user's own cache."""

    backend: str  # trt or rtx
    out: Path | None = None
    max_batch: int = MAX_BATCH
    capabilities: tuple[str, ...] = ()
    allow_drop: bool = False
    replace: bool = False
    data: tuple[str, ...] = ()  # to gate on a graph that the bundle lacks
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """An engine that was written now, or found in the user's cache."""

    path: Path
    sidecar: Sidecar
    in_cache: bool


def choose_backend(asked: str) -> tuple[str | None, str]:
    """The backend that builds here for what was asked, and why; None where "auto" finds no GPU or no library."""
    problem = driver_problem()
    if asked == "trt" and problem:
        raise GpuError(
            f"--backend trt builds on the GPU that will run the engine, and {problem}; run this on the device, or take "
            "--backend rtx, which builds without one"
        )
    if asked != "auto":
        library(KINDS[asked], building=True)
        return asked, "as asked"
    if problem:
        return None, problem
    missing = []
    for backend, kind in KINDS.items():
        try:
            return backend, f"a GPU and {NAMES[kind]} {library(kind).__version__} are here"
        except GpuError as error:
            missing.append(str(error))
    return None, "; ".join(missing)


def there(bundle: Bundle, precision: str, wish: Wish, steps: Steps) -> Made | None:
    """The engine of the user's cache that would be built again; None where there is none that runs here.

    One for another number of people, or not for the very GPUs that are named, would be another.
    """
    if wish.out is not None or wish.replace or driver_problem():
        return None
    expected = expected_here(bundle, KINDS[wish.backend], precision)
    path = find_cached(expected)
    if path is None:
        return None
    try:
        found = read_engine(path, expected)
    except BundleError as error:
        steps.say(f"not taken: {error}")
        return None
    build = found.sidecar.build
    another = wish.capabilities and build.compute_capability != target_of(wish.backend, wish.capabilities).capability
    if found.sidecar.verified is None or build.profile.max != wish.max_batch or another:
        return None
    steps.say(f"{path} is there and fits; --replace builds it again")
    return Made(path, found.sidecar, True)


def graph_of(bundle: Bundle, precision: str, wish: Wish, steps: Steps) -> tuple[bytes, dict[str, Any] | None]:
    """The bundle's graph of this precision; where it has none, one made of its fp32 graph, with what the gate found.

    BundleError where the bundle's own graph failed its gate, ParityError where the one that is made does.
    """
    found = bundle.graphs.get(precision)
    if found is not None:
        if not found.usable:
            raise BundleError(f"bundle {bundle.path}: its {precision} graph {found.judged()}; take another --precision")
        return bundle.read(found.file), None
    steps.say(f"the bundle has no {precision} graph; one is made of its fp32 graph, for this engine alone")
    graphs = gated(
        bundle.read(bundle.graphs["fp32"].file), (precision,), lambda: gather(bundle, wish.data, wish.held_out),
        load_reference(bundle), wish.allow_drop, steps,
    )  # fmt: skip
    gate = graphs.gates[precision]
    steps.say(f"{precision}: fp32's answer in {gate.agreement:.2%} of {gate.windows} windows of {gate.source}")
    return graphs.data[precision], gate.to_json()


def build_engine(bundle: Bundle, precision: str, wish: Wish, steps: Steps) -> Made:
    """Builds one engine and writes it with its sidecar; with a GPU only once it has proven itself.

    Raises BundleError where the graph is refused, GpuError where the backend is not there, ParityError where the
    engine does not give the reference's answers, UsageError where it stands there already; nothing is left behind.
    """
    target = target_of(wish.backend, wish.capabilities)
    graph_hash = graph_sha256(bundle, precision)
    folder, name = place(graph_hash, precision, target, wish)
    graph, gate = graph_of(bundle, precision, wish, steps)
    contract = contract_of(bundle)
    plan = built(graph, contract_id(contract), precision, wish, steps)
    source = Source(graph_hash, bundle.name, exporter(), gate)
    sidecar = describe(plan, contract, precision, source, target, wish)
    if target.gpu is not None:
        with steps.step(f"{precision}: proving the engine on the reference"):
            sidecar = replace(sidecar, verified=proven(bundle, plan, sidecar))
    return Made(write_engine(folder, name, plan, sidecar), sidecar, wish.out is None)


def build_folders_engine(folder: Path, precision: str, wish: Wish, steps: Steps) -> Made:
    """An engine of a plain folder of graphs (see export.plain). Nothing feeds such a model, so it stays unverified.

    Raises BundleError where the folder is damaged, and as `build_engine`.
    """
    assert wish.out is not None
    try:
        content = json.loads((folder / "graphs.json").read_text(encoding="utf-8"))
        contract, listed, named = content["contract"], content["graphs"], content["name"]
        if precision not in listed:
            raise UsageError(
                f"{folder} has no {precision} graph; it has {', '.join(listed)}: choose one by --precision"
            )
        graph = (folder / listed[precision]["file"]).read_bytes()
        wanted = content["sha256"][listed[precision]["file"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BundleError(f"{folder} cannot be read ({error}); export it again with --replace") from error
    graph_hash = hashlib.sha256(graph).hexdigest()
    if graph_hash != wanted:
        raise BundleError(f"{folder}: {listed[precision]['file']} is not what was written; export it again")
    target = target_of(wish.backend, wish.capabilities)
    _, name = place(graph_hash, precision, target, wish)
    plan = built(graph, contract_id(contract), precision, wish, steps)
    sidecar = describe(plan, contract, precision, Source(graph_hash, named, exporter()), target, wish)
    return Made(write_engine(wish.out, name, plan, sidecar), sidecar, False)


def built(graph: bytes, name: str, precision: str, wish: Wish, steps: Steps) -> bytes:
    """The plan of a graph, its progress shown."""
    with steps.step(f"{precision}: building with {NAMES[KINDS[wish.backend]]}") as tell:
        return build_plan(
            for_tensorrt(graph), name, wish.backend, max_batch=wish.max_batch, capabilities=wish.capabilities, step=tell
        )


def exporter() -> str:
    """This project's version."""
    try:
        return importlib.metadata.version(EXPORTER)
    except importlib.metadata.PackageNotFoundError:  # run from its folder
        return "unpackaged"


def describe(
    plan: bytes, contract: dict[str, Any], precision: str, source: Source, target: Target, wish: Wish
) -> Sidecar:
    """The sidecar of a plan that nothing has run yet."""
    return Sidecar(
        kind=KINDS[wish.backend],
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        contract=contract,
        source=source,
        build=Build(
            precision=precision,
            tensorrt=target.version,
            gpu=target.gpu,
            compute_capability=target.capability,
            os=platform.system().lower(),
            machine=platform.machine(),
            profile=Profile(1, 1, wish.max_batch),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        ),
        verified=None,
    )


def place(graph_hash: str, precision: str, target: Target, wish: Wish) -> tuple[Path, str]:
    """Folder and name of an engine. UsageError where it stands there already and may not be replaced."""
    kind = KINDS[wish.backend]
    name = engine_name(precision, kind, target.capability, target.version)
    if wish.out is None:
        profile = (1, 1, wish.max_batch)
        key = engine_key(graph_hash, kind, target.version, target.gpu, target.capability, precision, profile)
        return cache_folder() / key, name
    if (wish.out / name).exists() and not wish.replace:
        raise UsageError(f"{wish.out / name} exists; add --replace, or choose another --out")
    return wish.out, name


def proven(bundle: Bundle, plan: bytes, sidecar: Sidecar) -> Verified:
    """Runs the engine on the bundle's reference, from a folder that is gone afterwards. ParityError where it fails."""
    with tempfile.TemporaryDirectory(prefix="pcle-live-") as scratch:  # of this user alone
        path = write_engine(Path(scratch), "engine", plan, sidecar)
        engine = TrtEngine(bundle, path, sidecar.kind, sidecar.build.precision, trust=True)  # it was built just now
        try:
            verify(engine, bundle)
            reference = load_reference(bundle)
            logits, _ = engine.infer(reference.skeleton)
        except BundleError as error:
            raise ParityError(f"the engine fails its proof and was not kept: {error}") from error
        finally:
            engine.close()
    same = logits.argmax(axis=1) == reference.logits.argmax(axis=1)
    return Verified(float(np.abs(logits - reference.logits).max()), float(same.mean()), len(logits))


def rows_of(made: Sequence[Made]) -> list[tuple[str, ...]]:
    """For people: engine, MB, compute capability, people at once, proof."""
    rows: list[tuple[str, ...]] = []
    for engine in made:
        build, proof = engine.sidecar.build, engine.sidecar.verified
        said = "unverified"
        if proof is not None:
            said = f"proven: worst logit {proof.max_logits:.3g}, {proof.top1_agree:.1%} agree"
        size, most = f"{engine.sidecar.plan_bytes / 1e6:.1f}", f"1-{build.profile.max}"
        rows.append((engine.path.name, size, build.compute_capability, most, said))
    return rows
