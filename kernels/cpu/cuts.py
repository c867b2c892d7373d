"""Static cuts: positions that no arc can span, so that the text on either side is sampled on its own.

Reads the tables that gpu_lattice/cuts.py builds and at most two bytes, or one character, on either side of a position,
all within one chunk: chunk boundaries are cuts of their own.

Whether a position is a cut cannot be foreseen, so nothing here branches on it: each position is written, and the count
goes up only if it is to stay. In a text of characters one sweep judges where a character begins. In a text of bytes the
first sweep keeps what may be a cut, judged by the two bytes next to it, and further ones that whose context no piece
has.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.words import N_LANES, load_word, starts_of_characters, trailing_zeros

N_PAIRS = 1 << 16
ONE = np.uint64(1)
# Not a key: neither are these bytes UTF-8, nor has a context such sizes.
NO_KEY = np.uint64((1 << 64) - 1)

# Two multipliers without relation, so that keys of one bucket, whose hashes are close, may lie far apart.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIXER = np.uint64(0xBF58476D1CE4E5B9)

# By the high half of a character's first byte: the bytes of a word that belong to it.
_CHARACTER = np.array([0xFF] * 12 + [0xFFFF] * 2 + [0xFFFFFF, 0xFFFFFFFF], np.uint64)


@njit(nogil=True, cache=True, inline="always")
def code_point(values, p):
    """The code point that starts at p in valid UTF-8, and its length in bytes."""
    b = np.int64(values[p])
    if b < 0x80:
        return b, 1
    if b < 0xE0:
        return (b & 0x1F) << 6 | (np.int64(values[p + 1]) & 0x3F), 2
    if b < 0xF0:
        return (b & 0x0F) << 12 | (np.int64(values[p + 1]) & 0x3F) << 6 | (np.int64(values[p + 2]) & 0x3F), 3
    return (
        (b & 0x07) << 18
        | (np.int64(values[p + 1]) & 0x3F) << 12
        | (np.int64(values[p + 2]) & 0x3F) << 6
        | (np.int64(values[p + 3]) & 0x3F)
    ), 4


@njit(nogil=True, cache=True)
def bytes_from(values, p):
    """At least four bytes from p, the first one lowest, as a uint64; 0 stands for what lies beyond the end."""
    return load_word(values, p, p + 8)


@njit(nogil=True, cache=True)
def first_character(word):
    """The bytes of the character that a word begins with."""
    return word & _CHARACTER[(word & np.uint64(0xFF)) >> np.uint64(4)]


@njit(nogil=True, cache=True)
def key_of_characters(x, y):
    """The key of x then y, each the bytes of a character."""
    return x | y << np.uint64(32)


@njit(nogil=True, cache=True)
def key_of_bytes(word, left, right):
    """The key of the first `left` + `right` bytes of a word, of which `left` come before the position."""
    n_bits = np.uint64(8 * (left + right))
    return word & ((np.uint64(1) << n_bits) - np.uint64(1)) | np.uint64(left << 2 | right) << np.uint64(32)


@njit(nogil=True, cache=True)
def index_shift(n):
    """The right shift that makes of a 64-bit hash an index below n, a power of two from 2 on."""
    return np.uint64(64 - trailing_zeros(np.uint64(n)))


@njit(nogil=True, cache=True)
def slot_of(key, pilot, shift):
    """Where a key lies, by the pilot of its bucket; the bucket is key * GOLDEN, shifted."""
    return key * ((np.uint64(2) * pilot + np.uint64(1)) * MIXER) >> shift


@njit(nogil=True, cache=True)
def find_cuts(values, p, limit, start, stop, pairs, keys, is_bytes, out, n):
    """Append the cuts after p to out[n:], in order, until one is at or after limit or out is full; returns their end.

    start, stop: the chunk, p a boundary of symbols in it; stop counts as a cut. pairs, keys: cpu_pairs and cpu_keys of
    a CutTable. What follows the cuts in out is overwritten.
    """
    # With one way out Numba drops the reference counts of the arrays, which would cost more than a short chunk. A slice
    # for `out` would have one of its own.
    first = n
    x = first_character(bytes_from(values, p))
    more = n < len(out)
    while more:
        low = p + 1
        p = min(p + len(out) - n, max(limit, low), stop - 1)
        if is_bytes:
            last = _sweep_pairs(values, low, p + 1, pairs, out, n)
            last = _sweep_bytes(values, start, stop, 2, 1, pairs, keys, out, n, last)
            last = _sweep_bytes(values, start, stop, 1, 2, pairs, keys, out, n, last)
            n = _sweep_bytes(values, start, stop, 2, 2, pairs, keys, out, n, last)
        else:
            n, x = _sweep_characters(values, low, p + 1, x, pairs, keys, out, n)
        more = n < len(out) and (n == first or out[n - 1] < limit)
        if more and p == stop - 1:
            out[n] = stop
            n += 1
            more = False
    return n


@njit(nogil=True, cache=True, inline="always")
def _sweep_characters(values, low, high, x, pairs, keys, out, n):
    """Append the cuts among low..high to out[n:]; returns where they end, and the character that begins last.

    x: the character that begins before low.
    """
    # Inlined, for a call to it would have `find_cuts` count references.
    bucket_shift, slot_shift = index_shift(len(pairs) - N_PAIRS), index_shift(len(keys))
    # Unsigned indices, here and below, spare the check for negative ones.
    n, p, high = np.uint64(n), np.uint64(low), np.uint64(high)
    while p < high:
        starts = np.uint64(0)
        if p + N_LANES <= np.uint64(len(values)):
            starts = starts_of_characters(values, p)
        else:
            for q in range(p, high):
                starts |= np.uint64(values[q] & 0xC0 != 0x80) << (q - p)
        if high - p < N_LANES:
            starts &= (ONE << (high - p)) - ONE
        while starts != np.uint64(0):
            q = p + np.uint64(trailing_zeros(starts))
            starts &= starts - ONE
            out[n] = q
            word = bytes_from(values, q)
            at = word & np.uint64(0xFF)
            # Runs of ASCII can be foreseen, and their table stays in the nearest cache.
            if x | at < np.uint64(0x80):
                n += np.uint64(pairs[x << np.uint64(8) | at])
                x = at
                continue
            y = first_character(word)
            key = key_of_characters(x, y)
            x = y
            pilot = np.uint64(pairs[np.uint64(N_PAIRS) + (key * GOLDEN >> bucket_shift)])
            n += np.uint64(keys[slot_of(key, pilot, slot_shift)] != key)
        p += N_LANES
    return np.int64(n), x


@njit(nogil=True, cache=True, forceinline=True)
def _sweep_pairs(values, low, high, pairs, out, n):
    """Append those of low..high that may be cuts, in a text of bytes, to out[n:]; returns where they end."""
    n = np.uint64(n)
    for p in range(np.uint64(low), np.uint64(high)):
        out[n] = p
        n += np.uint64(pairs[np.uint64(values[p - ONE]) << np.uint64(8) | np.uint64(values[p])])
    return np.int64(n)


@njit(nogil=True, cache=True, forceinline=True)
def _sweep_bytes(values, start, stop, left, right, pairs, keys, out, first, last):
    """Keep those of out[first:last] that no piece spans with these `left` and `right` bytes; returns where they end."""
    bucket_shift, slot_shift = index_shift(len(pairs) - N_PAIRS), index_shift(len(keys))
    n = np.uint64(first)
    for i in range(np.uint64(first), np.uint64(last)):
        p = out[i]
        is_outside = (p - left < start) | (p + right > stop)
        key = key_of_bytes(bytes_from(values, max(p - left, start)), left, right)
        pilot = np.uint64(pairs[np.uint64(N_PAIRS) + (key * GOLDEN >> bucket_shift)])
        out[n] = p
        n += np.uint64((keys[slot_of(key, pilot, slot_shift)] != key) | is_outside)
    return np.int64(n)
