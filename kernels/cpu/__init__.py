"""The stages in Numba; every function is compiled, releases the GIL, and agrees with reference.py."""
