"""The trainer: real Kinect data in, a bundle for the runtime out."""

import sys
from importlib.util import find_spec

if find_spec("torch") is None:  # the runtime is installed without it
    print(
        "error: training needs torch, which the runtime does without; install it with: make install-test",
        file=sys.stderr,
    )
    sys.exit(2)
