"""Readers of published data sets, each into one in-memory form (train.data.clip)."""
