"""`--check`: everything that a line opens is tried once, and what was found is said, a line for each thing.

Nothing is published or recorded. The first fault does not hide the next; the exit code is that of the first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import fields, replace
from pathlib import Path

from realtime.addresses import check_bind
from realtime.backends import open_engine
from realtime.bundle import Bundle
from realtime.bundles import load_bundles
from realtime.calibration import load_calibration
from realtime.errors import LineError, SourceError, UsageError
from realtime.feed import SourceInfo
from realtime.journal import check_journal
from realtime.listener import Listener, listen_pair
from realtime.pose_choice import open_pose
from realtime.recording import partial_of
from realtime.schema import Frame
from realtime.settings import PERSONS_IN_PICTURES, Config, OutputFlags, RecognitionFlags, check
from realtime.slot import Change
from realtime.source import Source
from realtime.stage import open_stage
from realtime.web.address import listen

Look = Callable[[], str]  # says what was found; LineError where the line could not use it
WITHIN_S = 12.0  # for a first frame: a camera may take ten seconds to wake


def precheck(config: Config, open_: Callable[[], Source], tell: Callable[[str], None]) -> int:
    """Looks at everything and returns the exit code: 0 the line can run, else that of the first thing that fails.

    open_: opens the source as the line would. tell: takes each line.
    """
    code = 0
    for what, look in _looks(config, open_):
        try:
            tell(f"ok     {what:12} {look()}")
        except LineError as error:
            tell(f"error  {what:12} {error}")
            code = code or error.exit_code
    return code


def _looks(config: Config, open_: Callable[[], Source]) -> Iterator[tuple[str, Look]]:
    chosen, told = config.recognition, config.output
    infos: list[SourceInfo] = []

    def opened() -> Source:
        source = open_()
        infos.append(source.info)
        return source

    yield "settings", lambda: _settings(config)
    yield "bundle", lambda: _named(load_bundles(replace(chosen, interactions=None))[0])
    if chosen.calib is not None:
        yield "calib", lambda: _calibration(chosen)
    if chosen.interactions is not None:
        yield "interactions", lambda: _interactions(chosen)
    yield "engine", lambda: _engine(chosen)
    yield "source", lambda: first_frame(opened)
    if not (infos and infos[0].skeletons):  # also where nobody knows, as it could not be opened
        yield "pose", lambda: _pose(chosen, infos)
    if told.keys is not None:
        keys = told.keys
        yield "keys", lambda: _keys(keys)
    yield from _addresses(told)
    for name, path in (("events", told.events), ("journal", told.journal), ("record", told.record)):
        if path is not None:
            yield name, lambda name=name, path=path: writable(path, name)  # type: ignore[misc]


def _addresses(told: OutputFlags) -> Iterator[tuple[str, Look]]:
    """Each is taken as the line takes it, and kept until the last was: two flags may name the same."""
    with ExitStack() as held:

        def bus() -> str:
            for one in listen_pair(told.pub, told.keys):
                held.enter_context(one)
            return f"{told.pub} is free, and so is the address after it, for replays"

        def control(address: str) -> str:
            check_bind(address, told.keys, "--control")
            held.enter_context(Listener(address, "--control"))
            return f"{address} is free"

        def page(address: str) -> str:
            held.enter_context(listen(address))
            return f"{address} is free"

        if told.pub != "none":
            yield "pub", bus
        if told.control is not None:
            yield "control", lambda: control(str(told.control))
        if told.http is not None:
            yield "http", lambda: page(str(told.http))


def _settings(config: Config) -> str:
    check(config)
    return f"of {config.program.config}" if config.program.config else "of the command line"


def _named(bundle: Bundle) -> str:
    return f"{bundle.name}, {len(bundle.actions)} actions, {len(bundle.files)} files with the right SHA-256"


def _engine(chosen: RecognitionFlags) -> str:
    bundle, _ = load_bundles(replace(chosen, interactions=None))
    engine = open_engine(bundle, chosen.backend, chosen.threads, chosen.precision, chosen.engine, chosen.trust)
    with closing(engine):
        return f"{engine.backend}, {engine.precision}, gives the reference results"


def _calibration(chosen: RecognitionFlags) -> str:
    site = load_calibration(chosen.calib)
    load_bundles(replace(chosen, interactions=None), site.thresholds)
    there = [field.name for field in fields(site) if getattr(site, field.name) is not None]
    return f"{chosen.calib}: {', '.join(there)}"


def _interactions(chosen: RecognitionFlags) -> str:
    _, pairs = load_bundles(chosen)
    assert pairs is not None
    with closing(open_engine(pairs, chosen.backend, chosen.threads, chosen.precision)) as engine:
        return f"{_named(pairs)}; {engine.backend}, {engine.precision}, gives the reference results"


def _pose(chosen: RecognitionFlags, infos: list[SourceInfo]) -> str:
    if infos:
        pose, _, what = open_stage(chosen, infos[0], load_calibration(chosen.calib))
    else:
        pose, what = open_pose(chosen.pose, chosen.persons or PERSONS_IN_PICTURES)
    with closing(pose):
        return what.removeprefix("pose: ")


def _keys(folder: Path) -> str:
    from realtime.keys import load_server, read_authorized  # here: the line's own process does without zmq

    load_server(folder)
    try:
        listed = len(read_authorized(folder))
    except UsageError as error:  # of which a line that runs may be told anew
        return f"{folder}, but nobody is let in: {error}"
    return f"{folder}, {listed} client{'' if listed == 1 else 's'} let in"


def first_frame(open_: Callable[[], Source], within_s: float = WITHIN_S) -> str:
    """Opens a source and waits for its first frame; SourceError where none comes."""
    begun_s, why = time.monotonic(), "check its cable, power and network"
    with closing(open_()) as source:
        for item in source:
            passed_s = time.monotonic() - begun_s
            if isinstance(item, Frame):
                info = source.info
                size = f" {info.width}x{info.height}" if info.width else ""
                return f"{info.id} ({info.kind}{size}), first frame after {passed_s:.1f} s"
            if isinstance(item, Change) and item.reason:
                why = item.reason
            if passed_s > within_s:
                break
        raise SourceError(
            f"{source.info.kind} {source.info.id}: no frame within {time.monotonic() - begun_s:.1f} s; {why}"
        )


def writable(path: Path, what: str = "events") -> str:
    """Whether a file can be written; nothing is left behind. UsageError where it cannot.

    what: events, a journal, which may be no other file that is there, or record, which may not be there yet.
    """
    taken = [one for one in (path, partial_of(path)) if what == "record" and os.path.lexists(one)]
    if taken:
        raise UsageError(f"{taken[0]} is there and would be lost; move it or name another file")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder; name a file")
    if what == "journal":
        check_journal(path)
    there = os.path.exists(path)
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name a file that can be written") from error
    if not there:
        path.unlink()
    return f"{path} can be written"
