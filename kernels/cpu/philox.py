"""Philox4x32-10 (Salmon et al. 2011): a counter in, a number in [0, 1) out, no state.

Numba turns uint64 with a plain int into float64 or int64, so every constant is typed.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled

MULTIPLIER_0 = np.uint64(0xD2511F53)
MULTIPLIER_1 = np.uint64(0xCD9E8D57)
WEYL_0 = np.uint64(0x9E3779B9)
WEYL_1 = np.uint64(0xBB67AE85)
MASK = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
# How many of a counter's 128 bits a number has, and how many bytes of a segment share it (reference.py, sample).
DRAW_BITS = 53
DRAW_BYTES = 16
DROP = np.uint64(64 - DRAW_BITS)
# Of the coins of words (reference.py, resampled).
COINS = 0x574F5244434F494E


@compiled
def uniform(seed, position, i_sample, doc_id):
    """A number in [0, 1): key = the seed's two words, counter = (position, sample, document low, document high)."""
    return to_uniform(uniform_bits(seed, position, i_sample, doc_id))


@compiled
def to_uniform(bits):
    return np.float64(np.int64(bits)) * 2.0**-DRAW_BITS


@compiled(forceinline=True)
def uniform_bits(seed, position, i_sample, doc_id):
    """The DRAW_BITS bits of `uniform`; seed, doc_id uint64.

    Always inlined, whatever LLVM thinks of its size: a loop with a call makes one number at a time.
    """
    k0, k1 = seed & MASK, seed >> SHIFT
    c0, c1 = np.uint64(position) & MASK, np.uint64(i_sample) & MASK
    c2, c3 = doc_id & MASK, doc_id >> SHIFT
    # Ten rounds without a loop: only a body without inner loops is vectorized.
    c0, c1, c2, c3, k0, k1 = _two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _two_rounds(c0, c1, c2, c3, k0, k1)
    return (c0 << SHIFT | c1) >> DROP


@compiled(forceinline=True)
def _two_rounds(c0, c1, c2, c3, k0, k1):
    """Counter and key after two more rounds."""
    p0, p1 = MULTIPLIER_0 * c0, MULTIPLIER_1 * c2
    c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & MASK, (p0 >> SHIFT) ^ c3 ^ k1, p0 & MASK
    k0, k1 = (k0 + WEYL_0) & MASK, (k1 + WEYL_1) & MASK
    p0, p1 = MULTIPLIER_0 * c0, MULTIPLIER_1 * c2
    c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & MASK, (p0 >> SHIFT) ^ c3 ^ k1, p0 & MASK
    return c0, c1, c2, c3, (k0 + WEYL_0) & MASK, (k1 + WEYL_1) & MASK


@compiled
def numbers_at(seed, positions, i_sample, doc_ids, n, out):
    """out[i] = `uniform_bits` of positions[i] in the document with the id doc_ids[i], for the first n.

    A loop that compilers vectorize: 4 ns per number instead of 10. Unsigned indices avoid the check for negative ones,
    which would prevent that.
    """
    for i in range(np.uint64(n)):
        out[i] = uniform_bits(seed, positions[i], i_sample, doc_ids[i])


@compiled
def uniforms(seed, positions, first_sample, n_samples, doc_ids):
    """[n_samples, n]: `uniform` of positions int64 [n] with doc_ids uint64 [n] in samples first_sample, + 1, ..."""
    out = np.empty((n_samples, len(positions)))
    for k in range(n_samples):
        for i in range(len(positions)):
            out[k, i] = uniform(seed, positions[i], first_sample + k, doc_ids[i])
    return out
