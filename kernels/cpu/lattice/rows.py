"""What is known of distinct ranges, copied to each range of the lattice, or into a padded tensor.

The lattices are those of lattice/sums.py. kernels/cuda/lattice/rows.cu does the same.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.machine import ONE


@compiled
def copy_rows(low, high, rows, starts, stops, values, added, firsts, out):
    """out[firsts[i]], ... = the float64 values[starts[rows[i]]:stops[rows[i]]], each plus added[i]."""
    for i in range(low, high):
        row, to, more = rows[i], np.uint64(firsts[i]), added[i]
        start = np.uint64(starts[row])
        for k in range(np.uint64(stops[row]) - start):
            out[to + k] = values[start + k] + more


@compiled
def pad_arcs(low, high, rows, starts, stops, arc_offsets, values, firsts, width, out):
    """out[firsts[i] + k * width], ... = the float64 values of the arcs into position k of range rows[i], from 1 on."""
    for i in range(low, high):
        row, to = rows[i], np.uint64(firsts[i])
        start = np.uint64(starts[row]) + ONE
        j = np.uint64(arc_offsets[start])
        for p in range(start, np.uint64(stops[row]) + ONE):
            to += np.uint64(width)
            first, last = j, np.uint64(arc_offsets[p + ONE])
            while j < last:
                out[to + j - first] = values[j]
                j += ONE
