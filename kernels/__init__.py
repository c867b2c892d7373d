"""The numerics: arrays in, arrays out; reference.py is the definition. Imports numpy, numba and itself."""
