"""Static cuts: positions that no arc can span, so that the text on either side is sampled on its own.

Reads a cut table (gpu_lattice/cuts.py builds it) and at most two bytes, or one character, on either side of a position,
all within one chunk: chunk boundaries are cuts of their own.
"""

import numpy as np
from numba import njit

JOINED = 1
PAIR_PIECE = 2


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


@njit(nogil=True, cache=True, inline="always")
def character_key(x, y):
    """The key of code points x then y; never 0."""
    return np.uint64(1 << 42 | x << 21 | y)


@njit(nogil=True, cache=True, inline="always")
def context_key(values, p, left, right):
    """The key of `left` bytes before p and `right` bytes from p on, each 1 or 2; never 0."""
    key = np.int64(1)
    for i in range(p - left, p + right):
        key = key << 8 | np.int64(values[i])
    return np.uint64(key << 4 | left << 2 | right)


@njit(nogil=True, cache=True, inline="always")
def _slot(keys, key):
    """Where a linear probe for the key begins (Fibonacci hashing)."""
    mixed = key * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mixed >> np.uint64(32)) & (len(keys) - 1)


@njit(nogil=True, cache=True)
def add_key(keys, key):
    """Put the key into the set; 1 if it is new, else 0."""
    i = _slot(keys, key)
    while keys[i] != 0:
        if keys[i] == key:
            return 0
        i = (i + 1) & (len(keys) - 1)
    keys[i] = key
    return 1


@njit(nogil=True, cache=True, inline="always")
def has_key(keys, key):
    i = _slot(keys, key)
    while keys[i] != 0:
        if keys[i] == key:
            return True
        i = (i + 1) & (len(keys) - 1)
    return False


@njit(nogil=True, cache=True, inline="always")
def _is_cut_of_bytes(values, p, start, stop, pairs, keys):
    pair = pairs[256 * np.int64(values[p - 1]) + np.int64(values[p])]
    if pair == 0:
        return True
    if pair & PAIR_PIECE:
        return False
    more_left, more_right = p - 2 >= start, p + 2 <= stop
    if more_left and has_key(keys, context_key(values, p, 2, 1)):
        return False
    if more_right and has_key(keys, context_key(values, p, 1, 2)):
        return False
    return not (more_left and more_right and has_key(keys, context_key(values, p, 2, 2)))


@njit(nogil=True, cache=True)
def find_cuts(values, p, limit, start, stop, pairs, keys, is_bytes, out):
    """Write the cuts after p to out, in order, until one is at or after limit or out is full; returns their number.

    start, stop: the chunk, p a boundary of symbols in it; stop counts as a cut.
    """
    n = 0
    if is_bytes:
        while n < len(out) and p < min(limit, stop):
            p += 1
            while p < stop and not _is_cut_of_bytes(values, p, start, stop, pairs, keys):
                p += 1
            out[n] = p
            n += 1
        return n
    x, length = code_point(values, p)
    p += length
    while p < stop:
        y, length = code_point(values, p)
        if x < 128 and y < 128:
            is_cut = pairs[256 * x + y] == 0
        else:
            is_cut = not has_key(keys, character_key(x, y))
        if is_cut:
            out[n] = p
            n += 1
            if p >= limit or n == len(out):
                return n
        x = y
        p += length
    out[n] = stop
    return n + 1
