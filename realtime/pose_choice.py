"""Which pose stage: what --pose says, or the best that is ready here."""

from __future__ import annotations

from pathlib import Path

from realtime.errors import UsageError
from realtime.lens import Lens
from realtime.pipeline import FindsPoses

CHOICES = "auto, litert, mediapipe or a FILE.onnx"


def open_pose(choice: str, persons: int, threads: int = 2, lens: Lens | None = None) -> tuple[FindsPoses, str]:
    """The pose stage for pictures, and one line on what it is and why.

    auto: LiteRT where it and MediaPipe's networks are installed, else MediaPipe, which follows one person. What was
    named is never replaced by something else. threads: CPU threads of LiteRT and of an ONNX network. lens: the
    camera's, where it was measured. Raises UsageError where the choice is none or not installed, BundleError where a
    network is refused.
    """
    # Each stage is imported only where it is taken: skeleton sources need no cv2, LiteRT no mediapipe.
    if choice.endswith(".onnx"):
        from realtime.onnx_pose import OnnxPose

        flat = OnnxPose(Path(choice).expanduser(), persons, threads, lens)
        return flat, f"pose: {Path(choice).name} in ONNX Runtime ({flat.device}), {_people(persons)}, without depth"
    if choice not in ("auto", "litert", "mediapipe"):
        raise UsageError(f"--pose must be {CHOICES}, got {choice}")
    if choice != "mediapipe":
        from realtime.litert import unavailable

        why = unavailable()
        if why is None:
            from realtime.litert_pose import LiteRtPose

            return LiteRtPose(persons, threads, lens), f"pose: MediaPipe's networks in LiteRT, {_people(persons)}"
        if choice == "litert":
            raise UsageError(f"--pose litert: {why}: run `make install`")
    from realtime.pose import MediaPipePose

    because = f", because {why}" if choice == "auto" else ""
    return MediaPipePose(lens), f"pose: MediaPipe, one person{because}"


def _people(persons: int) -> str:
    return "one person" if persons == 1 else f"up to {persons} people"
