"""Benchmarks: `python -m bench stream` on text that comes once, `cpu` on text that repeats, both beside the peers."""
