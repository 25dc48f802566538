"""The exporter: checkpoint to bundle."""
