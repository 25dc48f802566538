"""The exporter: checkpoint to bundle to engine. A device builds its engines with this and no torch."""
