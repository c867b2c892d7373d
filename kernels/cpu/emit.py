"""Paths to ids: a piece is its id, a run of unknown arcs is looked up, spelled in byte pieces, or one unknown id.

unk_id is -1 for none, byte_ids int32 [256] is -1 where missing, look_up says whether a run may be a piece.
Writes at most one id per byte of text.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN, find_piece

# The arc of a chunk that is one token as it stands.
TOKEN_ARC = -2


@njit(nogil=True, cache=True)
def emit_parts(values, part_offsets, low, high, chunk_offsets, chunk_ids, i_chunk, slots, piece_at, unk_id, byte_ids,
               look_up, path_arc, path_start, first, last, ids, n_ids, run_lengths):  # fmt: skip
    """Append the ids of the path first..last through parts low..high, which begin in i_chunk; the new number of ids.

    A chunk that is a token gives that. The number of ids of each part goes to run_lengths.
    """
    i = first
    for i_part in range(low, high):
        before = n_ids
        stop = part_offsets[i_part + 1]
        run = np.int64(-1)
        while i < last and path_start[i] < stop:
            arc, p = path_arc[i], path_start[i]
            if p >= chunk_offsets[i_chunk + 1]:
                n_ids = _emit_run(values, run, p, slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids)
                run = np.int64(-1)
                while p >= chunk_offsets[i_chunk + 1]:
                    i_chunk += 1
            if arc == TOKEN_ARC:
                arc = chunk_ids[i_chunk]
            elif arc == UNKNOWN or arc == unk_id:
                run = p if run < 0 else run
                i += 1
                continue
            if run >= 0:
                n_ids = _emit_run(values, run, p, slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids)
                run = np.int64(-1)
            ids[n_ids] = arc
            n_ids += 1
            i += 1
        n_ids = _emit_run(values, run, stop, slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids)
        run_lengths[i_part] = n_ids - before
    return n_ids


@njit(nogil=True, cache=True)
def _emit_run(values, start, stop, slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids):
    """Append what the unknown text start..stop becomes; nothing when start is -1."""
    if start < 0:
        return n_ids
    if look_up:
        piece = find_piece(values, start, stop, slots, piece_at)
        if piece >= 0:
            ids[n_ids] = piece
            return n_ids + 1
    for p in range(start, stop):
        if byte_ids[values[p]] < 0:
            ids[n_ids] = unk_id
            return n_ids + 1
    for p in range(start, stop):
        ids[n_ids + p - start] = byte_ids[values[p]]
    return n_ids + stop - start
