"""Static cuts: positions that no arc can span, so that the text on either side is sampled on its own.

Reads the tables that kernels/tables/cuts.py builds and at most two bytes, or one character, on either side of a
position, all within one chunk: chunk boundaries are cuts of their own.

Whether a position is a cut cannot be foreseen, so nothing here branches on it: each position is written, and the count
goes up only if it is to stay. In a text of characters one sweep judges where a character begins. In a text of bytes the
first sweep keeps what may be a cut, judged by the two bytes next to it, and further ones that whose context no piece
has.

Where a cut is known, it costs little to say what single character it begins: most of what lies between cuts is one, in
Chinese and Japanese.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.layout import DIRECT, NOWHERE
from gpu_lattice.kernels.cpu.machine import GOLDEN, N_LANES, ONE, TWO, load_word, starts_of_characters, trailing_zeros
from gpu_lattice.kernels.cpu.utf8 import bytes_of_character

N_PAIRS = 1 << 16
# Not a key: no context has such sizes.
NO_KEY = np.uint64((1 << 64) - 1)
THREE, SEVEN = np.uint64(3), np.uint64(7)

# Without relation to GOLDEN, so that keys of one bucket, whose hashes are close, may lie far apart.
MIXER = np.uint64(0xBF58476D1CE4E5B9)

# Characters that differ only in their last byte have numbers in a row. Where those begin that no piece has.
BLOCK, NO_CHARACTER = 64, 128
N_PAGES = N_PAIRS + (1 << 15)
LOW_BITS = np.uint64(BLOCK - 1)
# A character's row, beneath its id.
ROW, ID_SHIFT = np.uint64(0xFFFFFFFF), 32


@compiled
def bytes_from(values, p):
    """At least four bytes from p, the first one lowest, as a uint64; 0 stands for what lies beyond the end."""
    return load_word(values, p, p + 8)


@compiled
def key_of_bytes(word, left, right):
    """The key of the first `left` + `right` bytes of a word, of which `left` come before the position."""
    n_bits = np.uint64(8 * (left + right))
    return word & ((np.uint64(1) << n_bits) - np.uint64(1)) | np.uint64(left << 2 | right) << np.uint64(32)


@compiled
def index_shift(n):
    """The right shift that makes of a 64-bit hash an index below n, a power of two from 2 on."""
    return np.uint64(64 - trailing_zeros(np.uint64(n)))


@compiled
def shifts(n_keys):
    """Of a key's hash, for a table of n_keys slots: to its bit in the filter, to its bucket, and to its slot.

    The slots do not fit in the second cache, the filter of four bits for each does: most keys that are looked for are
    not there.
    """
    return index_shift(4 * n_keys), index_shift(n_keys >> 2), index_shift(n_keys)


@compiled
def slot_of(key, pilot, shift):
    """Where a key lies, by the pilot of its bucket; the bucket is key * GOLDEN, shifted."""
    return key * ((np.uint64(2) * pilot + np.uint64(1)) * MIXER) >> shift


@compiled
def find_cuts(values, limit, start, stop, pairs, keys, pages, characters, joined, is_bytes, cuts, n, places):
    """Append the cuts after p = cuts[n - 1] to cuts[n:], in order, until one is at or after limit or `cuts` is full;
    returns their end.

    places[i] becomes the place of what lies from cuts[i] to the next cut, where that is a character which is a piece,
    else NOWHERE. start, stop: the chunk, p a boundary of symbols in it; stop counts as a cut. pairs, keys, pages,
    characters, joined: of a CutTable. What follows the cuts is overwritten.
    """
    # With one way out Numba drops the reference counts of the arrays, which would cost more than a short chunk. A slice
    # for `cuts` would have one of its own.
    first, p = n, cuts[n - 1]
    row, places[n - 1] = np.uint64(0), NOWHERE
    if not is_bytes:
        character = characters[TWO * character_at(bytes_from(values, p), pages)]
        row, places[n - 1] = np.uint64(character) & ROW, character >> ID_SHIFT | DIRECT
    more = n < len(cuts)
    while more:
        low = p + 1
        p = min(p + len(cuts) - n, max(limit, low), stop - 1)
        if is_bytes:
            last = _sweep_pairs(values, low, p + 1, pairs, cuts, n)
            last = _sweep_bytes(values, start, stop, 2, 1, pairs, keys, cuts, n, last)
            last = _sweep_bytes(values, start, stop, 1, 2, pairs, keys, cuts, n, last)
            last = _sweep_bytes(values, start, stop, 2, 2, pairs, keys, cuts, n, last)
            for i in range(n, last):
                places[i] = NOWHERE
            n = last
        else:
            n, row = _sweep_characters(values, low, p + 1, row, pages, characters, joined, cuts, n, places)
        more = n < len(cuts) and (n == first or cuts[n - 1] < limit)
        if more and p == stop - 1:
            cuts[n] = stop
            n += 1
            more = False
    return n


@compiled
def character_at(word, pages):
    """The number of the character that a word begins with; of NO_CHARACTER.. for one, or for other bytes, that no piece
    has.

    All its bytes but the last of three or four tell where in pages it is said: of a character of up to two bytes its
    number, of others the number of the first of the BLOCK that have these bytes.
    """
    lead = word & np.uint64(0xFF)
    at, low = word & np.uint64(0xFFFF), word >> np.uint64(16) & LOW_BITS
    if lead < np.uint64(0x80):
        at, low = lead, np.uint64(0)
    elif lead < np.uint64(0xE0):
        low = np.uint64(0)
    elif lead >= np.uint64(0xF0):
        at, low = page_of_four(word), word >> np.uint64(24) & LOW_BITS
    # Read at one place, for Numba would count references for each of several.
    return np.uint64(pages[at]) + low


@compiled
def page_of_four(word):
    """Where in pages a character of four bytes is, whatever its bytes are."""
    middle = word >> np.uint64(16) & LOW_BITS | (word >> np.uint64(8) & LOW_BITS) << np.uint64(6)
    return np.uint64(N_PAIRS) + (middle | (word & np.uint64(7)) << np.uint64(12))


@compiled
def enter_ids(values, offsets, ids, pages, characters):
    """Enter ids[i] for each string values[offsets[i]:offsets[i + 1]] that is one character."""
    for i in range(len(ids)):
        start, stop = offsets[i], offsets[i + 1]
        if stop - start == bytes_of_character(values[start]):
            at = TWO * character_at(bytes_from(values, start), pages)
            characters[at] = ids[i] << ID_SHIFT | characters[at] & np.int64(ROW)


@compiled(inline="always")
def _sweep_characters(values, low, high, row, pages, characters, joined, cuts, n, places):
    """Append the cuts among low..high to cuts[n:], with their places; returns where they end, and the row of the
    character that begins last.

    row: of the character that begins before low.
    """
    # Inlined, for a call to it would have `find_cuts` count references.
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
            at = TWO * character_at(bytes_from(values, q), pages)
            character, column = characters[at], np.uint64(characters[at + ONE])
            is_cut = np.uint64(np.uint64(joined[row + column]) != column)
            row = np.uint64(character) & ROW
            cuts[n] = q
            n += is_cut
            # Of all ones, and so NOWHERE, where it goes on; so is the id of a character that is no piece.
            places[n - ONE] = character >> ID_SHIFT | np.int64(is_cut - ONE) | DIRECT
        p += N_LANES
    return np.int64(n), row


@compiled(forceinline=True)
def _sweep_pairs(values, low, high, pairs, out, n):
    """Append those of low..high that may be cuts, in a text of bytes, to out[n:]; returns where they end."""
    n = np.uint64(n)
    for p in range(np.uint64(low), np.uint64(high)):
        out[n] = p
        n += np.uint64(pairs[np.uint64(values[p - ONE]) << np.uint64(8) | np.uint64(values[p])])
    return np.int64(n)


@compiled(forceinline=True)
def _sweep_bytes(values, start, stop, left, right, pairs, keys, out, first, last):
    """Keep those of out[first:last] that no piece spans with these `left` and `right` bytes; returns where they end."""
    filter_shift, bucket_shift, slot_shift = shifts(len(keys))
    pilots = np.uint64(N_PAIRS + (len(keys) >> 1))
    n = np.uint64(first)
    for i in range(np.uint64(first), np.uint64(last)):
        p = out[i]
        is_outside = (p - left < start) | (p + right > stop)
        key = key_of_bytes(bytes_from(values, max(p - left, start)), left, right)
        hashed = key * GOLDEN
        bit = hashed >> filter_shift
        # Of all ones where the key may be there; else the first pilot and slot are read, which are in the cache.
        mask = np.uint64(0) - (np.uint64(pairs[np.uint64(N_PAIRS) + (bit >> THREE)]) >> (bit & SEVEN) & ONE)
        pilot = np.uint64(pairs[pilots + (hashed >> bucket_shift & mask)])
        out[n] = p
        n += np.uint64((keys[slot_of(key, pilot, slot_shift) & mask] != key) | is_outside)
    return np.int64(n)
