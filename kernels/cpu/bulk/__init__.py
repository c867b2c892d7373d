"""Texts to ids, segment by segment, remembering what was met before: the CPU's reading of kernels/cuda/bulk."""
