"""Marked paths to rows of ids, and sums along paths.

Row i is a path through document row_doc[i]; its mark of the document's position p is at path[path_firsts[i] + p].
Unknown arcs become what kernels/cpu/bulk/emit.py makes of them: a run of them within a chunk is one piece (look_up),
its bytes, or the unknown id. Pieces are looked up in a table sorted by bytes.
kernels/cuda/lattice/emit.cu does the same.
"""

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.lattice.build import CHUNK


@compiled
def emit_rows(low, high, row_doc, path_firsts, path, doc_positions, arc_offsets, arcs, marks, text, sorted_values,
              sorted_offsets, sorted_ids, n_sorted, byte_ids, unk_id, look_up, id_firsts, writes, counts,
              ids):  # fmt: skip
    """counts int64: the number of ids of each row. The ids are written from ids[id_firsts[i]] on if `writes`."""
    for i in range(low, high):
        i_doc = row_doc[i]
        start = doc_positions[i_doc]
        n = doc_positions[i_doc + 1] - start - 1
        count = np.int64(0)
        run = np.int64(-1)
        p = np.int64(0)
        for e in range(1, n + 1):
            rank = path[path_firsts[i] + e]
            if rank < 0:
                continue
            arc = arcs[arc_offsets[start + e] + rank]
            is_unknown = arc == UNKNOWN or arc == unk_id
            if run >= 0 and (not is_unknown or marks[start + p] & CHUNK):
                at = id_firsts[i] + count if writes else np.int64(-1)
                count += _emit_run(text, start - i_doc + run, start - i_doc + p, sorted_values, sorted_offsets,
                                   sorted_ids, n_sorted, byte_ids, unk_id, look_up, ids, at)  # fmt: skip
                run = np.int64(-1)
            if is_unknown:
                run = p if run < 0 else run
            else:
                if writes:
                    ids[id_firsts[i] + count] = TOKEN_ARC - arc if arc <= TOKEN_ARC else arc
                count += 1
            p = np.int64(e)
        if run >= 0:
            at = id_firsts[i] + count if writes else np.int64(-1)
            count += _emit_run(text, start - i_doc + run, start - i_doc + p, sorted_values, sorted_offsets, sorted_ids,
                               n_sorted, byte_ids, unk_id, look_up, ids, at)  # fmt: skip
        counts[i] = count


@compiled
def _emit_run(text, start, stop, sorted_values, sorted_offsets, sorted_ids, n_sorted, byte_ids, unk_id, look_up, ids,
              at):  # fmt: skip
    """How many ids the unknown text[start:stop] becomes; written from ids[at] on unless at is -1."""
    one = unk_id
    piece = find_sorted(text, start, stop, sorted_values, sorted_offsets, n_sorted) if look_up else np.int64(-1)
    if piece >= 0:
        one = sorted_ids[piece]
    else:
        is_spelled = True
        for p in range(start, stop):
            is_spelled &= byte_ids[text[p]] >= 0
        if is_spelled:
            if at >= 0:
                for p in range(start, stop):
                    ids[at + p - start] = byte_ids[text[p]]
            return stop - start
    if at >= 0:
        ids[at] = one
    return np.int64(1)


@compiled
def find_sorted(text, start, stop, sorted_values, sorted_offsets, n_sorted):
    """The index of text[start:stop] in the sorted table, or -1."""
    low, high = np.int64(0), np.int64(n_sorted - 1)
    while low <= high:
        middle = (low + high) // 2
        order = compare(text, start, stop, sorted_values, sorted_offsets[middle], sorted_offsets[middle + 1])
        if order == 0:
            return middle
        if order < 0:
            high = middle - 1
        else:
            low = middle + 1
    return np.int64(-1)


@compiled
def compare(a, a_start, a_stop, b, b_start, b_stop):
    """-1, 0 or 1 if the bytes of a come before, equal or come after those of b."""
    for i in range(min(a_stop - a_start, b_stop - b_start)):
        x, y = a[a_start + i], b[b_start + i]
        if x != y:
            return -1 if x < y else 1
    return np.sign((a_stop - a_start) - (b_stop - b_start))


@compiled
def path_sums(low, high, row_doc, path_firsts, path, doc_positions, arc_offsets, values, totals):
    """totals float64: the sum of values float64 [A] along the path of each row, from the text's start to its end."""
    for i in range(low, high):
        start = doc_positions[row_doc[i]]
        n = doc_positions[row_doc[i] + 1] - start - 1
        total = 0.0
        for e in range(1, n + 1):
            rank = path[path_firsts[i] + e]
            if rank >= 0:
                total += values[arc_offsets[start + e] + rank]
        totals[i] = total
