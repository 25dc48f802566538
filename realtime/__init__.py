"""The runtime: frames in, skeletons, windows, scores, action events out over ZeroMQ."""

import os

# Some releases of ONNX Runtime send telemetry unless this is set before they are imported; nothing here does.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
