"""Measures on site what training cannot know: camera, floor, thresholds."""
