"""A network camera that misbehaves on demand: H.264 over RTSP on loopback, by GStreamer in a process of its own.

Each picture says in its pixels when it was made (milliseconds of the monotonic clock, lower 16 bits, as
`scripts.mjpeg_server.stamped` draws numbers), so its age can be measured in another process. Killing the process is
the camera's power cut; SIGSTOP is the cable pulled out: connections stay, and nothing comes.

The server runs in the system's own Python, which has GStreamer's bindings:
apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good
gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly

    /usr/bin/python3 scripts/rtsp_server.py 8554          then play rtsp://127.0.0.1:8554/cam
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SYSTEM_PYTHON = "/usr/bin/python3"
WIDTH, HEIGHT, FPS = 320, 240, 30
VIDEO_SIZE = 640, 360
READY, PROBE = "ready", "--probe"


def missing() -> str | None:
    """Why this machine cannot serve RTSP, None where it can."""
    if not os.path.exists(SYSTEM_PYTHON):
        return f"{SYSTEM_PYTHON} is not there"
    done = subprocess.run([SYSTEM_PYTHON, __file__, PROBE], capture_output=True, timeout=30, check=False)
    return None if done.returncode == 0 else "GStreamer's RTSP server is not installed (see scripts/rtsp_server.py)"


def age_ms(stamp: int, now_ns: int) -> int:
    """Milliseconds since the picture with this stamp was made, if less than a minute."""
    return (now_ns // 1_000_000 - stamp) & 0xFFFF


class RtspServer:
    """The server's process; `start` and `kill` may alternate, and the port stays. Use it in a `with`."""

    def __init__(self, user: str | None = None, password: str = "", port: int = 0, video: Path | None = None) -> None:
        """video: a file to play again and again (by ffmpeg) instead of stamped pictures."""
        self.port = port or _free_port()
        self._flags = [] if user is None else [user, password]
        self._video = video
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """The camera's address, with the user and password that it asks for."""
        return self.url_of(":".join(self._flags))

    def url_of(self, user: str) -> str:
        """The camera's address for NAME:PASSWORD, or for nobody where that is empty."""
        return f"rtsp://{user + '@' if user else ''}127.0.0.1:{self.port}/cam"

    def start(self) -> None:
        """Starts the process and waits until it listens."""
        command = [SYSTEM_PYTHON, __file__, str(self.port), *self._flags]
        if self._video is not None:
            command = [SYSTEM_PYTHON, __file__, str(self.port), *(self._flags or ["", ""]), str(self._video)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != READY:
            raise RuntimeError(f"the RTSP server did not start: {' '.join(command[:3])}")

    def kill(self) -> None:
        """Ends the process at once, as a power cut does; a second call does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def pause(self) -> None:
        """The cable is pulled: no packet comes, and no connection is closed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """The cable is back."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _picture(stamp: int) -> bytes:
    """A grey picture with the stamp's bits as bars above, the opposite bars below."""
    bar = WIDTH // 16
    bars = [208 if stamp >> bit & 1 else 48 for bit in range(16)]
    above = b"".join(bytes([value]) * bar for value in bars)
    below = b"".join(bytes([256 - value]) * bar for value in bars)
    return above * (HEIGHT // 2) + below * (HEIGHT // 2)


def _player(video: str | None) -> Callable[[], bytes]:
    """What gives the next picture: a stamped one, or that of a file that begins again at its end, as I420."""
    if video is None:
        return lambda: _picture(time.monotonic_ns() // 1_000_000 & 0xFFFF)
    width, height = VIDEO_SIZE
    shape = f"scale={width}:{height},fps={FPS},format=yuv420p"
    command = ["ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", video, "-an", "-vf", shape, "-f", "rawvideo", "-"]
    frames = subprocess.Popen(command, stdout=subprocess.PIPE).stdout
    assert frames is not None
    return lambda: frames.read(width * height * 3 // 2)


def serve(port: int, user: str | None, password: str, video: str | None = None) -> None:
    """Serves until it is killed; runs in the system's Python."""
    picture = _player(video)
    width, height = VIDEO_SIZE if video else (WIDTH, HEIGHT)
    Gst, GstRtspServer, GLib = _bindings()
    Gst.init(None)

    def configure(_: Any, media: Any) -> None:
        source, playing = media.get_element().get_by_name_recurse_up("source"), [True]
        media.connect("unprepared", lambda _: playing.clear())

        def push() -> bool:
            source.emit("push-buffer", Gst.Buffer.new_wrapped(picture()))
            return bool(playing)

        GLib.timeout_add(1000 // FPS, push)

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( appsrc name=source is-live=true format=time do-timestamp=true "
        f"caps=video/x-raw,format={'I420' if video else 'GRAY8'},width={width},height={height},framerate={FPS}/1 ! "
        "videoconvert ! "
        "video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=2000 ! "
        "rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    factory.set_shared(True)
    factory.connect("media-configure", configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(port))
    if user is not None:
        _demand(server, factory, user, password, GstRtspServer)
    server.get_mount_points().add_factory("/cam", factory)
    if not server.attach(None):
        raise SystemExit(f"port {port} is taken")
    print(READY, flush=True)
    GLib.MainLoop().run()


def _demand(server: Any, factory: Any, user: str, password: str, GstRtspServer: Any) -> None:
    """Basic authentication."""
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for right in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role("viewer", right, True)
    factory.set_permissions(permissions)


def _bindings() -> tuple[Any, Any, Any]:
    import gi  # type: ignore[import-not-found]

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]

    return Gst, GstRtspServer, GLib


if __name__ == "__main__":
    if sys.argv[1:] == [PROBE]:
        gst = _bindings()[0]
        gst.init(None)
        sys.exit(0 if gst.ElementFactory.find("x264enc") and gst.ElementFactory.find("rtph264pay") else 1)
    given = [*sys.argv[1:], *("8554", "", "", "")[len(sys.argv) - 1 :]]
    serve(int(given[0]), given[1] or None, given[2], given[3] or None)
