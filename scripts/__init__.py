"""What a person runs by hand: demo, benchmarks, model card."""

import realtime as realtime  # first of all: it keeps ONNX Runtime from sending telemetry
