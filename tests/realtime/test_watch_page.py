"""The page itself, in a headless Chromium that is fed by a made-up line."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from realtime.web import WebServer
from tests.realtime import chromium
from tests.realtime.chromium import Chromium
from tests.realtime.watched_line import WatchedLine, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium here (Debian, Ubuntu: apt-get install chromium)"),
]
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
FIGURES = "document.querySelector('#canvas').dataset.figures"
BARS = """[...document.querySelectorAll('.row')].map(row =>
  [row.dataset.track, [...row.querySelectorAll('.bar:not([hidden])')].map(bar => bar.dataset.action)])"""
LIST = """[...document.querySelectorAll('#list .event')].map(event =>
  [event.querySelector('.person').textContent, event.querySelector('.name').textContent, event.dataset.open])"""
# How many points of the canvas are painted in a person's colour; read off a copy.
PAINTED = """(() => {
  const canvas = document.querySelector('#canvas'), copy = document.createElement('canvas');
  const want = getComputedStyle(document.documentElement).getPropertyValue('--track-%d').trim();
  const rgb = [1, 3, 5].map(i => parseInt(want.slice(i, i + 2), 16));
  Object.assign(copy, { width: canvas.width, height: canvas.height });
  const context = copy.getContext('2d', { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const data = context.getImageData(0, 0, copy.width, copy.height).data;
  let count = 0;
  for (let i = 0; i < data.length; i += 4)
    if (data[i + 3] > 200 && rgb.every((value, k) => Math.abs(data[i + k] - value) < 8)) count += 1;
  return count;
})()"""
CONTRAST = """(() => {
  const style = getComputedStyle(document.documentElement), get = name => style.getPropertyValue(name).trim();
  const light = colour => {
    const [r, g, b] = [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16) / 255)
      .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [low, high] = [light(get(a)), light(get(b))].sort((p, q) => p - q);
    return (high + 0.05) / (low + 0.05);
  };
  const pairs = [['--ink', '--panel'], ['--muted', '--panel'], ['--muted', '--page'], ['--bad', '--page']];
  for (let i = 0; i < 8; i += 1) pairs.push(['--on-track', `--track-${i}`]);
  return pairs.map(([a, b]) => [a, b, ratio(a, b)]);
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer("127.0.0.1:*") as made:
        yield made


@pytest.fixture
def page(browser, server) -> Iterator[Chromium]:
    """The page, loaded; afterwards nothing was asked of anybody else, and nothing complained."""
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(server.url)
    browser.wait("document.body.dataset.connection === 'open'")
    yield browser
    assert {urlsplit(url).hostname for url in browser.requests} == {"127.0.0.1"}
    assert browser.complaints == []
    browser.call("Page.navigate", url="about:blank")


def text(page: Chromium, name: str) -> str:
    return page.ask(f"document.getElementById('{name}').textContent")


def test_two_people_their_actions_and_the_health_of_the_line_are_shown(page, server, tmp_path):
    line = WatchedLine(server.feed)
    line.status("online")
    line.past("past", 1, "clap", 25, 4)
    with running(line):
        line.start("one", 1, "wave", 1.5)
        line.start("two", 2, "walk", 3.0)
        page.wait(f"{FIGURES} === '2'")
        page.wait("document.querySelectorAll('.bar').length === 3")
        assert page.ask(BARS) == [["1", ["clap", "wave"]], ["2", ["walk"]]]
        assert page.ask(LIST) == [["2", "walking", "true"], ["1", "waving", "true"], ["1", "clapping", "false"]]
        assert page.ask("document.querySelector('[data-action=clap] .lasted').textContent") == "4.0 s"
        assert (
            page.ask("document.querySelector('[data-action=clap] .detail').textContent") == "peak 0.96known after 0.9 s"
        )
        page.wait("document.querySelector('#people').textContent.includes('waving')")
        assert page.ask("[...document.querySelectorAll('#people li')].map(l => l.textContent)") == [
            "Person 1: waving",
            "Person 2: walking",
        ]
        assert page.ask("document.getElementById('state').dataset.state") == "online"
        page.wait("document.getElementById('fps').textContent !== '–'")
        assert re.fullmatch(r"(28|29|30)\.\d", text(page, "fps"))
        assert [text(page, name) for name in ("age", "persons", "drops", "memory")] == ["38 ms", "2", "3", "382 MB"]
        assert text(page, "notice") == ""
        assert page.ask(PAINTED % 1) > 500 and page.ask(PAINTED % 2) > 500  # figures in their people's colours
        page.wait("/Person 1: waving/.test(document.getElementById('announcer').textContent)")
        line.end("one")
        page.wait("document.querySelector('#list [data-action=wave]').dataset.open === 'false'")
        width = page.ask("document.querySelector('.bar[data-action=walk]').getBoundingClientRect().width")
        time.sleep(1)
        assert page.ask("document.querySelector('.bar[data-action=walk]').getBoundingClientRect().width") > width
    page.picture(tmp_path / "two.png")


def test_silence_fades_the_figures_and_says_so(page, server):
    line = WatchedLine(server.feed)
    line.status("online")
    with running(line):
        page.wait(f"{FIGURES} === '2'")
    page.wait(f"{FIGURES} === '0'", 6)
    page.wait("/^Silent for [3-9] s/.test(document.getElementById('notice').textContent)", 6)
    page.wait("document.getElementById('state').dataset.state === 'silent'")
    assert [text(page, name) for name in ("fps", "age", "persons")] == ["–", "–", "–"]
    assert page.ask(PAINTED % 1) == page.ask(PAINTED % 2) == 0
    assert page.ask("document.querySelectorAll('#people li').length") == 0
    with running(line):  # and back
        page.wait(f"{FIGURES} === '2'")
        page.wait("document.getElementById('state').dataset.state === 'online'")


def test_a_lost_source_is_told_with_its_reason(page, server):
    line = WatchedLine(server.feed)
    with running(line):
        line.start("one", 1, "wave")
        page.wait("document.querySelectorAll('.bar').length === 1")
    line.end("one", "source_lost")
    line.status("reconnecting", "no answer from the camera")
    line.reconnects = 2
    line.heartbeat(fps=0)
    page.wait("document.getElementById('state').dataset.state === 'reconnecting'")
    page.wait("document.getElementById('reconnects').textContent === '2'")
    assert text(page, "state-reason") == "no answer from the camera"
    for _ in range(3):
        time.sleep(1.1)
        line.heartbeat(fps=0)
    page.wait(f"{FIGURES} === '0'")
    page.wait("document.getElementById('notice').textContent === 'Reconnecting: no answer from the camera'")
    page.wait("document.querySelector('#list .reason').textContent === 'source lost'")


def test_a_hostile_name_is_a_text_and_nothing_more(page, server):
    line = WatchedLine(server.feed)
    line.status("degraded", HOSTILE)
    with running(line):
        line.start("one", 1, "wave", name=HOSTILE)
        page.wait("document.querySelectorAll('.bar').length === 1")
        assert page.ask("document.querySelector('#list .name').textContent") == HOSTILE
        assert page.ask("document.querySelector('.bar span').textContent") == HOSTILE
        page.wait(f"document.getElementById('state-reason').textContent === {HOSTILE!r}")
        page.wait("document.querySelector('#people').textContent.includes('onerror')")
        time.sleep(1.2)  # until it is announced
    assert page.ask("window.hacked") is None
    assert (
        page.ask("document.querySelectorAll('img:not([src=\"icon.svg\"]), main script, #list *[onerror]').length") == 0
    )


def test_what_two_people_do_together_stands_in_both_rows(page, server):
    line = WatchedLine(server.feed)
    line.status("online")
    with running(line):
        line.start("own", 1, "walk", 8)
        line.start("both", 1, "hug", 4, partner=2)
        page.wait("document.querySelectorAll('.bar').length === 3")
        assert page.ask(BARS) == [["1", ["walk", "hug"]], ["2", ["hug"]]]
        assert page.ask("document.querySelector('#list .event .person').textContent") == "1 + 2"
        page.wait("document.querySelector('#people').textContent === 'Person 1: walking, huggingPerson 2: hugging'")
        own, both = page.ask("[...document.querySelectorAll('.row .bar')].slice(0, 2).map(b => { const r = "
                             "b.getBoundingClientRect(); return [r.top, r.bottom]; })")  # fmt: skip
        assert own[1] <= both[0]  # one below the other


@pytest.mark.parametrize("layout", ["BLAZEPOSE_33", "COCO_17", "KINECT_V1_20", "AZURE_32", "CORE_16"])
def test_every_layout_is_drawn_in_space_and_in_the_picture(page, server, layout):
    for in_picture, view in ((False, "space"), (True, "picture")):
        line = WatchedLine(server.feed, layout=layout, in_picture=in_picture)
        with running(line):
            page.wait(f"{FIGURES} === '2' && document.querySelector('#canvas').dataset.view === '{view}'")
            page.wait(f"{PAINTED % 1} > 300 && {PAINTED % 2} > 300")


def test_two_lines_stand_side_by_side_and_the_keyboard_changes_between_them(page, server):
    first, second = WatchedLine(server.feed, "cam0"), WatchedLine(server.feed, "cam1")
    second.persons = 1
    first.status("online")
    second.status("dark", "the picture is black")
    with running(first), running(second):
        page.wait("document.querySelectorAll('.tab').length === 2")
        page.wait(f"{FIGURES} === '2'")
        states = page.ask("[...document.querySelectorAll('.tab')].map(t => [t.textContent, t.dataset.state])")
        assert states == [["cam0", "online"], ["cam1", "dark"]]
        page.ask("document.querySelector('.tab').focus()")
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight")
        page.wait("document.activeElement.textContent === 'cam1'")
        page.wait(f"{FIGURES} === '1'")
        assert text(page, "state-reason") == "the picture is black"


def test_it_comes_back_by_itself_with_what_happened_meanwhile(browser, server):
    browser.open(server.url)
    line = WatchedLine(server.feed)
    line.status("online")
    line.heartbeat()
    line.start("one", 1, "wave")
    browser.wait("document.querySelectorAll('.bar').length === 1")
    address = server.address
    server.close()
    browser.wait("document.body.dataset.connection === 'lost'")
    browser.wait("document.getElementById('notice').textContent.startsWith('Connection lost')")
    with WebServer(address) as again:
        line.feed = again.feed
        line.status("online")
        line.end("one")
        line.past("meanwhile", 2, "clap", 5, 2)
        with running(line):
            browser.wait("document.body.dataset.connection === 'open'", 20)
            browser.wait("document.querySelectorAll('#list .event').length === 2")
            assert browser.ask(LIST) == [["2", "clapping", "false"], ["1", "waving", "false"]]
            browser.wait(f"{FIGURES} === '2'")


@pytest.mark.parametrize(("width", "height"), [(320, 600), (390, 844), (820, 1100), (1360, 860), (1920, 1080)])
def test_nothing_sticks_out_at_any_width(page, server, width, height):
    line = WatchedLine(server.feed)
    line.status("reconnecting", "a long reason that goes on and on: " + "rtsp://***@camera.example/stream " * 4)
    line.past("past", 1, "clap", 25, 4)
    with running(line):
        line.start("one", 1, "wave", name="an action with rather a long name, as the user typed it")
        page.look(width, height)
        page.wait(f"{FIGURES} === '2'")
        page.wait("document.querySelectorAll('#list .event').length === 2")
        assert page.ask("document.documentElement.scrollWidth") <= width
        boxes = page.ask("['#health', '#stage', '#timeline', '#events'].map(q => { const b = document.querySelector(q)"
                         ".getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })")  # fmt: skip
        for left, top, right, bottom in boxes:
            assert left >= 0 and right <= width and right - left > 200 and bottom - top > 60
        for one in range(4):  # and nothing lies on something else
            for other in range(one):
                a, b = boxes[one], boxes[other]
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_what_the_colours_say_can_be_read(page, server):
    for dark in (False, True):
        page.look(1280, 860, dark)
        for one, other, ratio in page.ask(CONTRAST):
            assert ratio >= 4.5, f"{one} on {other} in the {'dark' if dark else 'light'}: {ratio:.1f}"  # WCAG AA
