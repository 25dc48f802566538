"""Scores -> Event: smoothing, thresholds with hysteresis, and durations in seconds of capture time.

The rules, per track, and per actor and partner where windows are of two people:
* Probabilities are smoothed by an exponential mean with a time constant in seconds, so the answer does not depend on
  how many windows come per second.
* The leading action is the one with the largest smoothed probability among those at or above their own `on` (the
  open one: its `off`). When it has led for `min_on_s`, it starts. Its onset is back-dated to when it rose to `off`,
  and above the open one where there is one, and further by a stated constant.
* One action is open per track. Another that has led long enough replaces it (the old one ends as "replaced").
* An open action ends when it has been below `off` for `min_off_s`; a shorter dip is the same occurrence under the
  same id. Its offset is back-dated to when it first fell below `off`, and further by a stated constant.
* "Nothing" is a class like the others that takes probability from them, but it never opens an event.
* One start, updates at most once a second, exactly one end; `close` ends what is open and forgets the track.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from realtime.clock import MILLISECOND_NS, Clock
from realtime.schema import SECOND_NS, EndReason, Event, Phase, Scores

UPDATE_NS = SECOND_NS  # at most one update in this time
ALTERNATIVES = 3  # runners-up named in each event
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class ActionRule:
    """When one action starts and ends. on, off: smoothed probabilities, 0 < off <= on <= 1; the rest in seconds."""

    id: str
    on: float
    off: float
    min_on_s: float
    min_off_s: float

    def __post_init__(self) -> None:
        if not 0 < self.off <= self.on <= 1:
            raise ValueError(f"action {self.id}: need 0 < off <= on <= 1, got on {self.on} and off {self.off}")
        for name in ("min_on_s", "min_off_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"action {self.id}: {name} must be finite and at least 0, got {value}")


class Ids:
    """Makes ULIDs: 48 bits of UTC milliseconds and 80 random bits in Crockford's base 32, strictly increasing."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> str:
        """The next one, 26 characters."""
        milliseconds = Clock.now().utc_ns // MILLISECOND_NS
        self._last = max((milliseconds << 80) | secrets.randbits(80), self._last + 1)
        return "".join(_CROCKFORD[(self._last >> shift) & 31] for shift in range(125, -1, -5))


@dataclass(slots=True)
class _Occurrence:
    """An open event."""

    id: str
    column: int
    onset_ns: int
    peak: float
    told_ns: int = 0  # when a phase was last told
    told: Event | None = None  # which
    below_ns: int | None = None  # since when it is below off


Key = tuple[int, int | None]  # whose events: the track, and the partner's of a pair


@dataclass(slots=True)
class _Track:
    """What is remembered of one person, or of one pair."""

    smoothed: np.ndarray  # (K,)
    raw: np.ndarray  # (K,)
    now_ns: int
    earliest_ns: int  # no onset before this: the first window's beginning, then the last offset
    risen_ns: dict[int, int] = field(default_factory=dict)  # column -> since when at or above off and the open one
    leader: int | None = None
    leader_ns: int = 0  # since when it leads
    open: _Occurrence | None = None


def _key(scores: Scores) -> Key:
    return scores.track, scores.partner


