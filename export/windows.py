"""Windows to calibrate int8 on and to judge graphs by, as a device would see them: real people's, or generated ones'.

Calibration sees people who are not in the gate. Idle stretches belong to both, and joints that the sensor lost.
N windows, T frames, V joints, C channels, W windows of one clip. Needs no torch but to read data sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.random import Generator

from realtime.bundle import Bundle
from realtime.errors import UsageError
from realtime.features import PAIR_NORMALISATION, features, normalisation_of
from realtime.generator.beside import beside
from realtime.generator.everyday import everyday
from realtime.pairs import offline_pairs, swapped
from realtime.resample import offline_windows
from realtime.schema import SECOND_NS
from realtime.skeleton import CORE_16, KINECT_V2_25, LAYOUTS, Layout, convert

if TYPE_CHECKING:
    from train.data.clip import Clip, Recording

CALIBRATION = 512  # windows
LEAST_GATE, MOST_GATE = 1000, 2000
HELD = 10 * MOST_GATE  # in memory, to choose from: below a gigabyte
STRIDE = 5  # rows between two windows
PEOPLE = 12  # generated ones, for each of the two
LOST_SHARE = 0.2  # of the stretches in which joints are lost for a while
LOST_SECONDS = (0.2, 2.0)


@dataclass(frozen=True)
class Spec:
    """What must be known of a model to make its windows."""

    layout: Layout
    streams: tuple[str, ...]
    window: int
    fps: float
    classes: tuple[str, ...]
    nothing: str

    @property
    def of_pairs(self) -> bool:
        """Whether its windows are of two people."""
        return normalisation_of(self.streams) == PAIR_NORMALISATION

    @classmethod
    def of(cls, model: Bundle | Mapping[str, Any]) -> Spec:
        """From a bundle, or from the entries of a bundle.json."""
        if isinstance(model, Bundle):
            return cls(model.layout, model.streams, model.window, model.fps, model.classes, model.nothing)
        return cls(
            LAYOUTS[model["layout"]], tuple(model["streams"]), model["window"], float(model["fps"]),
            tuple(model["classes"]), model["nothing"],
        )  # fmt: skip


class LabelledClip(NamedTuple):
    """A held-out clip: the features (W, C, T, V) that a device sees of it, and the class that it shows."""

    windows: np.ndarray
    truth: int


@dataclass(frozen=True)
class Windows:
    """Network inputs. source says in words whose they are; clips are there where they come from data sets.

    nothing: the class that answers "no action", where the model has one.
    """

    calibration: np.ndarray  # (n, C, T, V) float32
    gate: np.ndarray  # (m, C, T, V) float32, m >= LEAST_GATE
    source: str
    clips: tuple[LabelledClip, ...] | None = None
    nothing: int | None = None


class Stretch(NamedTuple):
    """Time before the sensor: times (T,) ns, joints (T, V, 3) and confidence (T, V) of CORE_16.

    Of one person; of a pair joints (T, 2, V, 3) and confidence (T, 2, V).
    """

    times_ns: np.ndarray
    joints: np.ndarray
    confidence: np.ndarray


def gather(
    model: Bundle | Mapping[str, Any], data: Sequence[str] = (), held_out: Sequence[str] = (), seed: int = 0
) -> Windows:
    """Windows for a model, which is a bundle or the entries of its bundle.json.

    data: sets as NAME:PATH. held_out: the subjects of each that training did not see, as NAME:S1,S2. Without data the
    windows are of generated people.

    Raises UsageError where the model's layout is not the live one, a set has no held-out subjects, or there are too
    few windows.
    """
    spec = Spec.of(model)
    if spec.layout != CORE_16:
        raise UsageError(
            f"windows are made in {CORE_16.name}, and this model takes {spec.layout.name}: convert it without gates "
            "with --onnx-only"
        )
    rng = np.random.default_rng([seed, 41])
    if not data:
        calibration, gate = (_generated(spec, 30_000 + 2 * seed + part, rng) for part in (0, 1))
        return Windows(spread(calibration, CALIBRATION), spread(gate, MOST_GATE), "generated people")
    trained_on, judged_on, said = _read(data, held_out)
    stretches = _pairs if spec.of_pairs else _stretches
    gate = _seen(spec, stretches(judged_on), rng, MOST_GATE)
    if len(gate) < LEAST_GATE:
        raise UsageError(
            f"the held-out subjects give {len(gate)} windows, and a gate needs {LEAST_GATE}: hold out more of them, or "
            "leave --data out to judge on generated people"
        )
    calibration = _seen(spec, stretches(trained_on), rng, CALIBRATION)
    if not len(calibration):
        raise UsageError(f"{' '.join(data)} holds nobody who is not held out: nothing is left to calibrate on")
    clips, nothing = _labelled(spec, judged_on), spec.classes.index(spec.nothing)
    return Windows(calibration, gate, said, clips, nothing)


def _generated(spec: Spec, seed: int, rng: Generator) -> np.ndarray:
    if spec.of_pairs:
        pairs = (_lose(Stretch(*two), rng) for two in beside(PEOPLE // 2, seed))
        return np.concatenate([_windows(spec, pair, STRIDE) for pair in pairs])
    people = (
        Stretch(m.times_ns, *convert(m.joints, m.confidence, KINECT_V2_25, CORE_16)) for m in everyday(PEOPLE, seed)
    )
    return np.concatenate([_windows(spec, _lose(person, rng), STRIDE) for person in people])


def _windows(spec: Spec, stretch: Stretch, stride: int) -> np.ndarray:
    """Features (N, C, T, V) of every window that the line would give; of a pair, of either order."""
    if spec.of_pairs:
        pairs = offline_pairs(
            stretch.times_ns, stretch.joints, stretch.confidence, CORE_16, spec.window, spec.fps, stride
        )  # fmt: skip
        both = np.concatenate([pairs.joints, swapped(pairs.joints)])
        return features(both, np.ones(both.shape[:-1], np.float32), spec.streams)
    made = offline_windows(
        stretch.times_ns, stretch.joints, stretch.confidence, CORE_16, spec.window, spec.fps, stride
    )  # fmt: skip
    return features(made.joints, made.confidence, spec.streams)


def _lose(stretch: Stretch, rng: Generator) -> Stretch:
    """The stretch, by chance with one to three joints out of sight for a while, as behind a table."""
    times, joints, confidence = stretch
    if rng.random() >= LOST_SHARE or not len(times):
        return stretch
    start = rng.uniform(times[0], times[-1] + 1)
    during = (times >= start) & (times < start + rng.uniform(*LOST_SECONDS) * SECOND_NS)
    lost = np.zeros(confidence.shape, bool)
    of = lost if lost.ndim == 2 else lost[:, rng.integers(2)]  # of a pair, one of the two loses joints
    of[np.ix_(during, rng.choice(len(CORE_16), rng.integers(1, 4), replace=False))] = True
    return Stretch(times, np.where(lost[..., None], 0, joints), np.where(lost, 0, confidence))


def spread(windows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the windows (or of what stands for them), spread evenly."""
    if len(windows) <= most:
        return windows
    return windows[np.linspace(0, len(windows) - 1, most).astype(int)]


