"""UTF-8, and symbols: the characters or bytes that positions of a text are boundaries of."""

import numpy as np

from gpu_lattice.kernels.compiled import compiled

# Bytes that are checked before it is asked whether some are bad.
BLOCK = 1 << 12


@compiled(inline="always")
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


@compiled
def character_length(values, i, stop):
    """Bytes of the UTF-8 character at i; 0 if there is none (cut short, overlong, a surrogate, above U+10FFFF)."""
    first = np.int64(values[i])
    if first < 0x80:
        return 1
    if first < 0xC2 or first > 0xF4:
        return 0
    length = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if i + length > stop:
        return 0
    for k in range(1, length):
        if values[i + k] & 0xC0 != 0x80:
            return 0
    second = np.int64(values[i + 1])
    if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F):
        return 0
    if (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F):
        return 0
    return length


@compiled
def are_valid(values, offsets, i_start, i_stop):
    """Whether documents i_start..i_stop are UTF-8: all of them together are, and each begins where a character does."""
    start, stop = offsets[i_start], offsets[i_stop]
    for i_doc in range(i_start, i_stop):
        i = offsets[i_doc]
        if i < stop and values[i] & 0xC0 == 0x80:
            return False
    i = start
    while i < min(start + 3, stop):
        length = character_length(values, i, stop)
        if length == 0:
            return False
        i += length
    if not _are_joined(values[start:stop]):
        return False
    last = stop - 1
    while last > start and values[last] & 0xC0 == 0x80:
        last -= 1
    return start == stop or character_length(values, last, stop) == stop - last


@compiled
def _are_joined(text):
    """Whether all bytes but the first three are what those before them ask for. Without branches, for vectors."""
    for i in range(0, len(text) - 3, BLOCK):
        size = min(BLOCK, len(text) - 3 - i)
        first, second, third, fourth = text[i:], text[i + 1 :], text[i + 2 :], text[i + 3 :]
        # A number would be of eight bytes, and so would all that is joined to it.
        bad = False
        for k in range(size):
            before, byte = third[k], fourth[k]
            is_due = (first[k] >= 0xF0) | (second[k] >= 0xE0) | (before >= 0xC0)
            bad |= is_due != (byte & 0xC0 == 0x80)
            bad |= (byte == 0xC0) | (byte == 0xC1) | (byte > 0xF4)
            bad |= ((before == 0xE0) & (byte < 0xA0)) | ((before == 0xED) & (byte > 0x9F))
            bad |= ((before == 0xF0) & (byte < 0x90)) | ((before == 0xF4) & (byte > 0x8F))
        if bad:
            return False
    return True


@compiled
def encode_code_point(code_point, out):
    """Write a code point as UTF-8; returns its number of bytes."""
    if code_point < 0x80:
        out[0] = code_point
        return 1
    length = 2 if code_point < 0x800 else 3 if code_point < 0x10000 else 4
    for k in range(length - 1, 0, -1):
        out[k] = 0x80 | (code_point & 0x3F)
        code_point >>= 6
    out[0] = (0xF00 >> length) & 0xFF | code_point
    return length


@compiled(inline="always")
def symbol_length(values, e, is_bytes):
    """Bytes of the symbol that ends at e."""
    if is_bytes or values[e - 1] < 0x80:
        return 1
    length = 2
    while values[e - length] & 0xC0 == 0x80:
        length += 1
    return length


@compiled
def bytes_of_character(lead):
    """The length of a character, from its first byte."""
    return 1 + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0)


@compiled(inline="always")
def symbol_length_from(values, p, is_bytes):
    """Bytes of the symbol that begins at p."""
    return 1 if is_bytes else bytes_of_character(values[p])


@compiled(inline="always")
def is_boundary(values, p, stop, is_bytes):
    """Whether p, at most stop, is the end of a symbol."""
    return is_bytes or p == stop or values[p] & 0xC0 != 0x80
