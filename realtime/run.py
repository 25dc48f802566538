"""The line as a program: python -m realtime.run --camera 0

Puts the parts together; the loop itself is realtime/line.py.
"""

from __future__ import annotations

import sys

from realtime.stop import Stop, leave_while_loading

if __name__ == "__main__":  # while the rest loads nothing is open yet, so a signal simply ends the program
    leave_while_loading()

    from realtime.secrets import hide_arguments

    hide_arguments()  # before the seconds in which libraries load

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from realtime.backends import open_engine
from realtime.bundle import Bundle
from realtime.bundles import load_bundles, load_first
from realtime.calibration import load_calibration
from realtime.command import run_command
from realtime.commands import Commands
from realtime.config import read_command_line
from realtime.decoder import ActionRule, Decoder
from realtime.errors import LineError
from realtime.interactions import Interactions
from realtime.line import Line
from realtime.logs import set_up
from realtime.notify import Notifier, follow_fleet
from realtime.outlet import Outlet, OutletSpec
from realtime.pairs import PairWindows
from realtime.pipeline import FindsPoses, Pipeline, ScoresWindows
from realtime.precheck import precheck
from realtime.report import Outputs, Reporter
from realtime.scoring import Engine
from realtime.secrets import Scrub, source_of
from realtime.settings import Config, OutputFlags, check
from realtime.source import Source, open_source
from realtime.stage import marks_of, open_stage
from realtime.steering import Steering
from realtime.terminal import Terminal
from realtime.thresholds import Thresholds, site_engine
from realtime.window import WindowBuffer

EXAMPLES = """examples:
  python -m realtime.run --camera 0                                a camera, events on tcp://127.0.0.1:5556
  python -m realtime.run --source video.mp4 --fast --events out.jsonl
                                                                   every frame of a file, events also as JSON lines
  python -m realtime.run --source rtsp://HOST/stream --headless    a network camera on a machine with no screen
  python -m realtime.run --camera 0 --record today.mcap            keep the skeletons (never the pictures)
  python -m realtime.run --source today.mcap --fast --pub none --events again.jsonl
                                                                   decide again on kept skeletons
  python -m realtime.run --source depth:realsense                  a depth camera: joints in metres, where they are
  python -m realtime.run --source synthetic --duration 30          a generated person; needs no camera
  python -m export.trt BUNDLE --backend trt --precision fp16       build a TensorRT engine on this machine, once; then
  python -m realtime.run --camera 0 --bundle BUNDLE --backend trt  run it, or end with exit code 6 or 3
  python -m realtime.run --camera 0 --backend ort --precision fp32 the CPU, the trained model's own numbers
  python -m realtime.tail                                          in another terminal: print the events

a GPU that fails while the line runs: ONNX Runtime on the CPU goes on with the same windows; a line here and a status
  message say so

a camera or stream that is lost: the line goes on, and opens it again for ever; a line here and a status say so

exit codes: 0 ok or end of file, 1 internal error, 2 usage, 3 bundle or engine refused, 4 source cannot be opened,
  5 address in use, 6 GPU or TensorRT demanded but not there, 130 interrupted (Ctrl-C);
  SIGTERM and SIGHUP close open events and give 0
"""


def make_decoder(bundle: Bundle, new_id: Callable[[], str] | None = None) -> Decoder:
    """The decoder that a bundle's thresholds describe. new_id: makes an id per occurrence; ULIDs where not given."""
    rules = [ActionRule(a.id, a.on, a.off, a.min_on_s, a.min_off_s) for a in bundle.actions]
    return Decoder(
        bundle.classes,
        bundle.nothing,
        rules,
        bundle.smoothing_s,
        onset_shift_s=bundle.onset_shift_s,
        offset_shift_s=bundle.offset_shift_s,
        new_id=new_id,
    )


def make_pipeline(
    pose: FindsPoses,
    bundle: Bundle,
    engine: ScoresWindows,
    persons: int,
    together: tuple[Bundle, Engine] | None = None,
    thresholds: Thresholds | None = None,
) -> Pipeline:
    """The stages of a line, joined. together: the bundle of what two people do together, and its engine.

    thresholds: the site's, of which only the rejection matters here; the rest is in the bundle.
    """
    windows = WindowBuffer(bundle.layout, bundle.window, bundle.fps, bundle.stride, max_tracks=persons)
    pairs = None
    if together is not None:
        pairs = Interactions(together[0], PairWindows(windows), together[1], make_decoder(together[0]))
    return Pipeline(pose, windows, site_engine(engine, bundle, thresholds), make_decoder(bundle), pairs)


