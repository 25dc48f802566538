"""A generated person for the demo, the tests and the source `synthetic`: scripts of actions, played by a puppet.

`perform` plays a script; from there: motions (what each action does), gait and gestures (how), keyframes (smooth
curves through postures), puppet (the jointed figure), kinect_noise (what a sensor makes of it). NumPy only.
"""

from realtime.generator.perform import DEMO_SCRIPT, Motion, Script, Segment, perform, synthetic_frames

__all__ = ["DEMO_SCRIPT", "Motion", "Script", "Segment", "perform", "synthetic_frames"]
