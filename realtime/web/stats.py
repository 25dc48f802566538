"""Figures and limits of the web server."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_ADDRESS = "127.0.0.1:8787"


@dataclass(frozen=True, slots=True)
class WebStats:
    """What the server did since its start; connections and streams: how many there are now.

    turned_away: connections beyond the limit. refused: requests that broke a rule (4xx). gaps: times that a reader of
    /events fell behind and was told so. dropped_poses: poses that readers were too slow for. not_understood: messages
    fed that are none. failures: faults of our own while one client was served; it was cut off, the rest went on.
    """

    connections: int = 0
    streams: int = 0
    requests: int = 0
    turned_away: int = 0
    refused: int = 0
    gaps: int = 0
    dropped_poses: int = 0
    not_understood: int = 0
    failures: int = 0
