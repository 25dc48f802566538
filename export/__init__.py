"""The exporter: checkpoint to bundle."""

import train  # noqa: F401  # says what to install where torch is not there
