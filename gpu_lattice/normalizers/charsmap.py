"""SentencePiece's precompiled character map: a double array from byte strings to their replacements."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from gpu_lattice.kernels.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_UNITS = 256
MAX_MATCHES = 32
# At every byte of a text, as many bytes may be read as the longest key has.
LONGEST_KEY = 512
# Each byte of a text may become a replacement.
LONGEST_REPLACEMENT = 1024

# The bits of a unit. The sign bit marks a leaf; it is part of the label, so that no byte equals it.
LABEL = 0x800000FF
HAS_LEAF = 0x100
VALUE = 0x7FFFFFFF


class CharsMap(NamedTuple):
    """The tables of a character map; both are empty for the identity.

    units         uint32, a darts-clone double array; unit 0 is the root, and the child of unit i by byte b is
                  unit i ^ child_offset(units[i]) ^ b if that has the label b
    replacements  uint8, byte strings that end with a zero byte; a leaf's value is an offset into them

    Every step from a unit of a checked map stays within `units`, no walk has more than LONGEST_KEY of them, and every
    leaf's replacement is within `replacements`, UTF-8 and of LONGEST_REPLACEMENT bytes at most. Keys are any bytes.
    """

    units: NDArray[np.uint32]
    replacements: NDArray[np.uint8]


def identity() -> CharsMap:
    """The map that replaces nothing."""
    return CharsMap(np.zeros(0, np.uint32), np.zeros(0, np.uint8))


def parse_charsmap(blob: bytes, source: str) -> CharsMap:
    """Read and check a blob `<u32 little-endian size of the array in bytes><array><replacements>`.

    blob: the field precompiled_charsmap of a SentencePiece model or a tokenizer.json; b"" is the identity.
    source: its origin, for errors. Raises ValueError for a blob that is cut short or inconsistent.
    """
    if not blob:
        return identity()
    if len(blob) < 5:
        raise _broken(source, f"it has {len(blob)} bytes, too few for its header")
    (num_bytes,) = struct.unpack_from("<I", blob)
    if num_bytes >= len(blob) - 4:
        raise _broken(source, f"it declares an array of {num_bytes} bytes, of which {len(blob) - 4} are left")
    if num_bytes == 0 or num_bytes % (4 * BLOCK_UNITS):
        raise _broken(source, f"it declares an array of {num_bytes} bytes, not a multiple of {4 * BLOCK_UNITS}")
    if blob[-1] != 0:
        raise _broken(source, "its last replacement does not end with a zero byte")
    units = np.frombuffer(blob, "<u4", num_bytes // 4, 4).astype(np.uint32)
    replacements = np.frombuffer(blob, np.uint8, offset=4 + num_bytes).copy()
    _check(units, replacements, source)
    return CharsMap(units, replacements)


def _check(units: NDArray[np.uint32], replacements: NDArray[np.uint8], source: str) -> None:
    wide = units.astype(np.int64)
    is_leaf = wide > VALUE
    has_leaf = wide & HAS_LEAF != 0
    children = np.arange(len(wide)) ^ child_offset(wide)
    if wide[0] & LABEL or has_leaf[0] or children[0] == 0:
        raise _broken(source, "its array has no valid root")
    if np.any(children[~is_leaf] | (BLOCK_UNITS - 1) >= len(wide)):
        raise _broken(source, "a unit points outside its array")
    if not np.all(is_leaf[children[has_leaf & ~is_leaf]]):
        raise _broken(source, "a unit's leaf is missing")
    starts = wide[is_leaf] & VALUE
    if np.any(starts >= len(replacements)):
        raise _broken(source, "a leaf points outside its replacements")
    try:
        replacements.tobytes().decode()
    except UnicodeDecodeError as error:
        raise _broken(source, f"its replacements are not UTF-8 at byte {error.start}") from None
    if np.any(replacements[starts] & 0xC0 == 0x80):
        raise _broken(source, "a leaf points into a character of its replacements")
    if longest_replacement(replacements) > LONGEST_REPLACEMENT:
        raise _broken(source, f"it has replacements of more than {LONGEST_REPLACEMENT} bytes")
    if not _are_keys_short(wide, children, ~is_leaf):
        raise _broken(source, f"it has keys of more than {LONGEST_KEY} bytes, or without an end")


def longest_replacement(replacements: NDArray[np.uint8]) -> int:
    """The most bytes between two zero bytes."""
    return int(np.max(np.diff(np.flatnonzero(replacements == 0), prepend=-1), initial=1)) - 1


def _are_keys_short(wide: NDArray[np.int64], children: NDArray[np.int64], has_label: NDArray[np.bool_]) -> bool:
    """Whether no walk from the root takes more than LONGEST_KEY steps; a unit is a step from one node only."""
    sources = np.arange(len(wide)) ^ (wide & (BLOCK_UNITS - 1))
    is_node = np.zeros(len(wide), np.bool_)
    is_node[children[0]] = True
    for _ in range(LONGEST_KEY + 1):
        reached = children[is_node[sources] & has_label]
        if len(reached) == 0:
            return True
        is_node[:] = False
        is_node[reached] = True
    return False


def _broken(source: str, what: str) -> ValueError:
    return ValueError(f"{source}: the precompiled character map is broken: {what}; get the file again")


@register_jitable
def child_offset(unit: Any) -> Any:
    """The number that, by exclusive or, takes a unit's index to the block of its children; unit is an int64."""
    return (unit >> 10) << ((unit & 0x200) >> 6)


@compiled
def zero_byte(replacements, start):  # type: ignore[no-untyped-def]
    """Where the replacement that begins at start ends."""
    stop = start
    while replacements[stop] != 0:
        stop += 1
    return stop


@compiled
def longest_match(tables, values, start, stop):  # type: ignore[no-untyped-def]
    """(length, offset of the replacement) of the longest key that values[start:stop] begins with, (0, -1) for none.

    Of more than 32 keys that are prefixes of one another SentencePiece sees the 32 shortest.
    """
    units = tables.units
    length, replacement, num_matches = 0, np.int64(-1), 0
    node = child_offset(np.int64(units[0])) if units.size else 0
    for i in range(start, stop if units.size else start):
        byte = np.int64(values[i])
        unit = np.int64(units[node ^ byte])
        if unit & LABEL != byte or num_matches == MAX_MATCHES:
            break
        node ^= byte ^ child_offset(unit)
        if unit & HAS_LEAF:
            length, replacement = i + 1 - start, np.int64(units[node]) & VALUE
            num_matches += 1
    return length, replacement


@compiled
def shortest_match(tables, values, start, stop):  # type: ignore[no-untyped-def]
    """(length, offset of the replacement) of the shortest key that values[start:stop] begins with, (0, -1) for none.

    This is the rule of Hugging Face's Precompiled, for which a zero byte ends the text.
    """
    units = tables.units
    node = child_offset(np.int64(units[0])) if units.size else 0
    for i in range(start, stop if units.size else start):
        byte = np.int64(values[i])
        unit = np.int64(units[node ^ byte])
        if byte == 0 or unit & LABEL != byte:
            break
        node ^= byte ^ child_offset(unit)
        if unit & HAS_LEAF:
            return i + 1 - start, np.int64(units[node]) & VALUE
    return 0, -1
