"""The exporter: checkpoint to bundle to engine. A device builds its engines with this and no torch."""

import realtime as realtime  # first of all: it keeps ONNX Runtime from sending telemetry
