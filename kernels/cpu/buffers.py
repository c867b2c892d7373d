"""Output buffers that grow: capacity at least doubles, what was written stays."""

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
