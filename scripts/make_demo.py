"""Writes the recording that `make demo` plays: `python scripts/make_demo.py [FILE]`.

A synthetic person (realtime/generator) stands, waves, walks, sits down, stands up, throws and claps. The same
file comes out every time; a test holds the committed one to it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from any folder, installed or not

from realtime.generator import DEMO_SCRIPT, perform  # noqa: E402
from realtime.messages import Person, PoseMessage, PoseMoment  # noqa: E402
from realtime.recording import RecordingWriter  # noqa: E402
from realtime.schema import SECOND_NS  # noqa: E402
from realtime.skeleton import KINECT_V2_25  # noqa: E402

DEMO = ROOT / "realtime" / "assets" / "demo.mcap"
SEED = 11
FPS = 30.0


def demo_messages() -> Iterator[PoseMessage]:
    """The recording's messages: joints to the millimetre and confidence to the hundredth, which halves the file."""
    motion = perform(DEMO_SCRIPT, seed=SEED, fps=FPS)
    frames = zip(motion.times_ns.tolist(), motion.joints.tolist(), motion.confidence.tolist(), strict=True)
    for index, (at_ns, joints, confidence) in enumerate(frames):
        x_y_z = [(round(x, 3), round(y, 3), round(z, 3)) for x, y, z in joints]
        person = Person(track=1, joints=tuple(x_y_z), confidence=tuple(round(value, 2) for value in confidence))
        yield PoseMessage(
            session="demo",
            seq=index,
            source="demo",
            time=PoseMoment(mono_ns=at_ns + SECOND_NS),  # a clock at zero would look like one that was never set
            frame=index,
            layout=KINECT_V2_25.name,
            persons=(person,),
        )


def main() -> None:
    """Writes the recording, whole or not at all, and says how big it is."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO
    path.parent.mkdir(parents=True, exist_ok=True)
    with RecordingWriter(path) as writer:
        for message in demo_messages():
            writer.write(message)
    print(f"{path}: {path.stat().st_size} bytes, {sum(seconds for _, seconds in DEMO_SCRIPT):.1f} s")


if __name__ == "__main__":
    main()
