"""Paths to ids: a piece is its id, a run of unknown arcs is looked up, spelled in byte pieces, or one unknown id.

unk_id is -1 for none, byte_ids int32 [256] is -1 where missing, look_up says whether a run may be a piece.
Writes at most one id per byte of text.
"""

from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN, find_piece


@njit(nogil=True, cache=True)
def emit_path(values, stop, path_arc, path_start, first, last, slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids):
    """Append the ids of the path first..last, which ends at `stop` and is within one chunk; the new number of ids."""
    run = -1
    for i in range(first, last):
        arc = path_arc[i]
        if arc == UNKNOWN or arc == unk_id:
            if run < 0:
                run = path_start[i]
            continue
        if run >= 0:
            n_ids = _emit_run(values, run, path_start[i], slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids)
            run = -1
        ids[n_ids] = arc
        n_ids += 1
    if run >= 0:
        n_ids = _emit_run(values, run, stop, slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids)
    return n_ids


@njit(nogil=True, cache=True)
def _emit_run(values, start, stop, slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids):
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
