"""Numba readings of the stages; every function here is compiled, releases the GIL, and equals reference.py."""
