"""Benchmarks: `python -m bench cpu` against the peers, `python -m bench memory` for the corpus pipeline."""
