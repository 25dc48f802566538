"""Pictures from files, folders and streams: what is delivered, when, and the one line that says why it is not."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from realtime.errors import SourceError, UsageError
from realtime.feed import LATE_NS, Feed, Opened, SourceInfo, Tally, redacted, topic_id
from realtime.resample import RESET_GAP_NS
from realtime.schema import SECOND_NS, Frame
from realtime.source import open_source

WIDTH, HEIGHT = 64, 48


def picture(number: int) -> np.ndarray:
    """A picture that says its number by its brightness, with a white left edge."""
    image = np.full((HEIGHT, WIDTH, 3), 40 + 3 * number, np.uint8)
    image[:, :16] = 255
    return image


def number_of(image: np.ndarray) -> int:
    return round((float(image[:, 32:].mean()) - 39) / 3)


def make_video(path: Path, frames: int, fps: int = 30) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="bgr24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "my clip.mp4", 60)


def refusal(spec: Path | str, **options) -> str:
    with pytest.raises(SourceError) as caught:
        list(open_source(str(spec), fast=True, **options))
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fast_gives_every_frame_at_media_time(video: Path) -> None:
    source = open_source(str(video), fast=True)
    frames = [frame for frame in source if frame is not None]
    assert (source.info.id, source.info.kind, source.info.live) == ("my-clip", "video", False)
    assert (source.info.width, source.info.height, source.info.fps) == (WIDTH, HEIGHT, 30.0)
    assert [frame.index for frame in frames] == list(range(60))
    assert max(abs(number_of(frame.image) - frame.index) for frame in frames) <= 1
    media = np.diff([frame.captured_ns for frame in frames])
    np.testing.assert_allclose(media, SECOND_NS / 30, atol=2)
    assert source.dropped == source.corrupt == 0
    source.close()
    source.close()


def test_live_pace_takes_as_long_as_the_video(tmp_path: Path) -> None:
    source = open_source(str(make_video(tmp_path / "v.mp4", 12)), fast=False)
    begin = time.monotonic()
    ages = [time.monotonic_ns() - frame.captured_ns for frame in source if frame is not None]
    assert 0.33 <= time.monotonic() - begin < 1.5  # 11 intervals of 1/30 s
    assert len(ages) + source.dropped == 12
    assert min(ages) >= 0 and np.median(ages) < 0.05 * SECOND_NS


def test_a_slow_consumer_sees_the_newest_frame_of_bounded_age(video: Path) -> None:
    source = open_source(str(video), fast=False)
    ages, indices = [], []
    for frame in source:
        if frame is None:
            continue
        ages.append((time.monotonic_ns() - frame.captured_ns) / SECOND_NS)
        indices.append(frame.index)
        if frame.index < 59:
            time.sleep(0.2)
    assert np.median(ages) < 0.06 and max(ages) < 0.3
    assert indices[-1] == 59  # the last frame is not lost
    assert source.dropped == 60 - len(indices) > 30


def test_closing_midway_ends_the_thread(video: Path) -> None:
    before = threading.active_count()
    for fast in (True, False):
        source = open_source(str(video), fast=fast)
        next(iter(source))
        source.close()
        assert list(source) == []
    assert threading.active_count() == before


def test_mirror_turns_a_selfie_back(video: Path) -> None:
    plain, mirrored = (next(iter(open_source(str(video), fast=True, mirror=on))).image for on in (False, True))
    np.testing.assert_array_equal(plain[:, ::-1], mirrored)
    assert mirrored[:, -10:].mean() > 240


def test_a_video_filmed_upright_is_turned_upright(video: Path) -> None:
    data = bytearray(video.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # the display matrix of an MP4 track header: turn by 90 degrees clockwise
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    video.write_bytes(data)
    source = open_source(str(video), fast=True)
    assert (source.info.width, source.info.height) == (HEIGHT, WIDTH)
    image = next(iter(source)).image
    assert image.shape == (WIDTH, HEIGHT, 3)
    assert image[:12].mean() > 240  # what was left is up
    source.close()


def test_damaged_pictures_are_counted_and_left_out(video: Path) -> None:
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    rng = np.random.default_rng(0)
    for at in rng.integers(start + 2000, data.index(b"moov") - 8, 150):
        data[at] ^= 0xFF
    video.write_bytes(data)
    source = open_source(str(video), fast=True)
    frames = list(source)
    assert 0 < len(frames) < 60
    assert 10 < source.corrupt <= 60 - len(frames)


def test_each_bad_file_has_its_own_sentence(tmp_path: Path, video: Path) -> None:
    text, empty, cut, noise = (tmp_path / name for name in ("text.mp4", "empty.mp4", "cut.mp4", "noise.avi"))
    text.write_text("Shopping list: a camera.\n" * 40)
    empty.touch()
    cut.write_bytes(video.read_bytes()[:-1500])  # the index at its end is gone
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "folder").mkdir()
    said = {
        "missing": refusal(tmp_path / "my clop.mp4"),
        "nowhere": refusal(tmp_path / "no" / "such.mp4"),
        "text": refusal(text),
        "empty": refusal(empty),
        "cut": refusal(cut),
        "folder": refusal(tmp_path / "folder"),
    }
    assert "is not there; did you mean" in said["missing"] and "my clip.mp4" in said["missing"]
    assert "there is no folder" in said["nowhere"]
    assert "text, not video" in said["text"]
    assert "empty (0 bytes)" in said["empty"]
    assert "damaged, cut short" in said["cut"] and "damaged, cut short" in refusal(noise)
    assert "holds no pictures" in said["folder"]
    assert len(set(said.values())) == len(said)


def test_a_file_without_permission_says_so(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.source.os.access", lambda path, mode: False)  # tests may run as root
    assert "no permission" in refusal(video)


def test_a_camera_that_is_not_there_lists_those_that_are(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setattr("realtime.camera.glob.glob", lambda pattern: ["/dev/video7"])
    assert "camera /dev/video63 is not there; this machine has /dev/video7" in refusal("63")
    monkeypatch.setattr("realtime.camera.glob.glob", lambda pattern: [])
    assert "no /dev/video*: plug a camera in" in refusal("/dev/video63")
    assert capfd.readouterr().err == ""  # OpenCV keeps quiet


def test_sound_without_pictures_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 48000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert "holds no pictures" in refusal(tmp_path / "song.mp4")


@pytest.mark.parametrize("fps", [0, -1, 1e6, float("nan")])
def test_a_senseless_rate_is_a_usage_error(tmp_path: Path, fps: float) -> None:
    with pytest.raises(UsageError, match="fps must be in"):
        open_source("synthetic", fast=True, fps=fps)


def test_a_folder_plays_in_natural_order_and_leaves_out_what_is_damaged(tmp_path: Path) -> None:
    for number in (0, 1, 2, 10, 11):
        cv2.imwrite(str(tmp_path / f"shot{number}.png"), picture(number))
    (tmp_path / "shot5.png").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("not a picture either")
    source = open_source(str(tmp_path), fast=True, fps=10)
    frames = [frame for frame in source if frame is not None]
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 10, 11]
    assert [frame.index for frame in frames] == [0, 1, 2, 4, 5]
    assert frames[-1].captured_ns - frames[0].captured_ns == SECOND_NS // 2
    assert source.corrupt == 1


def test_a_folder_of_broken_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert "none of its 1 pictures can be read" in refusal(tmp_path)


@pytest.mark.parametrize("secret", ["s3cret", "p@s/s:w0rd?#", "a@b@c"])
@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_password_is_never_told(scheme: str, secret: str, capfd) -> None:
    said = refusal(f"{scheme}://admin:{secret}@127.0.0.1:1/cam?token={secret}")
    shown = said + "".join(capfd.readouterr())
    assert secret not in shown and "admin" not in shown and "token" not in shown


def test_the_refusal_of_a_stream_chains_no_foreign_error() -> None:
    with pytest.raises(SourceError, match="connection refused") as caught:
        open_source("rtsp://u:s3cret@127.0.0.1:1/cam", fast=False)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_addresses_are_redacted_and_ids_fit_a_topic() -> None:
    assert redacted("rtsp://u:p@cam.lan:554/live?k=1") == "rtsp://***@cam.lan:554/live?***"
    assert redacted("walk.mp4") == "walk.mp4"
    assert topic_id("rtsp://u:p@cam.lan:554/live?k=1") == "cam-lan-554"
    assert topic_id("Küche (2)") == "K-che-2"
    assert topic_id("...") == "source"


def test_an_unknown_protocol_and_a_playlist_that_leads_elsewhere_are_refused(tmp_path: Path) -> None:
    assert "cannot play ftp://" in refusal("ftp://host/video.mp4")
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n")
    refusal(playlist)


def feed(frames, play="paced", **options) -> Feed:
    return Feed(Opened(SourceInfo("cam0", "video"), frames, lambda: None, Tally()), play, **options)


def test_a_sender_that_says_nothing_is_said_to_be_stalled_and_its_windows_go_on() -> None:
    def pauses():
        yield Frame(0, 0)
        time.sleep(0.9)
        yield Frame(1, SECOND_NS)

    told = [item for item in feed(pauses(), "every", stalled_s=0.5) if item is not None]
    assert [getattr(item, "state", item) for item in told[1:3]] == ["stalled", "online"]
    assert told[1].reset is told[2].reset is None and "check that the sender runs" in told[1].reason
    assert [item.index for item in told if isinstance(item, Frame)] == [0, 1]


def test_a_fault_in_the_reader_reaches_the_consumer() -> None:
    def faulty():
        yield Frame(0, 1)
        raise ZeroDivisionError("a bug")

    source = feed(faulty())
    assert next(source).index == 0
    with pytest.raises(ZeroDivisionError):
        next(source)


def test_a_file_that_is_read_too_slowly_is_put_back_on_time() -> None:
    def slow():
        for index in range(8):
            time.sleep(0.2)
            yield Frame(index, index * SECOND_NS // 30)

    source = feed(slow(), "paced")
    ages = [(time.monotonic_ns() - frame.captured_ns) / SECOND_NS for frame in source if frame]
    assert len(ages) == 8 and max(ages) < 0.6


def test_a_file_that_is_read_a_little_too_slowly_never_jumps_far_enough_to_lose_a_track(caplog) -> None:
    assert LATE_NS < RESET_GAP_NS / 2

    def slow():
        for index in range(30):
            time.sleep(0.04)
            yield Frame(index, index * SECOND_NS // 50)

    times = [frame.captured_ns for frame in feed(slow(), "paced") if frame]
    assert max(np.diff(times)) < RESET_GAP_NS / 2
    assert [entry.getMessage() for entry in caplog.records] == [
        "cam0 is read slower than it plays; its time is stretched"
    ]


def test_a_source_says_whether_its_frames_have_an_age(video: Path) -> None:
    for fast in (True, False):
        for spec in (str(video), "synthetic"):
            source = open_source(spec, fast=fast)
            assert source.paced is not fast
            source.close()
    assert feed(iter(())).paced


def test_synthetic_frames_play_at_live_pace_or_fast() -> None:
    fast = open_source("synthetic", fast=True, fps=20, seed=1)
    frames = [next(fast) for _ in range(200)]
    assert np.diff([frame.captured_ns for frame in frames]).tolist() == [SECOND_NS // 20] * 199
    paced = open_source("synthetic", fast=False, fps=50, seed=1)
    begin = time.monotonic()
    seen = [frame for frame, _ in zip(paced, range(10), strict=False) if frame is not None]
    assert time.monotonic() - begin > 0.15
    assert seen[0].poses[0].captured_ns == seen[0].captured_ns
    paced.close()
