"""From a trained run, or from a bundle, to engines that are proven: python -m export.trt --help."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from export.build import MAX_BATCH, MOST_BATCH
from export.engines import Made, Wish, build_engine, build_folders_engine, choose_backend, rows_of, there
from export.gates import source_line, table
from export.progress import Steps
from realtime.bundle import Bundle, load_bundle
from realtime.command import run_command
from realtime.errors import BundleError, GpuError, ParityError, UsageError
from realtime.sidecar import BACKENDS, rebuild_command

Precision = Literal["fp32", "fp16", "int8"]
GRAPHS: tuple[Precision, ...] = ("fp32", "fp16", "int8")  # of a bundle made here, where --precision does not say
ENGINE: Precision = "fp16"  # where --precision does not say
HEAD: Literal["skeleton"] = "skeleton"  # where --head does not say
UNREAD = ("head", "data", "held_out")  # where the graphs are there already
EXAMPLES = """examples:
  python -m export.trt runs/mine                          a bundle with fp32, fp16 and int8; with a GPU, an engine
  python -m export.trt runs/mine -o bundles/mine --data utkinect:DIR --held-out utkinect:6
  python -m export.trt bundles/mine                       on the device: the engine, proven there; no torch needed
  python -m export.trt bundles/mine --backend rtx --precision fp16 -o engines       on a machine with no GPU: unverified
  python -m export.trt runs/mine --onnx-only              the bundle alone

A bundle is proven to answer as the trained network does; its fp16 and int8 graphs must answer as fp32 does on at least
1000 windows (99.9 % and 99 % of them). A graph that --precision names and that does not is refused, exit code 7, and
nothing is written; where nothing is named such a graph is left out.

exit codes: 0 done, 2 flags, 3 checkpoint, bundle or graph refused, 6 GPU or TensorRT demanded but not there,
            7 a proof or a gate failed, 130 interrupted; nothing half-written is left behind
"""


@dataclass(frozen=True)
class Config:
    """Export a trained run to a bundle with proven graphs, and build engines of a bundle.

    A run folder or checkpoint of train.fit becomes a bundle, then an engine where this machine can build one. A bundle
    becomes an engine: in your own cache, where realtime.run finds it, or in --out.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Run folder or .safetensors of train.fit, or a bundle's folder."""
    backend: Literal["auto", "trt", "rtx"] = "auto"
    """What builds the engine: TensorRT, TensorRT-RTX (needs no GPU to build), or whichever is here with a GPU. Without
    one auto builds none and says what to run on the device."""
    precision: tuple[Precision, ...] = ()
    """Graphs of a new bundle, each of which must pass its gate; where not given, all three but those that fail. Also
    the engines; where not given, fp16."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """From a run: the bundle's folder, bundles/NAME where not given. From a bundle: where engines go, instead of your
    own cache."""
    onnx_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Build no engine."""
    data: tuple[str, ...] = ()
    """Real sets as NAME:DIR to calibrate int8 on and to compare on; generated people where not given."""
    held_out: tuple[str, ...] = ()
    """Subjects to compare on, as NAME:S1,S2; int8 is calibrated on the others. Those of the run where not given."""
    head: Literal["skeleton", "text", "both", "fused"] | None = None
    """What answers, of a run: the classifier, which is what is taken where not given, the nearness to the classes'
    texts, their mean, or their interaction."""
    max_batch: int = MAX_BATCH
    """Most people in one call of the engine; more go in several calls."""
    compute_capability: tuple[str, ...] = ()
    """What TensorRT-RTX builds for, such as 8.6 8.9; where not given its own choice: 8.0, 8.6, 8.9, 12.0 and later."""
    allow_drop: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take graphs that failed their gate all the same; bundle or sidecar record it."""
    replace: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace what is there."""


