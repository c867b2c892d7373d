"""Codes of arcs besides piece ids: the same in reference.py, on the CPU and in kernels/cuda/common/text.cuh."""

# A symbol without a piece of its own.
UNKNOWN = -1
# No arc: what CUDA's paths hold where none begins.
NO_ARC = -2
# TOKEN_ARC - id: a chunk that is one token.
TOKEN_ARC = -3
