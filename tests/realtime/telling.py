"""Messages for tests of the bus, and outlets that are open at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from realtime.clock import Clock
from realtime.messages import Action, ActionEvent, AnyMessage, Heartbeat, Model, Source, Status, encode
from realtime.outlet import Outlet, OutletSpec, _parcel
from realtime.outlet_wire import MESSAGE, PUBLISH, frame
from realtime.schema import Event
from realtime.wire import action_event, moment, topic

CLOCK = Clock(mono_ns=0, utc_ns=0)
ANY_PORT = "tcp://127.0.0.1:*"


def status(seq=0, session="s", source="cam0", state="online", **changes) -> Status:
    return Status(session=session, seq=seq, source=source, time=moment(seq, CLOCK), state=state, **changes)


def heartbeat(seq=0, next_seq=(), session="s", mono_ns=0) -> Heartbeat:
    return Heartbeat(
        session=session,
        seq=seq,
        source="cam0",
        time=moment(mono_ns, CLOCK),
        fps=None,
        frame_age_ms=None,
        drops=0,
        refused=0,
        stage_ms={},
        open_events=(),
        persons=0,
        next_seq=dict(next_seq),
    )


def action(seq=0, phase="start", session="s", name="id0") -> ActionEvent:
    event = Event(name, phase, 1, "wave", 0.9, 0.9, 0.9, 0.6, 0.4, 0.5, onset_ns=0, decided_ns=1)
    model = Model(name="demo", sha256="ab", backend="onnxruntime/cpu", window=64, stride=4)
    source = Source(id="cam0", kind="synthetic")
    names = Action(id="wave", name="waving")
    return action_event(event, session=session, seq=seq, source=source, action=names, model=model, clock=CLOCK)


def opened(address: str | None = ANY_PORT, keys: Path | None = None, **spec) -> Outlet:
    """An outlet whose sockets are served."""
    outlet = Outlet(OutletSpec(address, keys, **spec))
    try:
        outlet.open()
    except BaseException:
        outlet.close()
        raise
    return outlet


def unheard(outlet: Outlet, *messages: AnyMessage) -> None:
    """Publishes messages that are kept for replay but never reach a subscriber."""
    for message in messages:
        parcel = _parcel(message, topic(message), encode(message), True)
        parcel = replace(parcel, does=parcel.does & ~PUBLISH)
        if outlet._journal is not None:
            outlet._journal.write(parcel.payload)
        outlet._history.add(parcel)
        outlet._child.send(frame(MESSAGE, parcel.body()))