def run(config: Config, console: Console) -> int:
    """Exports what the source is."""
    kind = kind_of(config.source)
    if not 1 <= config.max_batch <= MOST_BATCH:
        raise UsageError(f"--max-batch must be in [1, {MOST_BATCH}], got {config.max_batch}")
    backend, why = None, "--onnx-only"
    if not config.onnx_only:
        backend, why = choose_backend(config.backend)  # before any long work: what was demanded must be there
    if kind == "run":
        return _from_run(config, backend, why, console)
    if config.onnx_only:
        raise UsageError(f"{config.source} has its graphs already; leave --onnx-only out to build an engine of them")
    if kind == "graphs":
        check_read(config, (*UNREAD, "allow_drop"))
        return _from_graphs(config, backend, why, console)
    bundle = load_bundle(config.source)
    check_read(config, UNREAD if bundle.graphs.keys() >= {*wanted(config)} else ("head",))
    made = engines(bundle, config, backend, config.out, console)
    finish(bundle.path, made, why if backend is None else None, console)
    return 0


def check_read(config: Config, unread: Sequence[str]) -> None:
    """UsageError for a flag that was given and that nothing here would heed."""
    for name in unread:
        if getattr(config, name):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is about making graphs, and {config.source} has its own; leave --{flag} out")


def kind_of(source: Path) -> str:
    """What a path is: "bundle", "graphs" (a plain folder, see export.plain) or "run". BundleError for all else."""
    for kind, file in (("bundle", "bundle.json"), ("graphs", "graphs.json")):
        if (source / file).is_file():
            return kind
    if source.suffix == ".safetensors" or (source / "last.safetensors").is_file():
        return "run"
    what = "no such file or folder" if not source.exists() else "neither a bundle nor a run of train.fit"
    raise BundleError(f"{source}: {what}; give a folder with last.safetensors or bundle.json")


def wish_of(config: Config, backend: str, out: Path | None) -> Wish:
    """What is asked of engines."""
    return Wish(
        backend, out, config.max_batch, config.compute_capability, config.allow_drop, config.replace, config.data,
        config.held_out,
    )  # fmt: skip


def engines(bundle: Bundle, config: Config, backend: str | None, out: Path | None, console: Console) -> list[Made]:
    """An engine of each precision asked for; none where nothing builds here."""
    if backend is None:
        return []
    wish, steps = wish_of(config, backend, out), Steps(console)
    return [
        there(bundle, precision, wish, steps) or build_engine(bundle, precision, wish, steps)
        for precision in wanted(config)
    ]


def wanted(config: Config) -> tuple[Precision, ...]:
    """The precisions of engines, each once."""
    return tuple(dict.fromkeys(config.precision)) or (ENGINE,)


def show_engines(made: Sequence[Made], console: Console) -> None:
    """The final table of engines."""
    if made:
        shown = Table(box=None, pad_edge=False)
        for heading in ("engine", "MB", "for SM", "people", "proof"):
            shown.add_column(heading, overflow="fold")
        for row in rows_of(made):
            shown.add_row(*row)
        console.print(shown)
        console.print(f"in {made[0].path.parent}", markup=False, soft_wrap=True)


