"""Where a text can be resumed: best paths to given positions, and the pieces that begin with the rest of a text.

The lattice is that of lattice/sums.py, the pieces are those of lattice/emit.py, in the order of their bytes.
kernels/cuda/lattice/continuations.cu does the same.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.lattice.emit import compare


@compiled
def mark_back(low, high, starts, ends, arc_offsets, lengths, back, firsts, path):
    """Mark the path that back leads along from ends[i] to starts[i]; path[firsts[i] + p] is position starts[i] + p."""
    for i in range(low, high):
        e = ends[i]
        while e > starts[i]:
            path[firsts[i] + e - starts[i]] = back[e]
            e -= lengths[arc_offsets[e] + back[e]]


@compiled
def find_longer(low, high, starts, stops, text, sorted_values, sorted_offsets, n_sorted, firsts, lasts):
    """The pieces firsts[i]..lasts[i] are those that begin with text[starts[i]:stops[i]] and are longer."""
    for i in range(low, high):
        start, stop = starts[i], stops[i]
        firsts[i] = _count_up_to(text, start, stop, sorted_values, sorted_offsets, n_sorted, False)
        lasts[i] = _count_up_to(text, start, stop, sorted_values, sorted_offsets, n_sorted, True)


@compiled
def _count_up_to(text, start, stop, sorted_values, sorted_offsets, n_sorted, with_longer):
    """How many pieces come before text[start:stop] or equal it; with_longer: those that begin with it too."""
    low, high = np.int64(0), np.int64(n_sorted)
    while low < high:
        middle = (low + high) // 2
        first, last = sorted_offsets[middle], sorted_offsets[middle + 1]
        if with_longer:
            last = min(last, first + stop - start)
        if compare(sorted_values, first, last, text, start, stop) <= 0:
            low = middle + 1
        else:
            high = middle
    return low
