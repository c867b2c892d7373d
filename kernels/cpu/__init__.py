"""Numba readings of the stages; every function here is compiled, releases the GIL, and equals reference.py.

A model is a NamedTuple of arrays (backend.py). Only functions that work on a whole part or document take it: each read
of a field costs two atomic reference counts, so that inner functions are handed the arrays themselves.
"""