def _thinned(parts: Iterable[np.ndarray], most: int) -> list[np.ndarray]:
    """Every window of the parts while there are at most so many, then every second one, every fourth, ...

    A large set has more windows than there is memory for, and few of them are asked for.
    """
    kept: list[np.ndarray] = []
    step, seen = 1, 0
    for part in parts:
        chosen = part[-seen % step :: step]
        seen += len(part)
        if len(chosen):
            kept.append(chosen.copy())
        while sum(map(len, kept)) > most:
            kept, step = [np.concatenate(kept)[::2].copy()], 2 * step
    return kept


def _seen(spec: Spec, stretches: Iterable[Stretch], rng: Generator, most: int) -> np.ndarray:
    """At most so many windows of the stretches: the live stride's, or every row's where those are too few."""
    lost = [_lose(stretch, rng) for stretch in stretches]
    for stride in (STRIDE, 1):
        parts = _thinned((_windows(spec, stretch, stride) for stretch in lost), HELD)
        if sum(map(len, parts)) >= min(most, LEAST_GATE):
            break
    return spread(np.concatenate(parts), most) if parts else np.zeros((0, 1, 1, 1), np.float32)


def _read(data: Sequence[str], held_out: Sequence[str]) -> tuple[list[Any], list[Any], str]:
    """The items of the subjects that are not held out, those of the held-out ones, and who these are."""
    from train.data import read  # needs torch; a device without it judges on generated people
    from train.sources import of_subjects, parse_held_out, parse_sources

    sources = parse_sources(data)
    held = parse_held_out(held_out, [source.name for source in sources])
    rest: list[Clip | Recording] = []
    out: list[Clip | Recording] = []
    for source in sources:
        if source.name not in held:
            raise UsageError(f"no held-out subjects of {source.name} are named; add --held-out {source.name}:S1,S2")
        chosen, others = of_subjects(source.name, list(read(source.name, source.path)), held[source.name])
        out += chosen
        rest += others
    who = ", ".join(f"{name} {' '.join(sorted(of, key=lambda s: (len(s), s)))}" for name, of in held.items())
    return rest, out, f"held-out subjects ({who})"


def _stretches(items: Iterable[Clip | Recording]) -> Iterator[Stretch]:
    """Everybody in the clips and recordings, idle times included."""
    for item in items:
        for body in range(item.joints.shape[1]):
            seen = (item.confidence[:, body] > 0).any(axis=1)
            if seen.any():
                person = convert(item.joints[seen, body], item.confidence[seen, body], item.layout, CORE_16)
                yield Stretch(item.times_ns[seen], *person)


def _pairs(items: Iterable[Clip | Recording]) -> Iterator[Stretch]:
    """The two people of each clip or recording that has two."""
    for item in items:
        if item.joints.shape[1] == 2 and (item.confidence > 0).any():
            yield Stretch(item.times_ns, *convert(item.joints, item.confidence, item.layout, CORE_16))


def _labelled(spec: Spec, items: Iterable[Clip | Recording]) -> tuple[LabelledClip, ...]:
    """The held-out clips whose action the model knows, cut out of recordings where need be."""
    from train.evaluate import clip_windows, labelled_clips
    from train.vocabulary import action_of

    clips = []
    for clip in labelled_clips(items):
        action = action_of(clip.data, clip.label, 2 if spec.of_pairs else 1)
        if action in spec.classes and clip.joints.shape[1] >= (2 if spec.of_pairs else 1):
            joints = clip_windows(clip, spec.window, spec.fps, spec.streams)
            made = features(joints, np.ones(joints.shape[:-1], np.float32), spec.streams)
            clips.append(LabelledClip(made, spec.classes.index(action)))
    return tuple(clips)
