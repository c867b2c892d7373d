"""What a character map does to single characters, so that most of a text needs no lookups in the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.machine import LITTLE_ENDIAN, ONES
from gpu_lattice.normalizers.charsmap import HAS_LEAF, LABEL, VALUE, CharsMap, child_offset, longest_match, zero_byte

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_CODE_POINTS = 1 << 16
SPACE = 0x20
NOT_DIRECT = 255

# Bits of a kind. A character without bits other than BEGINS is copied.
LOOK_UP, REPLACED, FOLLOWS, BEGINS = 1, 2, 4, 8
LONGEST_SHORT = 7
# The most children of the map's nodes to try; a sensible map needs a fiftieth of that.
MAX_TRIES = 1 << 25
MAX_STOPS = 8


class Characters(NamedTuple):
    """Tables over the characters that UTF-8 writes in one, two or three bytes.

    Few keys of a map are longer than one character. So a character is copied (or replaced) before the next one is seen,
    and if a character FOLLOWS, the one before it is looked up again if it BEGINS such a key.

    direct  uint8 [256], the ASCII byte that an ASCII byte becomes, NOT_DIRECT for all others. None that becomes a space
            begins a longer key.
    kinds   uint8 [65536], bits by code point. LOOK_UP: the map must be consulted. REPLACED: always becomes what `short`
            says. FOLLOWS: some key has it after the first character. BEGINS: some key continues after it.
    short   uint8 [8 * 65536], a replacement of up to seven bytes without spaces, and in the eighth its length
    stops   uint64 [up to 8], printable ASCII bytes, repeated eight times, that are not copied (or folded)
    folds   A to Z are copied as a to z
    by_words  all other printable ASCII bytes except the space are copied, so runs of them can be, eight at a time
    """

    direct: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    short: NDArray[np.uint8]
    stops: NDArray[np.uint64]
    folds: bool
    by_words: bool


def characters_of(charsmap: CharsMap, symbols: Sequence[bytes]) -> Characters:
    """The tables for a map, and for the (not empty) strings that are matched before the map."""
    kinds, short = np.zeros(NUM_CODE_POINTS, np.uint8), np.zeros(8 * NUM_CODE_POINTS, np.uint8)
    direct = np.full(256, NOT_DIRECT, np.uint8)
    for byte in range(128):
        length, at = longest_match(charsmap, np.array([byte], np.uint8), 0, 1)
        if length == 0:
            direct[byte] = byte
        elif charsmap.replacements[at] in range(1, 128) and charsmap.replacements[at + 1] == 0:
            direct[byte] = charsmap.replacements[at]
    kinds[:0x80] = kinds[0xD800:0xE000] = LOOK_UP
    if charsmap.units.size and not _classify(charsmap, direct, kinds, short):
        direct[:], kinds[:] = NOT_DIRECT, LOOK_UP
    for symbol in symbols:
        direct[symbol[0]] = NOT_DIRECT
        kinds[_first_characters(symbol)] |= LOOK_UP
    expected = np.arange(0x21, 0x7F, dtype=np.uint8)
    folds = bool(np.all(direct[0x41:0x5B] == np.arange(0x61, 0x7B)))
    if folds:
        expected[0x20:0x3A] += 0x20
    stops = 0x21 + np.flatnonzero(direct[0x21:0x7F] != expected).astype(np.uint64)
    by_words = LITTLE_ENDIAN and len(stops) <= MAX_STOPS
    return Characters(direct, kinds, short, stops * ONES, folds, by_words)


def _first_characters(symbol: bytes) -> slice:
    """The code points of two or three bytes whose characters a symbol may begin (symbols are any bytes)."""
    lead, size = symbol[0], 2 if symbol[0] < 0xE0 else 3
    if not 0xC2 <= lead < 0xF0:
        return slice(0, 0)
    try:
        first = ord(symbol[:size].decode())
        return slice(first, first + 1)
    except UnicodeDecodeError:
        shift = 6 * (size - 1)
        first = (lead & (0x1F if size == 2 else 0x0F)) << shift
        return slice(first, first + (1 << shift))


@compiled
def _classify(charsmap, direct, kinds, short):  # type: ignore[no-untyped-def]
    """Enter what the map does; False if it has too many branches."""
    units, replacements = charsmap.units, charsmap.replacements
    root = child_offset(np.int64(units[0]))
    tries = 0
    for code_point in range(NUM_CODE_POINTS):
        node, leaf, is_cut = _walk(units, root, code_point)
        if is_cut:
            kinds[code_point] |= LOOK_UP
        if node < 0:
            continue
        goes_on, is_odd, more_tries = _enter_followers(units, node, kinds, tries)
        tries = more_tries
        if tries > MAX_TRIES:
            return False
        if goes_on:
            kinds[code_point] |= BEGINS
        if code_point < 0x80:
            if is_odd or (goes_on and direct[code_point] == SPACE):
                direct[code_point] = NOT_DIRECT
        elif is_odd or (leaf >= 0 and (goes_on or not _enter_short(replacements, leaf, code_point, short))):
            kinds[code_point] |= LOOK_UP
        elif leaf >= 0:
            kinds[code_point] |= REPLACED
    return True


@compiled
def _walk(units, node, code_point):  # type: ignore[no-untyped-def]
    """(node after the character's bytes or -1, its replacement's offset or -1, whether a key ends within them)."""
    leaf = np.int64(-1)
    is_cut: Any = False
    length = 1 if code_point < 0x80 else 2 if code_point < 0x800 else 3
    for k in range(length):
        is_cut = leaf >= 0
        rest = code_point >> 6 * (length - 1 - k)
        byte = np.int64(rest if length == 1 else (0xF00 >> length) & 0xFF | rest if k == 0 else 0x80 | rest & 0x3F)
        node, leaf = _step(units, node, byte)
        if node < 0 or is_cut:
            break
    return node, leaf, is_cut


@compiled
def _step(units, node, byte):  # type: ignore[no-untyped-def]
    """(node after the byte or -1, offset of the replacement that ends there or -1)."""
    unit = np.int64(units[node ^ byte])
    if unit & LABEL != byte:
        return np.int64(-1), np.int64(-1)
    node ^= byte ^ child_offset(unit)
    return node, np.int64(units[node]) & VALUE if unit & HAS_LEAF else np.int64(-1)


@compiled
def _enter_followers(units, node, kinds, tries):  # type: ignore[no-untyped-def]
    """Mark the characters that continue from a node; returns (whether any does, whether something else does, tries).

    Something else is a byte of ASCII, a character of four bytes, or bytes that are not a complete character.
    """
    goes_on, is_odd = False, False
    for first in range(256):
        after_first, leaf = _step(units, node, first)
        if after_first < 0:
            continue
        goes_on = True
        if leaf >= 0 or not 0xC2 <= first < 0xF0:
            is_odd = True
            continue
        for second in range(256):
            after_second, leaf = _step(units, after_first, second)
            if after_second < 0:
                continue
            code_point = (first & 0x1F) << 6 | second & 0x3F
            if second & 0xC0 != 0x80:
                is_odd = True
            elif first < 0xE0:
                kinds[code_point] |= FOLLOWS
            elif leaf >= 0:
                is_odd = True
            else:
                tries += 256
                for third in range(256):
                    code_point = (first & 0x0F) << 12 | (second & 0x3F) << 6 | third & 0x3F
                    if _step(units, after_second, third)[0] < 0:
                        continue
                    if third & 0xC0 != 0x80 or code_point < 0x800:
                        is_odd = True
                    else:
                        kinds[code_point] |= FOLLOWS
        tries += 256
    return goes_on, is_odd, tries + 256


@compiled
def _enter_short(replacements, leaf, code_point, short):  # type: ignore[no-untyped-def]
    """Enter the replacement, if it is short, not empty and without spaces; returns whether it is."""
    length = zero_byte(replacements, leaf) - leaf
    if not 0 < length <= LONGEST_SHORT:
        return False
    for k in range(length):
        if replacements[leaf + k] == SPACE:
            return False
    for k in range(length):
        short[8 * code_point + k] = replacements[leaf + k]
    short[8 * code_point + 7] = length
    return True
