"""Scores a bundle on a data set, through the code the device runs: python -m train.evaluate --help."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from realtime.bundle import Bundle, default_bundle, load_bundle
from realtime.decoder import Decoder
from realtime.engine import open_engine
from realtime.errors import LineError, UsageError
from realtime.features import features
from realtime.resample import offline_windows
from realtime.schema import SECOND_NS, Pose
from realtime.skeleton import CORE_16, convert
from realtime.window import WindowBuffer
from train.checkpoint import write_json
from train.data import read
from train.data.clip import Clip, Recording, cut
from train.sources import parse_source
from train.vocabulary import action_of

Logits = Callable[[np.ndarray], np.ndarray]
CLIP_STRIDE = 4  # rows between the windows of a clip longer than one window


@dataclass(frozen=True)
class Config:
    """Score a bundle on a data set in its published form.

    Clips (and labelled segments of recordings, cut out) are scored by top-1 accuracy over the classes that the
    vocabulary has; an answer of "nothing" is wrong. Recordings are also played through window, engine and decoder,
    and their events scored one to one.

    Examples:
      python -m train.evaluate --data nw_ucla:DIR
      python -m train.evaluate --bundle runs/first/bundle --data utkinect:DIR --subjects 5 6 --json out.json
    """

    data: str
    """NAME:PATH; NAME is one of nw_ucla utd_mhad utkinect msr_action3d msrc12 sbu, PATH the folder of its files."""
    bundle: Path | None = None
    """Bundle to score; the shipped one where not given."""
    subjects: tuple[str, ...] = ()
    """Only these subjects; all where not given."""
    json: Path | None = None
    """Write the report here."""
    events: bool = True
    """Also play recordings through the line and score events."""


def clip_windows(clip: Clip, window: int, fps: float) -> np.ndarray:
    """Windows (W, T, V, 3) of CORE_16 that a device would have seen of this clip alone; none of an empty clip.

    A clip of at most T rows gives one window that ends with it, its first row standing in front, as the live
    buffer fills it; a longer one gives a window every CLIP_STRIDE rows from row T on, and the last.
    """
    seen = (clip.confidence[:, 0] > 0).any(axis=1)
    if not seen.any():
        return np.zeros((0, window, len(CORE_16), 3), np.float32)
    joints, confidence = convert(clip.joints[seen, 0], clip.confidence[seen, 0], clip.layout, CORE_16)
    every = offline_windows(clip.times_ns[seen], joints, confidence, CORE_16, window, fps, 1, 1).joints
    ends = np.unique([len(every) - 1, *range(window - 1, len(every), CLIP_STRIDE)])
    return every[ends] if len(every) else joints[:1, None].repeat(window, 1)


def score_clips(
    logits: Logits, items: Iterable[Clip | Recording], classes: Sequence[str], streams: tuple[str, ...],
    window: int, fps: float,
) -> list[tuple[str, str, str]]:  # fmt: skip
    """(data set's own label, true action or "", answered action) of each clip and each labelled segment."""
    scored = []
    for clip in _clips(items):
        action = action_of(clip.data, clip.label)
        if action not in classes:
            scored.append((clip.label, "", ""))
            continue
        windows = clip_windows(clip, window, fps)
        answer = "nothing"
        if len(windows):
            values = logits(features(windows, np.ones(windows.shape[:3], np.float32), streams))
            values = np.exp(values - values.max(axis=1, keepdims=True))
            answer = classes[int((values / values.sum(axis=1, keepdims=True)).mean(axis=0).argmax())]
        scored.append((clip.label, action, answer))
    return scored


def _clips(items: Iterable[Clip | Recording]) -> Iterator[Clip]:
    for item in items:
        yield from [item] if isinstance(item, Clip) else cut(item)


def clip_report(data: str, scored: list[tuple[str, str, str]], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, mean class accuracy and coverage, per class figures, and the commonest confusions."""
    covered = [(label, true, answer) for label, true, answer in scored if true]
    report: dict[str, Any] = {"data": data, "clips": len(covered), "coverage": len(covered) / max(len(scored), 1)}
    truth, answers = [t for _, t, _ in covered], [a for _, _, a in covered]
    report["accuracy"] = float(np.mean([t == a for t, a in zip(truth, answers, strict=True)])) if truth else 0.0
    pairs = [(true, answer) for _, true, answer in covered]
    report["per_class"] = {
        action: {"clips": truth.count(action), "accuracy": pairs.count((action, action)) / truth.count(action)}
        for action in sorted(set(truth))
    }
    wrong = sorted({p for p in pairs if p[0] != p[1]}, key=pairs.count, reverse=True)
    report["confused"] = [{"true": t, "answer": a, "clips": pairs.count((t, a))} for t, a in wrong[:12]]
    return report


def play(bundle: Bundle, engine: Any, recording: Recording) -> list:
    """The events of one recording, from the device's own window, engine and decoder."""
    windows = WindowBuffer(CORE_16, bundle.window, bundle.fps, bundle.stride)
    decoder = Decoder.of(bundle)
    starts, found = {}, []
    for index, now in enumerate(recording.times_ns.tolist()):
        poses = tuple(
            Pose(index, now, body + 1, recording.layout, recording.joints[index, body], recording.confidence[index, body])
            for body in range(recording.joints.shape[1])
            if (recording.confidence[index, body] > 0).any()
        )
        events = decoder.decide(engine.score(windows.push(index, now, poses)))
        for lost in windows.lost():
            events += decoder.close(now, "track_lost", lost)
        for event in events:
            if event.phase == "start":
                starts[event.id] = event
            elif event.phase == "end":
                first = starts.pop(event.id)
                found.append(Detection(first.action, first.onset_ns, event.offset_ns, first.decided_ns))
    for event in decoder.close(int(recording.times_ns[-1]), "source_lost"):
        first = starts.pop(event.id)
        found.append(Detection(first.action, first.onset_ns, event.offset_ns, first.decided_ns))
    return found


def evaluate(bundle: Bundle, data: str, items: Sequence[Clip | Recording], events: bool = True) -> dict[str, Any]:
    """The whole report of one data set (see `Config`)."""
    engine = open_engine(bundle)
    scored = score_clips(engine.logits, items, bundle.classes, bundle.streams, bundle.window, bundle.fps)
    report = clip_report(data, scored, bundle.classes)
    recordings = [item for item in items if isinstance(item, Recording)]
    if events and recordings:
        report["events"] = _event_report(bundle, engine, recordings)
    return report


def _event_report(bundle: Bundle, engine: Any, recordings: Sequence[Recording]) -> dict[str, Any]:
    total = EventScore.empty()
    for recording in track(recordings, "playing recordings", console=Console(stderr=True), transient=True):
        total += score_events(_in_actions(recording, bundle), play(bundle, engine, recording))
    return total.report()


def main() -> int:
    """Command line; returns the exit code."""
    console = Console(stderr=True, highlight=False)
    config = tyro.cli(Config, description=Config.__doc__)
    try:
        started = time.monotonic()
        source = parse_source(config.data)
        bundle = load_bundle(config.bundle or default_bundle())
        items = list(read(source.name, source.path, set(config.subjects) or None))
        if not items:
            raise UsageError(f"{config.data} holds nothing of subjects {' '.join(config.subjects)}; leave --subjects out")
        report = evaluate(bundle, source.name, items, config.events)
        report |= {"bundle": bundle.name, "subjects": sorted({str(item.subject) for item in items})}
        if config.json:
            write_json(config.json, report)
    except LineError as error:
        console.print(f"error: {error}", style="red")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    console.print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
