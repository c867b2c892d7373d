"""SentencePiece's normalizer, compiled: the same bytes as version 0.2.3 writes for the same model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.normalizers.charsmap import (
    HAS_LEAF,
    LABEL,
    MAX_MATCHES,
    VALUE,
    CharsMap,
    child_offset,
    identity,
    longest_match,
    zero_byte,
)
from gpu_lattice.parallel import byte_ranges, map_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.text_batch import TextBatch

MAX_USER_DEFINED_MATCHES = 64
NOT_DIRECT = 255


class Tables(NamedTuple):
    """What the compiled functions read.

    charsmap      the character map
    direct        uint8 [256], the ASCII byte that an ASCII byte becomes when no byte above 127 follows it; NOT_DIRECT
                  where the byte alone does not decide
    user_values   uint8, the user-defined symbols, sorted, one after another
    user_offsets  int64 [num_symbols + 1] into user_values
    user_first    int64 [257], symbols user_first[b]..user_first[b + 1] begin with the byte b
    """

    charsmap: CharsMap
    direct: NDArray[np.uint8]
    user_values: NDArray[np.uint8]
    user_offsets: NDArray[np.int64]
    user_first: NDArray[np.int64]
    dummy_prefix: bool
    dummy_suffix: bool
    remove_extra: bool
    escape: bool


class SentencePieceNormalizer:
    """The normalizer of a SentencePiece model, for bytes of any content.

    charsmap: the character map, None for the identity.
    user_defined: symbols that are copied as they are wherever they occur, the longest first.
    The flags are those of normalizer_spec and trainer_spec; name is only shown.
    Raises ValueError for an empty user-defined symbol. Source: google/sentencepiece 0.2.3, normalizer.cc.

    Example:
        >>> normalize = SentencePieceNormalizer()
        >>> normalize(TextBatch.from_texts(" a  b ")).values.tobytes().decode()
        '▁a▁b'
    """

    def __init__(
        self,
        charsmap: CharsMap | None = None,
        user_defined: Iterable[bytes] = (),
        *,
        add_dummy_prefix: bool = True,
        remove_extra_whitespaces: bool = True,
        escape_whitespaces: bool = True,
        treat_whitespace_as_suffix: bool = False,
        name: str = "",
    ) -> None:
        charsmap = identity() if charsmap is None else charsmap
        symbols = sorted(set(user_defined))
        if b"" in symbols:
            raise ValueError("a user-defined symbol is empty; leave it out")
        self.name = name
        self.tables = Tables(
            charsmap,
            _direct_bytes(charsmap, symbols),
            np.frombuffer(b"".join(symbols), np.uint8).copy(),
            np.cumsum([0, *map(len, symbols)], dtype=np.int64),
            np.searchsorted(np.array([symbol[0] for symbol in symbols], np.int64), np.arange(257)).astype(np.int64),
            dummy_prefix=add_dummy_prefix and not treat_whitespace_as_suffix,
            dummy_suffix=add_dummy_prefix and treat_whitespace_as_suffix,
            remove_extra=remove_extra_whitespaces,
            escape=escape_whitespaces,
        )

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        """Normalize a batch on `threads` threads; a null document comes out empty."""
        # Read-only or not are two types for Numba, and the second would be compiled anew.
        values, offsets = texts.values.view(), texts.offsets.view()
        values.flags.writeable = offsets.flags.writeable = False

        def work(start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
            normalized: tuple[NDArray[np.uint8], NDArray[np.int64]]
            normalized = normalize_range(self.tables, values, offsets, start, stop)
            return normalized

        return _join(map_ranges(work, byte_ranges(offsets), threads))

    def __repr__(self) -> str:
        tables = self.tables
        dummy = "prefix" if tables.dummy_prefix else "suffix" if tables.dummy_suffix else None
        return (
            f"SentencePieceNormalizer(name={self.name!r}, charsmap={tables.charsmap.units.nbytes} bytes, "
            f"user_defined={len(tables.user_offsets) - 1}, dummy_space={dummy!r}, "
            f"remove_extra_whitespaces={tables.remove_extra}, escape_whitespaces={tables.escape}; compiled)"
        )


def _direct_bytes(charsmap: CharsMap, symbols: list[bytes]) -> NDArray[np.uint8]:
    """The table Tables.direct, found by asking the map about every pair of ASCII bytes."""
    direct = np.full(256, NOT_DIRECT, np.uint8)
    symbol_starts = {symbol[0] for symbol in symbols}
    for byte in range(128):
        if byte in symbol_starts or _steps_to_ascii(charsmap.units, byte):
            continue
        length, at = longest_match(charsmap, np.array([byte], np.uint8), 0, 1)
        if length == 0:
            direct[byte] = byte
        elif charsmap.replacements[at] in range(1, 128) and charsmap.replacements[at + 1] == 0:
            direct[byte] = charsmap.replacements[at]
    return direct


def _steps_to_ascii(units: NDArray[np.uint32], byte: int) -> bool:
    """Whether the array has a step by `byte` from its root, and from there a step by some ASCII byte."""
    if len(units) == 0:
        return False
    node = child_offset(int(units[0])) ^ byte
    unit = int(units[node])
    if unit & LABEL != byte:
        return False
    next_bytes = np.arange(128)
    return bool(np.any(units[node ^ child_offset(unit) ^ next_bytes] & LABEL == next_bytes))


def _join(parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> NormalizedBatch:
    if not parts:
        return NormalizedBatch(np.zeros(0, np.uint8), np.zeros(1, np.int64))
    if len(parts) == 1:
        return NormalizedBatch(*parts[0])
    starts = np.cumsum([0, *(len(values) for values, _ in parts)])
    offsets = [part[:-1] + start for (_, part), start in zip(parts, starts, strict=False)]
    return NormalizedBatch(np.concatenate([values for values, _ in parts]), np.concatenate([*offsets, starts[-1:]]))


@njit(nogil=True, cache=True)
def normalize_range(tables, values, offsets, i_start, i_stop):  # type: ignore[no-untyped-def]
    """Documents i_start..i_stop normalized, as (values uint8, offsets int64 [i_stop - i_start + 1])."""
    out = np.empty(_room(offsets[i_stop] - offsets[i_start]) + 6 * (i_stop - i_start), np.uint8)
    out_offsets = np.empty(i_stop - i_start + 1, np.int64)
    out_offsets[0] = 0
    size = 0
    for i_doc in range(i_start, i_stop):
        i, stop, out_start = offsets[i_doc], offsets[i_doc + 1], size
        out = _grow(out, size, _room(stop - i))
        if tables.dummy_prefix and i < stop:
            size = _put_space(out, size, tables.escape)
        after_space = tables.remove_extra
        while i < stop:
            i, size, after_space, room = _write_units(tables, values, i, stop, out, size, after_space)
            out = _grow(out, size, room)
        if tables.remove_extra:
            size = _drop_spaces(out, out_start, size, tables.escape)
        if tables.dummy_suffix and (size > out_start or not _is_blank(tables, values, offsets[i_doc], stop)):
            size = _put_space(out, size, tables.escape)
        out_offsets[i_doc - i_start + 1] = size
    return out[:size], out_offsets


@njit(nogil=True, cache=True)
def _room(num_bytes):  # type: ignore[no-untyped-def]
    """The most that bytes without replacements become, dummy space included: U+2581 and U+FFFD have three bytes."""
    return 3 * num_bytes + 6


@njit(nogil=True, cache=True, inline="always")
def _grow(out, size, room):  # type: ignore[no-untyped-def]
    """`out` with at least `room` bytes after `size`."""
    if out.size - size >= room:
        return out
    larger = np.empty(2 * size + room, np.uint8)
    # A loop, because a slice takes Numba seconds to compile.
    for k in range(size):
        larger[k] = out[k]
    return larger


@njit(nogil=True, cache=True, inline="always")
def _write_units(tables, values, i, stop, out, size, after_space):  # type: ignore[no-untyped-def]
    """Write the units of values[i:stop] to out[size:]; returns the state reached and the room that `out` must have.

    A unit is a user-defined symbol, a replacement, a character, or U+FFFD for a byte that is of none. Only a
    replacement can need more room than `out` was given, and ends the call early.
    The character map is read here and not by longest_match: a call that passes arrays costs more than a unit, as
    Numba counts references to them.
    """
    direct, units, replacements = tables.direct, tables.charsmap.units, tables.charsmap.replacements
    user_first, remove_extra = tables.user_first, tables.remove_extra
    space, space_bytes = (0xE2, 3) if tables.escape else (0x20, 1)
    root = child_offset(np.int64(units[0])) if units.size else 0
    while i < stop:
        byte = np.int64(values[i])
        ascii_byte = np.int64(direct[byte])
        if ascii_byte == NOT_DIRECT or (i + 1 < stop and values[i + 1] > 127):
            if user_first[byte] < user_first[byte + 1]:
                length = _longest_user_defined(tables, values, i, stop)
                if length > 0:
                    size, after_space = _put(tables, out, size, values, i, i + length, after_space)
                    i += length
                    continue
            length, at, num_matches, node = 0, np.int64(0), 0, root
            for k in range(i, stop if units.size else i):
                key_byte = np.int64(values[k])
                unit = np.int64(units[node ^ key_byte])
                if unit & LABEL != key_byte or num_matches == MAX_MATCHES:
                    break
                node ^= key_byte ^ child_offset(unit)
                if unit & HAS_LEAF:
                    length, at = k + 1 - i, np.int64(units[node]) & VALUE
                    num_matches += 1
            if length > 0:
                end = zero_byte(replacements, at)
                room = 3 * (end - at) + _room(stop - i)
                if out.size - size < room:
                    return i, size, after_space, room
                size, after_space = _put(tables, out, size, replacements, at, end, after_space)
                i += length
                continue
            if byte > 127:
                second = np.int64(values[i + 1]) if i + 1 < stop else 0
                third = np.int64(values[i + 2]) if i + 2 < stop else 0
                fourth = np.int64(values[i + 3]) if i + 3 < stop else 0
                length = _character_length(byte, second, third, fourth)
                if length > 0:
                    out[size], out[size + 1], out[size + 2], out[size + 3] = byte, second, third, fourth
                    size += length
                else:
                    out[size], out[size + 1], out[size + 2] = 0xEF, 0xBF, 0xBD
                    size += 3
                i += length if length > 0 else 1
                after_space = False
                continue
            ascii_byte = byte
        i += 1
        if ascii_byte != 0x20:
            out[size] = ascii_byte
            size += 1
            after_space = False
        elif not after_space:
            out[size], out[size + 1], out[size + 2] = space, 0x96, 0x81
            size += space_bytes
            after_space = remove_extra
    return i, size, after_space, 0


@njit(nogil=True, cache=True)
def _is_blank(tables, values, i, stop):  # type: ignore[no-untyped-def]
    """Whether every unit of values[i:stop] is one space."""
    replacements = tables.charsmap.replacements
    while i < stop:
        length = _longest_user_defined(tables, values, i, stop)
        is_space = length <= 1 and values[i] == 0x20
        if length == 0:
            length, at = longest_match(tables.charsmap, values, i, stop)
            if length > 0:
                is_space = replacements[at] == 0x20 and replacements[at + 1] == 0
        if not is_space:
            return False
        i += length if length > 0 else 1
    return True


@njit(nogil=True, cache=True)
def _longest_user_defined(tables, values, i, stop):  # type: ignore[no-untyped-def]
    """Length of the longest user-defined symbol at i, 0 for none; symbols low..high share the bytes read so far.

    Of more than 64 symbols that are prefixes of one another SentencePiece sees the 64 shortest.
    """
    offsets = tables.user_offsets
    low, high = tables.user_first[values[i]], tables.user_first[np.int64(values[i]) + 1]
    depth, length, num_matches = np.int64(1), np.int64(0), 0
    while low < high:
        if offsets[low + 1] - offsets[low] == depth:
            low += 1
            length = depth
            num_matches += 1
        if i + depth == stop or num_matches == MAX_USER_DEFINED_MATCHES:
            break
        byte = np.int64(values[i + depth])
        low = _first_symbol(tables, low, high, depth, byte)
        high = _first_symbol(tables, low, high, depth, byte + 1)
        depth += 1
    return length


@njit(nogil=True, cache=True)
def _first_symbol(tables, low, high, depth, byte):  # type: ignore[no-untyped-def]
    """The first of the sorted symbols low..high, all longer than depth, whose byte at depth is not below `byte`."""
    while low < high:
        middle = (low + high) // 2
        if tables.user_values[tables.user_offsets[middle] + depth] < byte:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def _character_length(first, second, third, fourth):  # type: ignore[no-untyped-def]
    """Bytes of the UTF-8 character, 0 if there is none (cut short, overlong, a surrogate, above U+10FFFF)."""
    if second & 0xC0 != 0x80:
        return 0
    if 0xC2 <= first <= 0xDF:
        return 2
    if third & 0xC0 != 0x80:
        return 0
    if 0xE0 <= first <= 0xEF:
        return 0 if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F) else 3
    if fourth & 0xC0 != 0x80 or first < 0xF0 or first > 0xF4:
        return 0
    return 0 if (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F) else 4


@njit(nogil=True, cache=True)
def _put(tables, out, size, unit, start, stop, after_space):  # type: ignore[no-untyped-def]
    """Write unit[start:stop] without its leading spaces if a space went before; returns (size, whether one did now).

    A unit of which nothing is left says nothing about what went before.
    """
    while after_space and start < stop and unit[start] == 0x20:
        start += 1
    if start == stop:
        return size, after_space
    for k in range(start, stop):
        if unit[k] == 0x20:
            size = _put_space(out, size, tables.escape)
        else:
            out[size] = unit[k]
            size += 1
    return size, tables.remove_extra and unit[stop - 1] == 0x20


@njit(nogil=True, cache=True, inline="always")
def _put_space(out, size, escape):  # type: ignore[no-untyped-def]
    if not escape:
        out[size] = 0x20
        return size + 1
    out[size], out[size + 1], out[size + 2] = 0xE2, 0x96, 0x81
    return size + 3


@njit(nogil=True, cache=True, inline="always")
def _drop_spaces(out, start, size, escape):  # type: ignore[no-untyped-def]
    """The size of out[start:size] without its trailing spaces as written: with `escape`, every U+2581 is one."""
    if not escape:
        while size > start and out[size - 1] == 0x20:
            size -= 1
        return size
    while size - start >= 3 and out[size - 3] == 0xE2 and out[size - 2] == 0x96 and out[size - 1] == 0x81:
        size -= 3
    return size