def or_closed(engine: Engine, build: Callable[[], Pipeline]) -> Pipeline:
    """The stages around an engine, which is closed where they do not go together."""
    with ExitStack() as kept:
        kept.callback(engine.close)
        pipeline = build()
        kept.pop_all()
    return pipeline


def open_input(config: Config) -> Source:
    """The source that the settings name, with its secrets put in."""
    given = config.input
    source = open_source(
        source_of(given.source, given.source_from),
        fast=given.fast, mirror=given.mirror, loop=given.loop, fps=given.fps, seed=given.seed,
    )  # fmt: skip
    if given.name:
        source.info = replace(source.info, id=given.name)
    return source


def outlet_spec(outputs: OutputFlags) -> OutletSpec:
    """What the settings open to the outside."""
    address = None if outputs.pub == "none" else outputs.pub
    return OutletSpec(address, outputs.keys, outputs.control, outputs.http, outputs.journal)


def told_to(outputs: OutputFlags, marks: frozenset[str]) -> Outputs:
    """Where the line writes; marks: what its site does to poses, for those who play its recording."""
    poses, scores = outputs.publish_poses, outputs.publish_scores
    return Outputs(None, outputs.events, outputs.record, poses, scores, marks)


def run(config: Config, console: Console) -> int:
    """Puts the line together and runs it; LineError says what is wrong."""
    if config.program.check:
        return precheck(config, lambda: open_input(config), print)
    check(config)
    chosen, outputs = config.recognition, config.output
    logs = set_up(console, quiet=outputs.quiet, as_json=outputs.log_json, filters=(Scrub(),))
    stop, notifier = Stop(), Notifier.from_environment()
    follow_fleet()
    site = load_calibration(chosen.calib)
    bundle, of_pairs = load_bundles(chosen, site.thresholds)
    with ExitStack() as opened:  # closed again in the opposite order, whatever happens
        opened.callback(logs.flush)
        opened.callback(stop.close)
        opened.callback(notifier.close)
        outlet = opened.enter_context(Outlet(outlet_spec(outputs)))  # its process starts while models load
        engine = open_engine(bundle, chosen.backend, chosen.threads, chosen.precision, chosen.engine, chosen.trust)
        opened.callback(engine.close)
        together = None
        if of_pairs is not None:  # --engine is the first bundle's
            together = of_pairs, open_engine(of_pairs, chosen.backend, chosen.threads, chosen.precision)
            opened.callback(together[1].close)
        source = open_input(config)
        opened.callback(source.close)
        logs.name(source.info.id)
        pose, persons, why = open_stage(chosen, source.info, site)
        opened.callback(pose.close)
        outlet.open()
        to = told_to(outputs, marks_of(source.info, site))
        reporter = Reporter(
            to, bundle, engine.backend, source.info, engine.precision, outlet, together, site.thresholds
        )
        opened.callback(reporter.close)
        terminal = Terminal(console, bundle, source.info, outputs.quiet, outputs.show and not outputs.headless, logs)
        two = together and f"interactions: {together[0].name}, {len(together[0].actions)} actions of two people"
        terminal.opening(outlet, engine.backend, (engine.why and f"engine: {engine.why}", why, two or ""))
        if outputs.wait_subscriber:
            reporter.wait_for_subscriber(outputs.wait_subscriber, stopped=lambda: stop.code is not None)

        def rebuild(folder: Path) -> tuple[Bundle, Pipeline, Engine]:
            other = load_first(folder, of_pairs, site.thresholds)
            fresh = open_engine(other, chosen.backend, chosen.threads, chosen.precision)  # --engine is another model's
            stages = partial(make_pipeline, pose, other, fresh, persons, together, site.thresholds)
            return other, or_closed(fresh, stages), fresh

        pipeline = make_pipeline(pose, bundle, engine, persons, together, site.thresholds)
        line = Line(source, pipeline, engine, reporter, terminal, stop, notifier, together[1:] if together else ())
        opened.callback(line.close)
        steering = Commands(Steering(line, rebuild))
        code = line.run(config.input.duration, source.info.live or config.input.source == "-", steering.handle)
        if reporter.failures:  # said when they came; scripts look at the exit code
            raise LineError("; ".join(reporter.failures))
        return code


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "realtime.run", EXAMPLES, run, read_command_line)


if __name__ == "__main__":
    sys.exit(main())
