"""The web server: one daemon thread, one selector, nothing that waits for a client.

`feed` hands a message over and returns; the thread keeps what is newest, writes to whoever reads, and answers.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections import Counter, deque
from contextlib import AbstractContextManager, suppress
from types import TracebackType

from realtime.web.address import bound, listen
from realtime.web.answers import NOTES, Answers
from realtime.web.client import ANSWER_NS, Client
from realtime.web.pages import answer, head, load_files, refusal
from realtime.web.request import Refusal, Request, parse
from realtime.web.stats import WebStats
from realtime.web.stream import FAMILIES, Stream, sse

MOST_INBOX = 4096  # messages fed and not yet taken up
MOST_INBOX_BYTES = 8 * 1024 * 1024
SPARE = 64  # connections beside the readers of events: pages being loaded, scrapers
KEEP_ALIVE_NS = 15_000_000_000
_SWEEP_NS = 250_000_000
_ACCEPTS = 64  # at most, in one turn
log = logging.getLogger("realtime.web")


class WebServer(AbstractContextManager["WebServer"]):
    """Serves the page, /events, /metrics, /healthz, /readyz and /state.json of the lines it is fed.

    address: HOST:PORT on the loopback; port 0 or * for any free one, `self.address` is the one bound. most_clients:
    readers of /events at a time; everything else shares 64 more connections, the rest get 503.
    Errors: UsageError (address malformed or open to the network), AddressError (in use).
    """

    def __init__(self, address: str | socket.socket, *, most_clients: int = 32) -> None:
        """address: HOST:PORT, or a non-blocking socket that listens already; it is closed at the end."""
        self._answers = Answers(load_files())
        self._listener = listen(address) if isinstance(address, str) else address
        self.address: str = bound(self._listener)
        self._most_clients, self._most = most_clients, most_clients + SPARE
        self._lock = threading.Lock()
        self._inbox: deque[tuple[str, bytes, int]] = deque()
        self._inbox_bytes, self._inbox_lost = 0, Counter[str]()
        self._inbox_poses = 0  # dropped before the thread saw them
        self._notes: dict[str, float] = {}
        self._awake, self._closed = False, False
        self._clients: set[Client] = set()
        self._counts: Counter[str] = Counter()
        self._waker, self._wakes = socket.socketpair()
        self._waker.setblocking(False)
        self._wakes.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._listens = True
        self._selector.register(self._wakes, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What a browser on this machine opens."""
        return f"http://{self.address}/"

    @property
    def alive(self) -> bool:
        """Whether the thread runs; it ends with close, or where a fault of ours or a lack of memory ends it."""
        return self._thread.is_alive()

    @property
    def stats(self) -> WebStats:
        """Figures since the start."""
        streams = [client.stream for client in tuple(self._clients) if client.stream is not None]
        dropped = self._inbox_poses + self._counts["dropped_poses"] + sum(stream.dropped_poses for stream in streams)
        counts = {name: self._counts[name] for name in ("requests", "turned_away", "refused", "gaps", "failures")}
        return WebStats(
            connections=len(self._clients), streams=len(streams), dropped_poses=dropped,
            not_understood=self._answers.not_understood, **counts,
        )  # fmt: skip

    def feed(self, topic: str, payload: bytes) -> None:
        """Hands one message of the bus over; never blocks, from any thread. After close it does nothing.

        Where the thread cannot keep up, poses are dropped first; whatever else is lost is told to every reader.
        """
        with self._lock:
            if self._closed:
                return
            self._inbox.append((topic, payload, time.monotonic_ns()))
            self._inbox_bytes += len(payload)
            if len(self._inbox) > MOST_INBOX or self._inbox_bytes > MOST_INBOX_BYTES:
                self._shed()
            wake, self._awake = not self._awake, True
        if wake:
            self._wake()

    def note(self, **figures: float) -> None:
        """Figures that no message carries, for /metrics: those of NOTES. ValueError for other names."""
        unknown = sorted(set(figures) - set(NOTES))
        if unknown:
            raise ValueError(f"no figure {unknown[0]!r}; known: {', '.join(NOTES)}")
        with self._lock:
            self._notes.update(figures)

    def close(self) -> None:
        """Cuts everybody off and frees the address; a second call does nothing."""
        with self._lock:
            already, self._closed = self._closed, True
        if already:
            return
        self._wake()
        self._thread.join(timeout=5)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _shed(self) -> None:
        """Makes room in the inbox; called with the lock held."""
        kept = [entry for entry in self._inbox if not entry[0].startswith("pose.")]
        self._inbox_poses += len(self._inbox) - len(kept)
        self._inbox_bytes = sum(len(payload) for _, payload, _ in kept)
        if len(kept) > MOST_INBOX // 2 or self._inbox_bytes > MOST_INBOX_BYTES // 2:
            self._inbox_lost.update(topic.partition(".")[0] for topic, _, _ in kept)
            kept, self._inbox_bytes = [], 0
        self._inbox = deque(kept)

    def _wake(self) -> None:
        with suppress(OSError):  # full means that it wakes anyway
            self._waker.send(b"w")

    # Everything below runs in the thread.

    def _run(self) -> None:
        swept_ns = told_ns = time.monotonic_ns()
        try:
            while not self._closed:
                ready = self._selector.select(timeout=_SWEEP_NS / 1e9)
                now_ns = time.monotonic_ns()
                for key, mask in ready:
                    if key.fileobj is self._listener:
                        self._accept(now_ns)
                    elif key.fileobj is self._wakes:
                        self._take_inbox()
                    else:
                        self._guarded(key.data, mask, now_ns)
                if now_ns - swept_ns >= _SWEEP_NS:
                    swept_ns = now_ns
                    self._sweep(now_ns)
                if now_ns - told_ns >= KEEP_ALIVE_NS:
                    told_ns = now_ns
                    self._keep_alive(now_ns)
        finally:
            self._closed = True
            for client in self._clients:
                client.close()
            self._clients.clear()
            for end in (self._listener, self._waker, self._wakes, self._selector):
                end.close()

    def _accept(self, now_ns: int) -> None:
        for _ in range(_ACCEPTS):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # it left again, or this process has no file to spare: the next sweep asks again
                self._selector.unregister(self._listener)
                self._listens = False
                return
            try:
                client = Client(connection, now_ns)
            except OSError:
                connection.close()
                continue
            self._clients.add(client)
            self._watch(client)
            if sum(not client.is_leaving for client in self._clients) > self._most:
                self._make_room(client, now_ns)

    def _make_room(self, newest: Client, now_ns: int) -> None:
        """Turns away whoever has been connected longest without a whole request, else the newest."""
        idle = [client for client in self._clients if client.state == "reading"]
        unwanted = min(idle, key=lambda client: client.begun_ns, default=newest)
        self._counts["turned_away"] += 1
        with suppress(OSError):
            unwanted.answer(refusal(503, "too many connections; close a page that shows this line"), now_ns)
        leaving = [client for client in self._clients if client.is_leaving]
        if len(leaving) > SPARE:  # told, and still not gone
            self._drop(min(leaving, key=lambda client: client.begun_ns))
        if not unwanted.is_leaving:
            self._drop(unwanted)

    def _guarded(self, client: Client, mask: int, now_ns: int) -> None:
        """Serves one client; whatever goes wrong there ends with that client."""
        try:
            if mask & selectors.EVENT_READ:
                self._read(client, now_ns)
            if client in self._clients and mask & selectors.EVENT_WRITE:
                client.send(now_ns)
                self._pump(client, now_ns)
            self._watch(client)
        except OSError:  # gone
            self._drop(client)
        except Exception:
            self._counts["failures"] += 1
            log.exception("a client of the web page was cut off; the others go on")
            self._drop(client)

    def _read(self, client: Client, now_ns: int) -> None:
        if client.state != "reading":
            client.discard()
            return
        try:
            text = client.read_head()
            if text is not None:
                self._answer(client, parse(text), now_ns)
        except Refusal as error:
            self._refuse(client, error, now_ns)
        except BlockingIOError:
            return

    def _refuse(self, client: Client, error: Refusal, now_ns: int) -> None:
        self._counts["refused"] += 1
        client.answer(refusal(error.status, error.why), now_ns)

    def _answer(self, client: Client, request: Request, now_ns: int) -> None:
        self._counts["requests"] += 1
        if request.path == "/events":
            self._begin(client, request, now_ns)
            return
        with self._lock:
            notes = dict(self._notes)
        status, body, kind = self._answers.content(request.path, now_ns, self.stats, notes)
        client.answer(answer(status, body, kind, empty=request.method == "HEAD"), now_ns)

    def _begin(self, client: Client, request: Request, now_ns: int) -> None:
        asked = request.query.get("families", ",".join(FAMILIES)).split(",")
        unknown = [name for name in asked if name not in FAMILIES]
        if unknown:
            raise Refusal(400, f"families are {', '.join(FAMILIES)}; one of those asked for is not among them")
        if request.method == "HEAD":
            client.answer(head(200, "text/event-stream"), now_ns)
            return
        if sum(other.stream is not None for other in self._clients) >= self._most_clients:
            raise Refusal(503, f"{self._most_clients} pages are open already; close one")
        families = frozenset(asked)
        start = head(200, "text/event-stream; charset=utf-8") + b"retry: 1000\n\n"
        client.begin_stream(start + self._answers.catch_up(families, now_ns), Stream(families), now_ns)

    def _take_inbox(self) -> None:
        with suppress(BlockingIOError):
            self._wakes.recv(64)
        with self._lock:
            inbox, self._inbox = self._inbox, deque()
            lost, self._inbox_lost = self._inbox_lost, Counter()
            self._inbox_bytes, self._awake = 0, False
        streams = [client for client in self._clients if client.stream is not None]
        for client in streams:
            assert client.stream is not None
            client.stream.lose(lost)
        for topic, payload, fed_ns in inbox:
            told = self._answers.take(topic, payload, fed_ns)
            if told is None:
                continue
            for client in streams:
                assert client.stream is not None
                client.stream.put(told.family, told.chunk)
        now_ns = time.monotonic_ns()
        for client in streams:
            self._guarded(client, selectors.EVENT_WRITE, now_ns)

    def _pump(self, client: Client, now_ns: int) -> None:
        """Sends what waits for a reader, until its socket is full or nothing waits."""
        stream = client.stream
        while stream is not None and stream and not client.pending:
            if stream.lost:
                lost = dict(sorted(stream.told().items()))
                self._counts["gaps"] += 1
                told = ",".join(f'"{name}":{count}' for name, count in lost.items())
                client.load(sse("gap", f"{{{told}}}".encode()) + self._answers.catch_up(stream.families, now_ns))
            else:
                client.load(stream.take())
            client.send(now_ns)

    def _watch(self, client: Client) -> None:
        if client not in self._clients:
            return
        writes = client.pending or bool(client.stream)
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)
        if mask != client.mask:
            if client.mask:
                self._selector.modify(client.socket, mask, client)
            else:
                self._selector.register(client.socket, mask, client)
            client.mask = mask

    def _sweep(self, now_ns: int) -> None:
        if not self._listens:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._listens = True
        for client in [client for client in self._clients if now_ns > client.deadline_ns]:
            if client.state == "reading":
                with suppress(OSError):
                    self._refuse(client, Refusal(408, "the request took longer than 5 s"), now_ns)
                if client.is_leaving:
                    self._watch(client)
                    continue
            if client.state == "streaming" and not client.pending:  # nothing was to be sent: it may stay
                client.deadline_ns = now_ns + ANSWER_NS
                continue
            self._drop(client)

    def _keep_alive(self, now_ns: int) -> None:
        for client in tuple(self._clients):
            if client.stream is not None and not client.pending and not client.stream:
                client.load(b": still here\n\n")
                self._guarded(client, selectors.EVENT_WRITE, now_ns)

    def _drop(self, client: Client) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        if client.stream is not None:
            self._counts["dropped_poses"] += client.stream.dropped_poses
        if client.mask:
            self._selector.unregister(client.socket)
        client.close()
