"""Scores a bundle on a data set, through the code the device runs: python -m train.evaluate --help."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from realtime.backends import open_engine
from realtime.bundle import Bundle, default_bundle, load_bundle
from realtime.calibration import load_calibration
from realtime.command import run_command
from realtime.errors import UsageError
from realtime.features import PAIR_NORMALISATION, features, normalisation_of
from realtime.pose import PassThrough
from realtime.resample import offline_windows
from realtime.run import make_pipeline
from realtime.schema import Event, Frame, Pose
from realtime.scoring import Engine, softmax
from realtime.skeleton import CORE_16, convert
from realtime.thresholds import Thresholds, site_bundle
from train.checkpoint import check_writable, write_json
from train.data import read, subject_key
from train.data.clip import Clip, Recording, cut
from train.pairs import clip_pairs, said
from train.scoring import (
    IOU,
    IOUS,
    Detection,
    EventScore,
    accuracy,
    class_accuracy,
    confusion,
    mean_class_accuracy,
    score_events,
)
from train.sources import parse_source
from train.vocabulary import NOTHING, action_of

EXAMPLES = """examples:
  python -m train.evaluate --data nw_ucla:DIR
  python -m train.evaluate --bundle runs/first/bundle --data utkinect:DIR --subjects 5 6 --json out.json
  python -m train.evaluate --precision int8 --data utkinect:DIR --subjects 6
