"""Ragged values, and output buffers that grow: capacity at least doubles, what was written stays."""

import numpy as np

from gpu_lattice.kernels.compiled import compiled


@compiled
def grown(buffer, used, needed):
    """The buffer itself if it holds `needed` items, else a larger one with the first `used` copied."""
    if needed <= len(buffer):
        return buffer
    larger = np.empty(max(needed, 2 * len(buffer)), buffer.dtype)
    # A loop, for Numba takes seconds to compile a slice.
    for k in range(used):
        larger[k] = buffer[k]
    return larger


@compiled
def filled(buffer, used):
    """The first `used` items: a view, or a copy where the rest of the buffer would be a waste to keep."""
    return buffer[:used] if 4 * used >= len(buffer) else buffer[:used].copy()


@compiled
def longest_of(offsets):
    """The length of the longest of values[offsets[i]:offsets[i + 1]]; 0 if there are none.

    A loop, for Numba takes six seconds to compile `np.diff`.
    """
    most = np.int64(0)
    for i in range(len(offsets) - 1):
        most = max(most, offsets[i + 1] - offsets[i])
    return most


@compiled
def range_at(offsets, position):
    """The last i with offsets[i] <= position; there is one. `np.searchsorted` takes Numba a second to compile."""
    low, high = np.int64(0), np.int64(len(offsets))
    while high - low > 1:
        middle = (low + high) >> 1
        if offsets[middle] <= position:
            low = middle
        else:
            high = middle
    return low