def finish(place: Path, made: Sequence[Made], none_because: str | None, console: Console) -> None:
    """The final table of engines, and what to do next."""
    show_engines(made, console)
    if any(engine.sidecar.verified is None for engine in made):
        first = made[0].sidecar
        console.print(
            "unverified: there is no GPU here that could run it; on the device, build and prove one with: "
            f"{rebuild_command(place, first.kind, first.build.precision)}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    elif made:
        flags = f"--bundle {shlex.quote(str(place))} --backend {BACKENDS[made[0].sidecar.kind]}"
        if not made[0].in_cache:
            flags += f" --engine {shlex.quote(str(made[0].path))} --trust"
        console.print(
            f"next: python -m realtime.run {flags}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    elif none_because is not None:
        console.print(
            f"no engine was built: {none_because}; on the device: python -m export.trt {shlex.quote(str(place))}",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def name_of(run: Path) -> str:
    """A run's own name: its folder's, or the checkpoint's where it is not the folder's last."""
    if run.suffix == ".safetensors":
        return run.resolve().parent.name if run.name == "last.safetensors" else run.stem
    return run.resolve().name


def _from_run(config: Config, backend: str | None, why: str, console: Console) -> int:
    """Needs torch; a device does not come here."""
    from export import bundle as bundles
    from export.plain import is_live

    name = name_of(config.source)
    out = config.out or Path("bundles") / name
    if not is_live(config.source):
        return _published(config, out, backend, why, console)
    asked = bundles.Config(
        runs=(config.source,), out=out, name=name, head=config.head or HEAD, precision=config.precision or GRAPHS,
        data=config.data, held_out=config.held_out, allow_drop=config.allow_drop, replace=config.replace,
    )  # fmt: skip
    bundle = load_bundle(bundles.make_bundle(asked, console, optional=not config.precision))
    bundles.say_bundle(bundle, (config.source,), console)
    if not config.precision and ENGINE not in bundle.graphs:
        backend, why = None, f"its {ENGINE} graph failed its gate; name another by --precision"
    made, none_because = _tried(bundle, config, backend, why, console)
    finish(out, made, none_because, console)
    return 0


def _tried(
    bundle: Bundle, config: Config, backend: str | None, why: str, console: Console
) -> tuple[list[Made], str | None]:
    """The engines of a new bundle, and why there are none. The bundle stands: only a demanded backend fails now."""
    try:
        return engines(bundle, config, backend, None, console), why if backend is None else None
    except (BundleError, GpuError, ParityError, UsageError) as error:
        if config.backend != "auto":
            raise
        return [], str(error)


def _published(config: Config, out: Path, backend: str | None, why: str, console: Console) -> int:
    """A run of a published protocol: graphs and engines in a folder of their own."""
    from export import plain

    if config.held_out:
        raise UsageError("a published protocol names its test clips itself; leave --held-out out")
    steps = Steps(console)
    precisions = config.precision or GRAPHS
    order = plain.Order(
        run=config.source, out=out, head=config.head or HEAD, graphs=precisions,
        engines=() if backend is None else wanted(config), engines_demanded=config.backend != "auto",
        wish=None if backend is None else wish_of(config, backend, out),
        data=config.data, allow_drop=config.allow_drop, overwrite=config.replace, optional=not config.precision,
    )  # fmt: skip
    graphs, made, not_built = plain.export(order, steps)
    entries = graphs.entries()
    console.print(table(entries, {precision: len(graph) for precision, graph in graphs.data.items()}))
    line = source_line(entries)
    if line:
        steps.say(line)
    steps.say(
        f"{out}: graphs alone, no bundle, since the run was trained by a published protocol and the runtime makes "
        f'other windows; what to feed stands under "contract" in {out / "graphs.json"}'
    )
    finish_graphs(out, made, "; ".join(not_built) or why, console)
    return 0


def _from_graphs(config: Config, backend: str | None, why: str, console: Console) -> int:
    """A plain folder of graphs, on the device: engines beside them, or in --out."""
    out, made = config.out or config.source, []
    if backend is not None:
        wish, steps = wish_of(config, backend, out), Steps(console)
        made = [build_folders_engine(config.source, p, wish, steps) for p in wanted(config)]
    finish_graphs(config.source, made, why, console)
    return 0


def finish_graphs(place: Path, made: Sequence[Made], why: str, console: Console) -> None:
    """The final table of a plain folder's engines, and what to do next."""
    show_engines(made, console)
    line = f"no engine was built: {why}; on the device: python -m export.trt {place}"
    if made:
        line = "unverified: nothing here feeds such a model; compare the engine with reference.npz in your own program"
    console.print(line, markup=False, soft_wrap=True)


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "export.trt", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
