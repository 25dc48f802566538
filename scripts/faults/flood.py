"""A publisher of many events, in a process of its own: no real line has so many."""

from __future__ import annotations

import json
import time

from realtime.messages import decode
from realtime.outlet import Outlet, OutletSpec
from scripts.faults.line import ROOT


def flood(address: str, count: int) -> None:
    """Publishes so many events in about ten seconds, then one status, and stays for 25 s to be asked."""
    event = json.loads((ROOT / "tests" / "realtime" / "golden" / "action-event-1.json").read_text())
    beat = json.loads((ROOT / "tests" / "realtime" / "golden" / "heartbeat-1.json").read_text())
    source = event["source"]["id"]
    with Outlet(OutletSpec(address)) as outlet:
        outlet.open()
        outlet.wait_for_subscriber(20)
        time.sleep(1)
        session, begun = "flood", time.monotonic()
        for number in range(count):
            outlet.publish(decode(json.dumps({**event, "session": session, "seq": number})))
            ahead = begun + 10 * number / count - time.monotonic()
            if ahead > 0.002:
                time.sleep(ahead)
                outlet.tend()
        for second in range(25):
            number_of = {"action": count, "status": 0, "heartbeat": second + 1}
            told = {**beat, "session": session, "seq": second, "source": source, "next_seq": number_of}
            outlet.publish(decode(json.dumps(told)))
            for _ in range(10):
                outlet.tend()
                time.sleep(0.1)
