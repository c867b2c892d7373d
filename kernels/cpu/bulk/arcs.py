"""Arcs into a position: one walk through the trie of reversed pieces, backwards from e, shortest arc first.

A walk ends where the trie has no child or the segment begins. Every stage writes its walk out, since a call per step
costs more than the step. An unknown arc is one symbol long, so it is always the first.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled

UNKNOWN = -1


@compiled(inline="always")
def child(slots, node, byte):
    """The node after `byte`, or -1. slots: int32 [2 N], base and check of each node."""
    slot = np.int64(slots[2 * node]) + np.int64(byte)
    return slot if slots[2 * slot + 1] == node else np.int64(-1)


@compiled
def find_piece(values, start, stop, slots, piece):
    """The id of the piece that is exactly values[start:stop], or -1."""
    node = np.int64(0)
    for p in range(stop - 1, start - 1, -1):
        node = child(slots, node, values[p])
        if node < 0:
            return -1
    return piece[node]
