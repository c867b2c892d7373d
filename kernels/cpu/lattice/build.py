"""The arcs of a batch as ragged arrays: marks of every position, then the arcs into it, counted and written.

In:  values uint8 [n]; chunks of them; the cut table; the trie of reversed pieces.
Out: marks uint8 [n + 1], see below; counts int32 [n], the arcs that end after each byte; arcs and lengths int32 [A],
     shortest first.

An arc is a piece id, UNKNOWN, or TOKEN_ARC - id for a chunk that is a token as it stands.
kernels/cuda/common/text.cuh has the same values.
"""

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.cuts import find_cuts
from gpu_lattice.kernels.cpu.utf8 import is_boundary, symbol_length

# Marks of a position: a chunk begins here, the byte that follows is within a token, a segment begins here.
# The end of the text is marked as a start of both kinds.
CHUNK = 1
TOKEN = 2
CUT = 4

CUTS_AT_ONCE = 512


@compiled
def mark_cuts(low, high, values, chunk_offsets, chunk_ids, pairs, keys, pages, characters, joined, is_bytes, marks):
    """Mark the positions in chunks low..high; marks are initially 0. The caller sets the mark at n."""
    cuts, places = np.empty(CUTS_AT_ONCE, np.int64), np.empty(CUTS_AT_ONCE, np.int64)
    for i_chunk in range(low, high):
        start, stop = chunk_offsets[i_chunk], chunk_offsets[i_chunk + 1]
        if chunk_ids[i_chunk] >= 0:
            marks[start:stop] = TOKEN
            marks[start] = CHUNK | CUT | TOKEN
            continue
        marks[start] = CHUNK | CUT
        p = start
        while p < stop:
            cuts[0] = p
            n = find_cuts(values, stop, start, stop, pairs, keys, pages, characters, joined, is_bytes, cuts, 1,
                          places)  # fmt: skip
            for i in range(1, n):
                p = cuts[i]
                if p < stop:
                    marks[p] = CUT


@compiled
def count_arcs(low, high, values, marks, slots, piece_at, has_unknown, is_bytes, counts):
    """Count the arcs that end after each of the bytes low..high."""
    n_bytes = len(values)
    for i in range(low, high):
        e = i + 1
        counts[i] = 0
        if marks[i] & TOKEN:
            counts[i] = marks[e] & CHUNK
            continue
        if not is_boundary(values, e, n_bytes, is_bytes):
            continue
        symbol = symbol_length(values, e, is_bytes)
        node = np.int64(0)
        s = e
        n = 0
        while s == e or not marks[s] & CUT:
            slot = np.int64(slots[2 * node]) + np.int64(values[s - 1])
            if slots[2 * slot + 1] != node:
                break
            node = slot
            s -= 1
            n += piece_at[node] >= 0 or (has_unknown and e - s == symbol)
        counts[i] = n + (has_unknown and e - s < symbol)


@compiled
def place_arcs(low, high, values, marks, chunk_offsets, chunk_ids, n_chunks, slots, piece_at, has_unknown, is_bytes,
               firsts, arcs, lengths):  # fmt: skip
    """Write the arcs that end after each of the bytes low..high; firsts int64 [n] is where those of a byte begin."""
    n_bytes = len(values)
    for i in range(low, high):
        e = i + 1
        j = firsts[i]
        if marks[i] & TOKEN:
            if marks[e] & CHUNK:
                i_chunk = np.searchsorted(chunk_offsets[:n_chunks], i, side="right") - 1
                arcs[j], lengths[j] = TOKEN_ARC - chunk_ids[i_chunk], e - chunk_offsets[i_chunk]
            continue
        if not is_boundary(values, e, n_bytes, is_bytes):
            continue
        symbol = symbol_length(values, e, is_bytes)
        node = np.int64(0)
        s = e
        while s == e or not marks[s] & CUT:
            slot = np.int64(slots[2 * node]) + np.int64(values[s - 1])
            if slots[2 * slot + 1] != node:
                break
            node = slot
            s -= 1
            if piece_at[node] >= 0 or (has_unknown and e - s == symbol):
                arcs[j], lengths[j] = piece_at[node] if piece_at[node] >= 0 else UNKNOWN, e - s
                j += 1
        if has_unknown and e - s < symbol:
            arcs[j], lengths[j] = UNKNOWN, symbol
