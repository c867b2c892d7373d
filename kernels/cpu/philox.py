"""Philox4x32-10 (Salmon et al. 2011): a counter in, a number in [0, 1) out, no state.

Numba turns uint64 with a plain int into float64 or int64, so every constant is a typed one.
"""

import numpy as np
from numba import njit

MULTIPLIER_0 = np.uint64(0xD2511F53)
MULTIPLIER_1 = np.uint64(0xCD9E8D57)
WEYL_0 = np.uint64(0x9E3779B9)
WEYL_1 = np.uint64(0xBB67AE85)
MASK = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
DROP = np.uint64(11)


@njit(nogil=True, cache=True)
def uniform(seed, position, i_sample, doc_id):
    """key = the seed's two words, counter = (position, sample, document low, document high); seed, doc_id uint64."""
    k0, k1 = seed & MASK, seed >> SHIFT
    c0, c1 = np.uint64(position) & MASK, np.uint64(i_sample) & MASK
    c2, c3 = doc_id & MASK, doc_id >> SHIFT
    for _ in range(10):
        p0, p1 = MULTIPLIER_0 * c0, MULTIPLIER_1 * c2
        c0, c1 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & MASK
        c2, c3 = (p0 >> SHIFT) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + WEYL_0) & MASK, (k1 + WEYL_1) & MASK
    return np.float64(np.int64((c0 << SHIFT | c1) >> DROP)) * 2.0**-53


@njit(nogil=True, cache=True)
def uniforms(seed, positions, first_sample, n_samples, doc_ids):
    """[n_samples, n]: `uniform` of positions int64 [n] with doc_ids uint64 [n] in samples first_sample, + 1, ..."""
    out = np.empty((n_samples, len(positions)))
    for k in range(n_samples):
        for i in range(len(positions)):
            out[k, i] = uniform(seed, positions[i], first_sample + k, doc_ids[i])
    return out
