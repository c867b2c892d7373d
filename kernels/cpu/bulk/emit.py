"""Arcs to ids: a piece is its id, a run of unknown arcs is looked up, spelled in byte pieces, or one unknown id, or an
unknown id for each.

Writes at most one id per byte of text. Where unknown text is always spelled in byte pieces, whatever is next to it, the
stages before write those in place of unknown arcs (`spells`), and nothing is left to do here.
"""

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.arcs import find_piece
from gpu_lattice.kernels.cpu.utf8 import symbol_length_from


@compiled
def emit_group(batch, i_chunk, n_segments, n_to_read, run, pieces, group, ids, first, n_ids):
    """Make ids of the arcs ids[first:n_ids] of a group of segments, the first of which lies in i_chunk.

    run: where the run of unknown arcs begins that comes into the group, or -1. ids has room for one more for each of
    its bytes.
    ends[i]: where the arcs of segment i end; made where its ids end. A run ends with its chunk, and counts to the last
    segment of the group in which it is.
    Returns (the end of ids, where the run begins that goes on after the group or -1).
    """
    if n_to_read == 0 and run < 0:
        return n_ids, run
    values, chunk_offsets = batch.values, batch.chunk_offsets
    segments, ends, to_read = group.segments, group.ends, group.to_read
    slots, piece_at, lengths, is_bytes = pieces.slots, pieces.piece_at, pieces.lengths, pieces.is_bytes
    unk_id, byte_ids, look_up, apart = pieces.unk_id, pieces.byte_ids, pieces.look_up, pieces.apart
    arcs = ids[first:n_ids].copy()
    n_ids = first
    i = k = np.int64(0)
    for i_read in range(n_to_read + 1):
        following = to_read[i_read] if i_read < n_to_read else n_segments
        p = segments[i]
        if run >= 0 and (i < following or p >= chunk_offsets[i_chunk + 1]):
            n_ids = _emit_run(values, run, p, slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids)
            run = np.int64(-1)
            if i > 0:
                ends[i - 1] = n_ids
        if i < following:
            shift = n_ids - k - first
            n_known = ends[following - 1] - first - k
            ids[n_ids : n_ids + n_known] = arcs[k : k + n_known]
            ends[i:following] += shift
            n_ids += n_known
            k += n_known
            i = following
            p = segments[i]
        if i == n_segments:
            break
        while p >= chunk_offsets[i_chunk + 1]:
            i_chunk += 1
        while k < ends[i] - first:
            arc = arcs[k]
            k += 1
            if arc <= TOKEN_ARC:
                arc = TOKEN_ARC - arc
            elif arc == UNKNOWN or arc == unk_id:
                begin = p
                p += symbol_length_from(values, p, is_bytes) if arc == UNKNOWN else lengths[arc]
                if not apart:
                    run = begin if run < 0 else run
                    continue
                arc = unk_id
            else:
                if run >= 0:
                    n_ids = _emit_run(values, run, p, slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids)
                    run = np.int64(-1)
                p += lengths[arc]
            ids[n_ids] = arc
            n_ids += 1
        ends[i] = n_ids
        i += 1
    return n_ids, run


@compiled
def _emit_run(values, start, stop, slots, piece_at, unk_id, byte_ids, look_up, ids, n_ids):
    """Append what the unknown text start..stop becomes."""
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


@compiled
def count_ids(part_ends, ends, first, low, high, run_starts, run_lengths):
    """Write where the ids of each of the parts low..high begin, and how many they are; the first begin at `first`.

    part_ends: as `find_ends` (segments.py) writes it. ends[i]: where the ids of segment i end.
    """
    before = np.int64(0)
    for i_part in range(low, high):
        i = part_ends[i_part - low]
        end = ends[i - 1] if i > before else first
        run_starts[i_part], run_lengths[i_part] = first, end - first
        first, before = end, i
