"""Arcs into a position: a walk through the trie of reversed pieces, backwards from e, shortest arc first.

An unknown arc is one symbol long, so it is always the first. What meets the same text again and again finds its arcs
by an automaton (walk.py); this is for the rest.
"""

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.utf8 import is_boundary, symbol_length


@compiled(forceinline=True)
def child(slots, node, byte):
    """The node after `byte`, or -1. slots: int32 [2 N], base and check of each node."""
    slot = np.int64(slots[2 * node]) + np.int64(byte)
    return slot if slots[2 * slot + 1] == node else np.int64(-1)


@compiled(forceinline=True)
def find_arcs(values, start, e, stop, slots, piece_at, is_bytes, arcs, starts):
    """Write the arcs into e that begin at start or later, shortest first; returns how many they are.

    arcs: their pieces, or UNKNOWN for a symbol without a piece of its own, whether or not that is an arc of the
    vocabulary; starts: where they begin.
    """
    n = np.int64(0)
    if is_boundary(values, e, stop, is_bytes):
        symbol_start = e - symbol_length(values, e, is_bytes)
        node, s = np.int64(0), np.int64(e)
        while s > start and node >= 0:
            node = child(slots, node, values[s - 1])
            s -= 1
            piece = np.int32(UNKNOWN) if node < 0 else piece_at[node]
            # The symbol is an arc wherever the trie ends.
            if piece >= 0 or s == symbol_start:
                arcs[n], starts[n] = piece, s
                n += 1
        if s > symbol_start:
            arcs[n], starts[n] = np.int32(UNKNOWN), symbol_start
            n += 1
    return n


@compiled
def find_piece(values, start, stop, slots, piece_at):
    """The id of the piece that is exactly values[start:stop], or -1."""
    node = np.int64(0)
    for p in range(stop - 1, start - 1, -1):
        node = child(slots, node, values[p])
        if node < 0:
            return np.int32(-1)
    return piece_at[node]
