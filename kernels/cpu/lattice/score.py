"""How much of a lattice's weight reads as given ids: the summed weights of the paths that become exactly these ids.

A row is read from the end of its text. A state says that the text from position p on reads as the ids from j on, and
what begins at p: nothing open (CLOSED), or a run of unknown arcs, which reads as its bytes (BYTES) or as one id,
ids[j], while all its bytes have ids (ONE_SPELLED) or once one has none (ONE_OTHER). If runs may be pieces (look_up),
the state also holds its length, in length_bits bits that saturate at all ones; otherwise it has no such bits. Whether a
run may read so is decided at its start: after a known arc, at the start of a chunk (lattice/emit.py) or of the text.

States wait in a heap, the greatest p first; equal ones are added when they are popped. Nearly always there is one.
Work: the arcs into each state's position, times the logarithm of the number of waiting states. States: about one for
each id and each unknown symbol if the ids determine the path; never more than positions * ids * 4, times 2^length_bits
if runs are looked up. kernels/cuda/lattice/score.cu does the same operations in the same order.
"""

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.lattice.build import CHUNK
from gpu_lattice.kernels.cpu.lattice.emit import find_sorted
from gpu_lattice.kernels.cpu.scaled import add, scaled

CLOSED = 0
BYTES = 1
ONE_SPELLED = 2
ONE_OTHER = 3
KIND_BITS = 2


@compiled
def reading_sums(low, high, rows, row_doc, id_firsts, id_stops, ids, doc_positions, arc_offsets, arcs, lengths, weights,
                 marks, text, sorted_values, sorted_offsets, sorted_ids, n_sorted, longest, byte_ids, unk_id, look_up,
                 length_bits, capacity, heap_keys, heap_mantissas, totals, exponents, is_full):  # fmt: skip
    """Unit i sums row rows[i], whose ids are ids[id_firsts:id_stops], into totals and exponents of the row.

    A row that stops before its first id has no path. longest: bytes of the longest piece. The heap of unit i is
    heap_keys int64 [units * capacity, 3] (p, the rest of the state, exponent) and heap_mantissas float64 [units *
    capacity] from i * capacity on; is_full uint8 [rows] says that it was too small.
    """
    most = (np.int64(1) << length_bits) - 1
    for i in range(low, high):
        row = rows[i]
        i_doc = row_doc[row]
        start = doc_positions[i_doc]
        n, n_ids = doc_positions[i_doc + 1] - start - 1, id_stops[row] - id_firsts[row]
        of_row, of_doc = id_firsts[row], start - i_doc
        first, last = i * capacity, (i + 1) * capacity
        keys, mantissas = heap_keys[first:last], heap_mantissas[first:last]
        size = np.int64(0)
        if n_ids >= 0:
            size = push(size, keys, mantissas, n, n_ids << KIND_BITS << length_bits, 0.5, np.int64(1))
        total, total_exponent = 0.0, np.int64(0)
        while size > 0:
            p, state = keys[0, 0], keys[0, 1]
            mantissa, exponent = 0.0, np.int64(0)
            while size > 0 and keys[0, 0] == p and keys[0, 1] == state:
                mantissa, exponent = add(mantissa, exponent, mantissas[0], keys[0, 2])
                size = pop(size, keys, mantissas)
            j = state >> length_bits >> KIND_BITS
            kind, length = state >> length_bits & 3, state & most
            closes = kind == CLOSED
            if not closes:
                piece = np.int64(-1)
                if look_up and length <= longest:
                    at = of_doc + p
                    piece = find_sorted(text, at, at + length, sorted_values, sorted_offsets, n_sorted)
                if kind == BYTES:
                    closes = piece < 0
                elif piece >= 0:
                    closes = ids[of_row + j] == sorted_ids[piece]
                else:
                    closes = kind == ONE_OTHER and ids[of_row + j] == unk_id
            if p == 0:
                if closes and j == 0:
                    total, total_exponent = add(total, total_exponent, mantissa, exponent)
                continue
            extends = kind != CLOSED and not marks[start + p] & CHUNK
            if not closes and not extends:
                continue
            for k in range(arc_offsets[start + p], arc_offsets[start + p + 1]):
                if weights[k] == 0.0:
                    continue
                arc, arc_length = arcs[k], np.int64(lengths[k])
                s = p - arc_length
                one, spelled = np.int64(-1), np.int64(-1)
                if not (arc == UNKNOWN or arc == unk_id):
                    name = TOKEN_ARC - arc if arc <= TOKEN_ARC else arc
                    if closes and j > 0 and ids[of_row + j - 1] == name:
                        one = (j - 1) << KIND_BITS << length_bits
                else:
                    is_spelled, is_read = True, j >= arc_length
                    b = np.int64(0)
                    while is_spelled and b < arc_length:
                        byte_id = byte_ids[text[of_doc + s + b]]
                        is_spelled = byte_id >= 0
                        is_read = is_read and ids[of_row + j - arc_length + b] == byte_id
                        b += 1
                    run = min(arc_length + (length if extends else np.int64(0)), most)
                    if is_spelled and is_read and (kind == BYTES if extends else closes):
                        spelled = ((j - arc_length) << KIND_BITS | BYTES) << length_bits | run
                    if extends and kind != BYTES:
                        one = (j << KIND_BITS | (kind if is_spelled else ONE_OTHER)) << length_bits | run
                    if not extends and j > 0 and (look_up or ids[of_row + j - 1] == unk_id):
                        one = ((j - 1) << KIND_BITS | (ONE_SPELLED if is_spelled else ONE_OTHER)) << length_bits | run
                term, term_exponent = scaled(mantissa * weights[k], exponent)
                if one >= 0:
                    size = push(size, keys, mantissas, s, one, term, term_exponent)
                if spelled >= 0:
                    size = push(size, keys, mantissas, s, spelled, term, term_exponent)
        totals[row], exponents[row] = total, total_exponent
        is_full[row] = size < 0


@compiled
def push(size, keys, mantissas, p, state, mantissa, exponent):
    """Put a state into the heap; returns its new size, or -1, for good, if it is full."""
    if size < 0 or size == len(mantissas):
        return np.int64(-1)
    i = size
    while i > 0:
        above = (i - 1) // 2
        if not is_before(p, state, keys[above, 0], keys[above, 1]):
            break
        _move(keys, mantissas, above, i)
        i = above
    keys[i, 0], keys[i, 1], keys[i, 2], mantissas[i] = p, state, exponent, mantissa
    return size + 1


@compiled
def pop(size, keys, mantissas):
    """Take the first state out of the heap; returns its new size."""
    last = size - 1
    i, below = np.int64(0), np.int64(1)
    while below < last:
        if below + 1 < last and is_before(keys[below + 1, 0], keys[below + 1, 1], keys[below, 0], keys[below, 1]):
            below += 1
        if not is_before(keys[below, 0], keys[below, 1], keys[last, 0], keys[last, 1]):
            break
        _move(keys, mantissas, below, i)
        i, below = below, 2 * below + 1
    _move(keys, mantissas, last, i)
    return last


@compiled
def is_before(p, state, other_p, other_state):
    return p > other_p or (p == other_p and state > other_state)


@compiled
def _move(keys, mantissas, source, to):
    keys[to, 0], keys[to, 1], keys[to, 2] = keys[source, 0], keys[source, 1], keys[source, 2]
    mantissas[to] = mantissas[source]
