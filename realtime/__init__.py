"""The runtime: frames in, skeletons, windows, scores, action events out over ZeroMQ."""
