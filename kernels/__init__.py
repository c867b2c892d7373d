"""The numerics, one file per stage: reference.py (the definition), cpu/ (Numba), cuda/ (CUDA C++)."""