class Decoder:
    """Turns scores into starts, updates and ends. One instance per source.

    classes: names in logit order, `nothing` among them. A class without a rule never opens an event.
    smoothing_s: time constant of the exponential mean; 0 for none.
    onset_shift_s, offset_shift_s: the probability rises later than the action begins, and falls later than it ends;
    onsets and offsets are moved back by this much, an offset never before its onset.
    new_id: makes an id per occurrence. Errors: ValueError names the rule and the value.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        nothing: str,
        rules: Sequence[ActionRule],
        smoothing_s: float,
        *,
        onset_shift_s: float = 0.0,
        offset_shift_s: float = 0.0,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        ids = [rule.id for rule in rules]
        if len(set(classes)) < len(classes) or len(set(ids)) < len(ids):
            raise ValueError(f"classes and rules must each be unique, got classes {classes} and rules for {ids}")
        if nothing not in classes or nothing in ids:
            raise ValueError(f"{nothing!r} must be a class and have no rule, got classes {classes} and rules for {ids}")
        if not set(ids) <= set(classes):
            raise ValueError(f"rules for {sorted(set(ids) - set(classes))}, which are not among the classes {classes}")
        shifts = (("onset_shift_s", onset_shift_s), ("offset_shift_s", offset_shift_s))
        for name, value in (("smoothing_s", smoothing_s), *shifts):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and at least 0, got {value}")
        self.classes = classes
        self._rules = {classes.index(rule.id): rule for rule in rules}
        self._smoothing_ns = smoothing_s * SECOND_NS
        self._shift_ns, self._offset_shift_ns = round(onset_shift_s * SECOND_NS), round(offset_shift_s * SECOND_NS)
        self._new_id = new_id or Ids()
        self._tracks: dict[Key, _Track] = {}
        self._disabled: set[int] = set()  # columns

    @property
    def disabled(self) -> frozenset[str]:
        """The actions that do not start."""
        return frozenset(self.classes[column] for column in self._disabled)

    def enable(self, action: str) -> None:
        """Lets an action start again, from what is seen from now on. ValueError where it has no rule."""
        self._disabled.discard(self._column(action))

    def disable(self, action: str, captured_ns: int) -> list[Event]:
        """From now on the action does not start; ends it where it is open, as if its thresholds were out of reach.

        Its probability goes on to count: nothing else starts in its place. ValueError where it has no rule.
        """
        column = self._column(action)
        self._disabled.add(column)
        events = []
        for key, state in self._tracks.items():
            state.risen_ns.pop(column, None)
            if state.leader == column:
                state.leader = None
            if state.open is not None and state.open.column == column:
                seen_ns, fell_ns = state.now_ns, self._fell(state.open)
                state.now_ns = max(captured_ns, seen_ns)
                events.append(self._end(key, state, "score", seen_ns if fell_ns is None else fell_ns))
                state.now_ns = seen_ns  # of the newest scores, which others are smoothed with
        return events

    @property
    def open(self) -> tuple[Event, ...]:
        """The last phase told of every event that has started and not ended."""
        occurrences = (track.open for track in self._tracks.values())
        return tuple(one.told for one in occurrences if one is not None and one.told is not None)

    def decide(self, scores: Sequence[Scores]) -> list[Event]:
        """Events that these scores bring about, in their order; nothing is taken in where one is refused.

        Errors: ValueError where probabilities are not (K,) in [0, 1], or a track's capture time goes back.
        """
        latest_ns = {key: state.now_ns for key, state in self._tracks.items()}
        for one in scores:
            self._check(one)
            before_ns = latest_ns.get(_key(one), one.captured_ns)
            if one.captured_ns < before_ns:
                raise ValueError(
                    f"track {one.track}: capture time must not go back, got {one.captured_ns} ns after {before_ns} ns"
                )
            latest_ns[_key(one)] = one.captured_ns
        return [event for one in scores for event in self._decide(one)]

    def close(self, captured_ns: int, reason: EndReason, track: int | None = None) -> list[Event]:
        """Ends what is open on one track, alone or in a pair, or on all, and forgets them.

        Offsets: when last seen above off.
        """
        keys = [key for key in self._tracks if track is None or track in key]
        return [event for key in keys for event in self._close(key, captured_ns, reason)]

    def expire(self, captured_ns: int, silent_ns: int) -> list[Event]:
        """Ends, as "timeout", what is open on those that had no scores for longer than silent_ns; forgets them."""
        keys = [key for key, state in self._tracks.items() if captured_ns - state.now_ns > silent_ns]
        return [event for key in keys for event in self._close(key, captured_ns, "timeout")]

    def _close(self, key: Key, captured_ns: int, reason: EndReason) -> list[Event]:
        state = self._tracks.pop(key)
        if state.open is None:
            return []
        seen_ns = state.now_ns
        state.now_ns = max(captured_ns, seen_ns)
        fell_ns = self._fell(state.open)
        return [self._end(key, state, reason, seen_ns if fell_ns is None else fell_ns)]

    def _check(self, scores: Scores) -> None:
        values = np.asarray(scores.probabilities)
        if values.shape != (len(self.classes),):
            raise ValueError(f"track {scores.track}: need {len(self.classes)} probabilities, got shape {values.shape}")
        if not (np.isfinite(values).all() and (values >= 0).all() and (values <= 1.0001).all()):
            raise ValueError(f"track {scores.track}: probabilities must be finite and in [0, 1], got {values}")

    def _decide(self, scores: Scores) -> list[Event]:
        key, now_ns = _key(scores), scores.captured_ns
        state = self._smooth(scores)
        self._watch(state)
        events = []
        over_ns = self._over(state)
        if over_ns is not None:
            events.append(self._end(key, state, "score", over_ns))
        ready = self._ready(state)
        if ready is not None:
            onset_ns = max(state.risen_ns[ready] - self._shift_ns, state.earliest_ns)
            if state.open is not None:
                fell_ns = self._fell(state.open)
                offset_ns = onset_ns if fell_ns is None else min(fell_ns, onset_ns)
                events.append(self._end(key, state, "replaced", offset_ns))
            events.append(self._start(key, state, ready, onset_ns))
        elif state.open is not None and now_ns - state.open.told_ns >= UPDATE_NS:
            events.append(self._tell(key, state, state.open, "update"))
        return events

    def _smooth(self, scores: Scores) -> _Track:
        """Takes one window's probabilities into the track's exponential mean, weighted by the time since the last."""
        raw = np.clip(np.asarray(scores.probabilities, np.float64), 0, 1)
        state = self._tracks.get(_key(scores))
        if state is None:
            state = _Track(raw.copy(), raw, scores.captured_ns, min(scores.start_ns, scores.captured_ns))
            self._tracks[_key(scores)] = state
            return state
        elapsed_ns = scores.captured_ns - state.now_ns
        weight = -math.expm1(-elapsed_ns / self._smoothing_ns) if self._smoothing_ns else 1.0
        state.smoothed = state.smoothed + weight * (raw - state.smoothed)
        state.raw, state.now_ns = raw, scores.captured_ns
        return state

    def _watch(self, state: _Track) -> None:
        """Notes since when each action has been up, which one leads, and how the open one stands."""
        now_ns, one = state.now_ns, state.open
        # What lies below the open one has not begun, however long it has been above its own off.
        held = state.smoothed[one.column] if one is not None and self._able(state, one.column) else 0.0
        for column, rule in self._rules.items():
            if column not in self._disabled and state.smoothed[column] >= max(rule.off, held):
                state.risen_ns.setdefault(column, now_ns)
            else:
                state.risen_ns.pop(column, None)
        able = [column for column in self._rules if self._able(state, column)]
        leader = max(able, key=lambda column: state.smoothed[column], default=None)
        if leader in self._disabled:
            leader = None
        if leader != state.leader:
            state.leader, state.leader_ns = leader, now_ns
        if one is not None:
            one.peak = max(one.peak, float(state.smoothed[one.column]))
            if one.column in state.risen_ns:
                one.below_ns = None
            elif one.below_ns is None:
                one.below_ns = now_ns

    def _column(self, action: str) -> int:
        for column, rule in self._rules.items():
            if rule.id == action:
                return column
        raise ValueError(f"no action {action!r}; there are {', '.join(rule.id for rule in self._rules.values())}")

    def _able(self, state: _Track, column: int) -> bool:
        """Whether an action may lead: the open one down to its off, another from its on."""
        rule = self._rules[column]
        least = rule.off if state.open is not None and state.open.column == column else rule.on
        return bool(state.smoothed[column] >= least)

    def _over(self, state: _Track) -> int | None:
        """When the open action fell below off, once that was long enough ago to end it."""
        one = state.open
        if one is None or one.below_ns is None:
            return None
        below_for_ns = state.now_ns - one.below_ns
        return self._fell(one) if below_for_ns >= self._rules[one.column].min_off_s * SECOND_NS else None

    def _fell(self, one: _Occurrence) -> int | None:
        """When what fell below off is taken to have ended; None while it has not fallen."""
        return None if one.below_ns is None else one.below_ns - self._offset_shift_ns

    def _ready(self, state: _Track) -> int | None:
        """The column of the action that has led long enough to start, unless it is already open."""
        column = state.leader
        if column is None or (state.open is not None and state.open.column == column):
            return None
        led_ns = state.now_ns - state.leader_ns
        return column if led_ns >= self._rules[column].min_on_s * SECOND_NS else None

    def _start(self, key: Key, state: _Track, column: int, onset_ns: int) -> Event:
        one = _Occurrence(self._new_id(), column, max(onset_ns, state.earliest_ns), float(state.smoothed[column]))
        state.open = one
        return self._tell(key, state, one, "start")

    def _end(self, key: Key, state: _Track, reason: EndReason, offset_ns: int) -> Event:
        """Closes the open occurrence; the next one on this track cannot have begun before its offset."""
        one = state.open
        assert one is not None
        offset_ns = max(offset_ns, one.onset_ns)
        event = self._tell(key, state, one, "end", offset_ns, reason)
        state.open = None
        state.earliest_ns = offset_ns
        return event

    def _tell(
        self,
        key: Key,
        state: _Track,
        one: _Occurrence,
        phase: Phase,
        offset_ns: int | None = None,
        reason: EndReason | None = None,
    ) -> Event:
        rule = self._rules[one.column]
        value = float(state.smoothed[one.column])
        others = [column for column in np.argsort(-state.smoothed, kind="stable") if column != one.column]
        runner_up = float(state.smoothed[others[0]])  # there is one: "nothing" has no rule
        one.told_ns = state.now_ns
        one.told = Event(
            id=one.id,
            phase=phase,
            track=key[0],
            action=rule.id,
            value=value,
            raw=float(state.raw[one.column]),
            peak=one.peak,
            on=rule.on,
            off=rule.off,
            margin=value - runner_up,
            onset_ns=one.onset_ns,
            decided_ns=state.now_ns,
            offset_ns=offset_ns,
            end_reason=reason,
            partner=key[1],
            alternatives=tuple((self.classes[c], float(state.smoothed[c])) for c in others[:ALTERNATIVES]),
        )
        return one.told
