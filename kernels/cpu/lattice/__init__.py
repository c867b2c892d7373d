"""Lattices as arrays, a file per family of operations; kernels/cuda/lattice does the same in the same order."""