"""
Logits = Callable[[np.ndarray], np.ndarray]
CLIP_STRIDE = 3  # rows between the windows of a clip
CLIP_FROM = 0.3  # share of a clip seen in its first window


@dataclass(frozen=True)
class Config:
    """Score a bundle on a data set in its published form.

    Clips (and labelled segments of recordings, cut out) are scored by top-1 accuracy over the classes that the
    vocabulary has; an answer of "nothing" is wrong. Recordings are also played through window, engine and decoder,
    and their events scored one to one.
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
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Which of the bundle's graphs, on ONNX Runtime's CPU; fp16 is slow there and right."""
    calib: Path | None = None
    """A site's thresholds, made by python -m calib.thresholds, in place of the bundle's own."""


def clip_windows(clip: Clip, window: int, fps: float, streams: tuple[str, ...] = ()) -> np.ndarray:
    """Windows of a clip for a model of these streams: of one person, or of pairs (see `clip_pairs`).

    (W, T, V, 3) of CORE_16 that a device would have seen of this clip alone; none where nobody is seen.

    Every CLIP_STRIDE rows, the last one at the clip's end, from when CLIP_FROM of it was seen; in front of its first
    row stands that row, as the live buffer fills a young track. Of several people the one who moves most.
    """
    if normalisation_of(streams) == PAIR_NORMALISATION:
        return clip_pairs(clip, window, fps, CLIP_FROM, CLIP_STRIDE)
    body = _actor(clip)
    seen = (clip.confidence[:, body] > 0).any(axis=1)
    if not seen.any():
        return np.zeros((0, window, len(CORE_16), 3), np.float32)
    joints, confidence = convert(clip.joints[seen, body], clip.confidence[seen, body], clip.layout, CORE_16)
    every = offline_windows(clip.times_ns[seen], joints, confidence, CORE_16, window, fps, 1, 1).joints
    last = len(every) - 1
    return every[np.arange(last, min(last, int(CLIP_FROM * last)) - 1, -CLIP_STRIDE)[::-1]]


def clip_answer(logits: np.ndarray, nothing: int) -> int:
    """The class that a clip's windows (W, K) speak for, as the line decides: the action that rises highest.

    The answer is "nothing" where it leads in every window, and where there is no window.
    """
    if not len(logits) or (logits.argmax(axis=1) == nothing).all():
        return nothing
    share = softmax(logits)
    share[:, nothing] = 0.0
    return int(share.max(axis=0).argmax())


def _actor(clip: Clip) -> int:
    """The body that moves most, by the summed variance of its joints: whose action a clip of several people shows."""
    moved = []
    for body in range(clip.joints.shape[1]):
        seen = (clip.confidence[:, body] > 0).all(axis=1)
        moved.append(float(clip.joints[seen, body].var(axis=0).sum()) if seen.any() else 0.0)
    return int(np.argmax(moved))


def score_clips(
    logits: Logits, items: Iterable[Clip | Recording], classes: Sequence[str], streams: tuple[str, ...],
    window: int, fps: float,
) -> list[tuple[str, str, str]]:  # fmt: skip
    """(data set's own label, true action or "", answered action) of each clip and each labelled segment."""
    scored, bodies = [], bodies_of(streams)
    for clip in labelled_clips(items):
        action = action_of(clip.data, clip.label, bodies)
        if action is None or action not in classes or clip.joints.shape[1] < bodies:
            scored.append((clip.label, "", ""))
            continue
        windows = clip_windows(clip, window, fps, streams)
        values = np.zeros((0, len(classes)), np.float32)
        if len(windows):
            values = logits(features(windows, np.ones(windows.shape[:-1], np.float32), streams))
        answer = classes[clip_answer(said(values, streams, classes), classes.index(NOTHING))]
        scored.append((clip.label, action, answer))
    return scored


def bodies_of(streams: tuple[str, ...]) -> int:
    """People in a window of these streams."""
    return 2 if normalisation_of(streams) == PAIR_NORMALISATION else 1


def labelled_clips(items: Iterable[Clip | Recording]) -> Iterator[Clip]:
    """The clips, and the labelled pieces of the recordings."""
    for item in items:
        yield from [item] if isinstance(item, Clip) else cut(item)


def clip_report(data: str, scored: list[tuple[str, str, str]], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, mean class accuracy and coverage, per class figures, and the commonest confusions."""
    pairs = [(true, answer) for _, true, answer in scored if true]
    truth = np.array([classes.index(true) for true, _ in pairs], int)
    answers = np.array([classes.index(answer) for _, answer in pairs], int)
    table = confusion(truth, answers, len(classes))  # (K, K) rows: true
    each = class_accuracy(table)
    wrong = sorted({pair for pair in pairs if pair[0] != pair[1]}, key=pairs.count, reverse=True)
    return {
        "data": data,
        "clips": len(pairs),
        "coverage": len(pairs) / max(len(scored), 1),
        "accuracy": accuracy(table),
        "mean_class_accuracy": mean_class_accuracy(table),
        "right": [true == answer for true, answer in pairs],  # clip by clip, to pair with another bundle's
        "per_class": {
            classes[k]: {"clips": int(table[k].sum()), "accuracy": float(each[k])}
            for k in np.flatnonzero(table.sum(axis=1))
        },
        "confused": [{"true": t, "answer": a, "clips": pairs.count((t, a))} for t, a in wrong[:12]],
    }


def play(bundle: Bundle, engine: Engine, recording: Recording, thresholds: Thresholds | None = None) -> list[Detection]:
    """The events of one recording, from the device's own window, engine and decoder."""
    persons = recording.joints.shape[1]
    pipeline = make_pipeline(PassThrough(), bundle, engine, persons, thresholds=thresholds)
    starts: dict[str, Event] = {}
    found = []
    now = 0

    def take(events: Sequence[Event]) -> None:
        for event in events:
            if event.phase == "start":
                starts[event.id] = event
            elif event.phase == "end":
                first, end_ns = starts.pop(event.id), event.offset_ns or event.decided_ns
                found.append(Detection(first.action, first.onset_ns, end_ns, first.decided_ns))

    for index, now in enumerate(recording.times_ns.tolist()):
        poses = tuple(
            Pose(
                index, now, body + 1, recording.layout, recording.joints[index, body], recording.confidence[index, body]
            )
            for body in range(recording.joints.shape[1])
            if (recording.confidence[index, body] > 0).any()
        )
        take(pipeline.step(Frame(index, now, poses=poses)).events)
    take(pipeline.close(now, "source_lost"))
    return found


def evaluate(
    bundle: Bundle, data: str, items: Sequence[Clip | Recording], events: bool = True, precision: str = "fp32",
    thresholds: Thresholds | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The whole report of one data set (see `Config`). precision: which of the bundle's graphs.

    thresholds: a site's, which the bundle already decides by.

    Raises BundleError where the bundle has no such graph.
    """
    engine = open_engine(bundle, "ort", precision=precision)

    def logits(skeleton: np.ndarray) -> np.ndarray:
        return engine.infer(skeleton)[0] / bundle.temperature

    clips = list(labelled_clips(items))
    shown = track(clips, "scoring clips", console=Console(stderr=True), transient=True)
    scored = score_clips(logits, shown, bundle.classes, bundle.streams, bundle.window, bundle.fps)
    report = clip_report(data, scored, bundle.classes)
    recordings = [item for item in items if isinstance(item, Recording)]
    if events and recordings and not bundle.of_pairs:
        report["events"] = _event_report(bundle, engine, recordings, thresholds)
    return report


def _event_report(
    bundle: Bundle, engine: Engine, recordings: Sequence[Recording], thresholds: Thresholds | None
) -> dict[str, Any]:
    totals = {threshold: EventScore() for threshold in IOUS}
    for recording in track(recordings, "playing recordings", console=Console(stderr=True), transient=True):
        found = play(bundle, engine, recording, thresholds)
        truths = [
            replace(truth, label=action_of(recording.data, truth.label) or f"outside: {truth.label}")
            for truth in recording.truths
        ]
        length = int(recording.times_ns[-1] - recording.times_ns[0]) if len(recording.times_ns) else 0
        for threshold in IOUS:
            totals[threshold] += score_events(
                truths, found, length, point_truth=recording.point_truth, vocabulary=bundle.classes, threshold=threshold
            )
    score = totals[IOU]
    return {
        "f1": score.f1,
        "precision": score.precision,
        "recall": score.recall,
        "onset_delay_s_median": score.delay_s,
        "false_per_hour": score.false_per_hour,
        "truths": score.truths,
        "detections": score.detections,
        "recordings": len(recordings),
        "f1_by_iou": {str(threshold): total.f1 for threshold, total in totals.items()},
    }


def _table(report: dict[str, Any]) -> Table:
    """The report for people."""
    table = Table("action", "clips", "accuracy", title=f"{report['data']}: {report['clips']} clips")
    for action, row in report["per_class"].items():
        table.add_row(action, str(row["clips"]), f"{row['accuracy']:.1%}")
    table.add_section()
    table.add_row("all", str(report["clips"]), f"{report['accuracy']:.1%}")
    table.add_row("mean of classes", "", f"{report['mean_class_accuracy']:.1%}")
    table.add_row("coverage", "", f"{report['coverage']:.1%}")
    for name, value in report.get("events", {}).items():
        if not isinstance(value, dict):
            table.add_row(f"events: {name}", "", f"{value:.3g}" if value is not None else "-")
    return table


def run(config: Config, console: Console) -> int:
    """Reads, scores, writes and prints."""
    started = time.monotonic()
    source = parse_source(config.data)
    thresholds = load_calibration(config.calib).thresholds
    if config.calib is not None and thresholds is None:
        raise UsageError(f"--calib {config.calib} holds no thresholds; measure them with python -m calib.thresholds")
    bundle = site_bundle(load_bundle(config.bundle or default_bundle()), thresholds)
    check_writable(config.json)
    items = list(read(source.name, source.path, config.subjects or None))
    missing = {subject_key(subject) for subject in config.subjects} - {subject_key(item.subject) for item in items}
    if missing:
        names = ", ".join(sorted(missing))
        raise UsageError(f"{config.data} holds nothing of subject {names}; leave --subjects out to score all")
    report = evaluate(bundle, source.name, items, config.events, config.precision, thresholds)
    subjects = sorted({str(item.subject) for item in items})
    report |= {"bundle": bundle.name, "precision": config.precision, "subjects": subjects}
    if config.calib is not None:
        report["calib"] = str(config.calib)
    if config.json:
        write_json(config.json, report)
    console.print(_table(report))
    took = f"{time.monotonic() - started:.0f} s"
    console.print(f"{report['bundle']} {config.precision}, subjects {' '.join(report['subjects'])}, {took}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "train.evaluate", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
