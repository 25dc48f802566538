"""The fault matrix: things are broken on purpose while the real line runs, and what comes of it is measured.

`python -m scripts.faults` prints a row per fault with its figure and the bound that it is held to
(docs/reliability.md).
"""
