"""SentencePiece's normalizer, compiled: the bytes that version 0.2.3 writes for the same model."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import Bound, compiled, readonly
from gpu_lattice.kernels.cpu.buffers import grown
from gpu_lattice.kernels.cpu.bulk.spans import TO_NEXT, Alignment
from gpu_lattice.kernels.cpu.machine import (
    HIGH_BITS,
    LITTLE_ENDIAN,
    bytes_equal,
    bytes_outside,
    load_eight,
    store_eight,
    trailing_zeros,
)
from gpu_lattice.kernels.cpu.passing import Held, opened
from gpu_lattice.kernels.cpu.utf8 import character_length, code_point
from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.normalizers.characters import (
    BEGINS,
    FOLLOWS,
    LOOK_UP,
    NOT_DIRECT,
    REPLACED,
    Characters,
    characters_of,
)
from gpu_lattice.normalizers.charsmap import CharsMap, identity, longest_match, zero_byte
from gpu_lattice.runtime.threads import byte_ranges, called, map_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.text_batch import TextBatch

MAX_USER_DEFINED_MATCHES = 64
SPACE = 0x20
ESCAPED_SPACE = "\u2581".encode()
# Bytes that may be written beyond the end of the output.
SLACK = 8
# The bits of a word that decide whether it begins with two characters of three bytes, and their values if so.
MARKS_OF_TWO, TWO_CHARACTERS = np.uint64(0xC0C0F0C0C0F0), np.uint64(0x8080E08080E0)
THREE_BYTES = np.uint64(24)
ZERO, THREE, LENGTH_SHIFT = np.uint64(0), np.uint64(3), np.uint64(56)
SHORTEST_OF_THREE = np.uint64(0x800)
NOT_COPIED = np.uint8(LOOK_UP | REPLACED | FOLLOWS)


class Symbols(NamedTuple):
    """The user-defined symbols, sorted: symbol i is values[offsets[i]:offsets[i + 1]].

    Those that begin with the byte b are first[b]..first[b + 1].

    values uint8, offsets int64 [num_symbols + 1], first int64 [257]
    """

    values: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    first: NDArray[np.int64]


class Rules(NamedTuple):
    """The input of the compiled functions. space: the bytes that are written for a space, as one word."""

    characters: Characters
    charsmap: CharsMap
    symbols: Symbols
    space: np.uint64
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
        space = ESCAPED_SPACE if escape_whitespaces else b" "
        self.name = name
        self.rules = Rules(
            characters_of(charsmap, symbols),
            charsmap,
            Symbols(
                np.frombuffer(b"".join(symbols), np.uint8).copy(),
                np.cumsum([0, *map(len, symbols)], dtype=np.int64),
                np.searchsorted(np.array([symbol[0] for symbol in symbols], np.int64), np.arange(257)).astype(np.int64),
            ),
            np.frombuffer(space.ljust(8, b"\0"), np.uint64)[0],
            dummy_prefix=add_dummy_prefix and not treat_whitespace_as_suffix,
            dummy_suffix=add_dummy_prefix and treat_whitespace_as_suffix,
            remove_extra=remove_extra_whitespaces,
            escape=escape_whitespaces,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "rules": self.rules}

    @cached_property
    def _bound(self) -> tuple[Bound, Held]:
        return Bound(normalize_range, only_reads=True), Held(self.rules)

    @cached_property
    def _align(self) -> Bound:
        return Bound(align, only_reads=True)

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        """Normalize a batch on `threads` threads; a null document comes out empty."""
        (run, rules), values, offsets = self._bound, texts.values, texts.offsets
        if threads == 1:  # there is nothing to divide, nor to join
            return NormalizedBatch(*called(run, rules, values, offsets, 0, len(offsets) - 1))
        ranges = byte_ranges(offsets)
        return _join(map_ranges(lambda start, stop: run(rules, values, offsets, start, stop), ranges, threads), threads)

    def aligned(self, texts: TextBatch) -> tuple[NormalizedBatch, Alignment]:
        """The same on one thread, and where its bytes come from: each from its unit, up to the next one."""
        values, offsets, starts, ends = self._align(self._bound[1], texts.values, texts.offsets)
        return NormalizedBatch(values, offsets), Alignment(TO_NEXT, readonly(starts), readonly(ends))

    def __repr__(self) -> str:
        rules = self.rules
        dummy = "prefix" if rules.dummy_prefix else "suffix" if rules.dummy_suffix else None
        return (
            f"SentencePieceNormalizer(name={self.name!r}, charsmap={rules.charsmap.units.nbytes} bytes, "
            f"user_defined={len(rules.symbols.offsets) - 1}, dummy_space={dummy!r}, "
            f"remove_extra_whitespaces={rules.remove_extra}, escape_whitespaces={rules.escape}; compiled)"
        )


def _join(parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]], threads: int) -> NormalizedBatch:
    if not parts:
        return NormalizedBatch(np.zeros(0, np.uint8), np.zeros(1, np.int64))
    if len(parts) == 1:
        return NormalizedBatch(*parts[0])
    starts = np.cumsum([0, *(len(values) for values, _ in parts)])
    joined = np.empty(starts[-1], np.uint8)

    def copy(i: int, _: int) -> None:
        joined[starts[i] : starts[i + 1]] = parts[i][0]

    map_ranges(copy, [(i, i + 1) for i in range(len(parts))], threads)
    offsets = [part[:-1] + start for (_, part), start in zip(parts, starts, strict=False)]
    return NormalizedBatch(joined, np.concatenate([*offsets, starts[-1:]]))


@compiled
def normalize_range(rules, values, offsets, i_start, i_stop):  # type: ignore[no-untyped-def]
    """Documents i_start..i_stop normalized, as (values uint8, offsets int64 [i_stop - i_start + 1])."""
    rules = opened(rules)
    # Room for most texts; more is made below if needed. The allocator unmaps a larger buffer after every call, and its
    # pages fault again in the next.
    out = np.empty(3 * (offsets[i_stop] - offsets[i_start]) // 2 + _room(0) * (i_stop - i_start), np.uint8)
    out_offsets = np.zeros(i_stop - i_start + 1, np.int64)
    i_doc = write_documents(rules, values, offsets, i_start, i_start, i_stop, out, out_offsets, None, None)
    while i_doc < i_stop:
        size = out_offsets[i_doc - i_start]
        out = grown(out, size, 2 * out.size + _room(offsets[i_doc + 1] - offsets[i_doc]))
        i_doc = write_documents(rules, values, offsets, i_start, i_doc, i_stop, out, out_offsets, None, None)
    return out[: out_offsets[-1]], out_offsets


@compiled
def align(rules, values, offsets):  # type: ignore[no-untyped-def]
    """All documents as `normalize_range` has them, and (starts, ends) of `write_documents`."""
    rules = opened(rules)
    n_docs = len(offsets) - 1
    out = np.empty(3 * (offsets[-1] - offsets[0]) // 2 + _room(0) * n_docs, np.uint8)
    starts, ends, out_offsets = np.empty(out.size, np.uint32), np.empty(n_docs, np.uint32), np.zeros_like(offsets)
    i_doc = write_documents(rules, values, offsets, 0, 0, n_docs, out, out_offsets, starts, ends)
    while i_doc < n_docs:
        size = out_offsets[i_doc]
        out = grown(out, size, 2 * out.size + _room(offsets[i_doc + 1] - offsets[i_doc]))
        starts = grown(starts, size, out.size)
        i_doc = write_documents(rules, values, offsets, 0, i_doc, n_docs, out, out_offsets, starts, ends)
    return out[: out_offsets[-1]], out_offsets, starts, ends


@compiled
def _room(num_bytes):  # type: ignore[no-untyped-def]
    """The most bytes of a document without replacements, with its dummy space: U+2581 and U+FFFD have three bytes."""
    return 3 * num_bytes + 6 + SLACK


@compiled
def write_documents(rules, values, offsets, i_start, i_doc, i_stop, out, out_offsets, starts, ends):  # type: ignore[no-untyped-def]  # fmt: skip
    """Write documents from i_doc on, and their ends, while `out` has room; returns the first that is not written.

    Nearly every byte is handled here, without a call that passes arrays: such a call costs more than a word, as Numba
    counts references to them. `settled` is the end of the last unit looked up in the map: what lies between it and i
    was copied.

    starts, ends: where each byte's unit begins, and each document's text ends, in the document (Alignment); or None
    """
    direct, kinds, short, stops = (
        rules.characters.direct,
        rules.characters.kinds,
        rules.characters.short,
        rules.characters.stops,
    )
    folds, by_words, remove_extra = rules.characters.folds, rules.characters.by_words, rules.remove_extra
    space, space_bytes = rules.space, 3 if rules.escape else 1
    last_word = values.size - 8
    size = out_offsets[i_doc - i_start]
    while i_doc < i_stop:
        start, stop, first = offsets[i_doc], offsets[i_doc + 1], size
        if out.size - size < _room(stop - start):
            break
        if rules.dummy_prefix and start < stop:
            store_eight(out, size, space)
            if starts is not None:
                starts[size] = starts[size + 1] = starts[size + 2] = _first_unit(rules, values, start, stop) - start
            size += space_bytes
        i = settled = start
        after_space = settled_after_space = remove_extra
        while i < stop:
            byte = np.int64(values[i])
            kind, length = np.int64(LOOK_UP), 1
            if byte < 0x80:
                if by_words:
                    i, size, after_space = _copy_words(
                        values, i, stop, direct, stops, folds, space, space_bytes, remove_extra, out, size, after_space,
                        starts, start,
                    )  # fmt: skip
                    byte = np.int64(values[i]) if i < stop else np.int64(0x80)
                    if byte >= 0x80:
                        continue
                becomes = np.int64(direct[byte])
                if becomes == SPACE:
                    if not after_space:
                        store_eight(out, size, space)
                        if starts is not None:
                            starts[size] = starts[size + 1] = starts[size + 2] = i - start
                        size += space_bytes
                    after_space = remove_extra
                    i += 1
                    continue
                if becomes != NOT_DIRECT:
                    out[size] = becomes
                    if starts is not None:
                        starts[size] = i - start
                    after_space = False
                    size += 1
                    i += 1
                    continue
            elif 0xC2 <= byte < 0xF0:
                begin = i
                i, size = _copy_pairs(values, i, min(last_word, stop - 6), kinds, short, out, size, starts, start)
                if i > begin:
                    after_space = False
                    continue
                second = np.int64(values[i + 1]) if i + 1 < stop else np.int64(0)
                third = np.int64(values[i + 2]) if i + 2 < stop else np.int64(0)
                character = (byte & 0x1F) << 6 | second & 0x3F
                length, is_whole = 2, second & 0xC0 == 0x80
                if byte >= 0xE0:
                    character = (character & 0x3FF) << 6 | third & 0x3F
                    length, is_whole = 3, is_whole and third & 0xC0 == 0x80 and character >= 0x800
                if is_whole:
                    kind = np.int64(kinds[character])
            if kind & FOLLOWS and settled < i:
                before = i - 1
                while values[before] & 0xC0 == 0x80:
                    before -= 1
                if kinds[code_point(values, before)[0]] & BEGINS:
                    size -= i - before
                    i = before
                    after_space = (
                        remove_extra and direct[values[i - 1]] == SPACE if settled < i else settled_after_space
                    )
                    kind = np.int64(LOOK_UP)
            before, unit = size, i
            if kind & LOOK_UP:
                i, size, after_space = _write_unit(
                    rules.charsmap, rules.symbols, values, i, stop, out, size, after_space, remove_extra, rules.escape
                )
                if size < 0:
                    return i_doc
                if starts is not None:
                    for k in range(before, size):
                        starts[k] = unit - start
                settled, settled_after_space = i, after_space
                continue
            if kind & REPLACED:
                store_eight(out, size, load_eight(short, 8 * character))
                size += np.int64(short[8 * character + 7])
            else:
                out[size], out[size + 1], out[size + 2] = byte, second, third
                size += length
            if starts is not None:
                for k in range(before, size):
                    starts[k] = unit - start
            after_space = False
            i += length
        kept = _drop_spaces(out, first, size, rules.escape) if remove_extra else size
        if starts is not None:
            ends[i_doc - i_start] = starts[kept] if kept < size else stop - start
        size = kept
        if rules.dummy_suffix and (size > first or not _is_blank(rules, values, start, stop)):
            store_eight(out, size, space)
            if starts is not None:
                starts[size] = starts[size + 1] = starts[size + 2] = ends[i_doc - i_start]
            size += space_bytes
        i_doc += 1
        out_offsets[i_doc - i_start] = size
    return i_doc


@compiled
def _copy_words(  # type: ignore[no-untyped-def]
    values, i, stop, direct, stops, folds, space, space_bytes, remove_extra, out, size, after_space, starts, begin
):  # fmt: skip
    """Copy printable ASCII and spaces from i on, at most to stop, eight bytes at a time; returns the state after them.

    The last seven of all values are left. starts: as in `write_documents`, counted from `begin`.
    """
    last = min(stop - 1, values.size - 8)
    is_plain = True
    while is_plain and i <= last:
        word = load_eight(values, i)
        num_copied = min(_plain_bytes(word, stops), stop - i)
        store_eight(out, size, _folded(word) if folds else word)
        if starts is not None:
            _store_starts(starts, size, i - begin, 1)
        after_space = after_space and num_copied == 0
        i += num_copied
        size += num_copied
        is_plain = num_copied == 8
        if not is_plain and i < stop and direct[values[i]] == SPACE:
            store_eight(out, size, space)
            if starts is not None:
                starts[size] = starts[size + 1] = starts[size + 2] = i - begin
            size += 0 if after_space else space_bytes
            after_space = remove_extra
            i += 1
            is_plain = True
    return i, size, after_space


@compiled
def _copy_pairs(values, i, last, kinds, short, out, size, starts, begin):  # type: ignore[no-untyped-def]
    """Copy or replace characters of three bytes from i on, two at a time, while neither needs a lookup in the map;
    returns where they end, and the new size.

    last: where the last two may begin. starts: as in `write_documents`, counted from `begin`.
    """
    more = LITTLE_ENDIAN
    while more and i <= last:
        word = load_eight(values, i)
        x, y = _code_point_of_three(word), _code_point_of_three(word >> THREE_BYTES)
        kind = kinds[x] | kinds[y]
        are_two = (word & MARKS_OF_TWO == TWO_CHARACTERS) & (min(x, y) >= SHORTEST_OF_THREE)
        store_eight(out, size, word)
        if starts is not None:
            _store_starts(starts, size, i - begin, 3)
        more = are_two & (kind & NOT_COPIED == 0)
        i += 6 * more
        size += 6 * more
        if (not more) & are_two & (kind & (LOOK_UP | FOLLOWS) == 0):
            # Which of the two is replaced is unpredictable, so there is no branch; a missing replacement is 0.
            first, second = load_eight(short, 8 * x), load_eight(short, 8 * y)
            store_eight(out, size, first if first > ZERO else word)
            if starts is not None:
                _store_starts(starts, size, i - begin, 8)
            size += np.int64(first >> LENGTH_SHIFT if first > ZERO else THREE)
            store_eight(out, size, second if second > ZERO else word >> THREE_BYTES)
            if starts is not None:
                _store_starts(starts, size, i + 3 - begin, 8)
            size += np.int64(second >> LENGTH_SHIFT if second > ZERO else THREE)
            i += 6
            more = True
    return i, size


@compiled(inline="always")
def _store_starts(starts, size, start, length):  # type: ignore[no-untyped-def]
    """The starts of eight bytes that are units of `length` bytes."""
    at, value = np.uint64(size), np.uint32(start)
    # Unsigned indices let the loop be vectorized.
    for k in range(np.uint64(8)):
        starts[at + k] = value + np.uint32(k // length * length)


@compiled
def _code_point_of_three(word):  # type: ignore[no-untyped-def]
    """The code point of a character of three bytes that a word begins with."""
    return (
        (word & np.uint64(0x0F)) << np.uint64(12)
        | (word & np.uint64(0x3F00)) >> np.uint64(2)
        | (word >> np.uint64(16) & np.uint64(0x3F))
    )


@compiled
def _plain_bytes(word, stops):  # type: ignore[no-untyped-def]
    """How many bytes of a word, from its first, are printable ASCII other than spaces and stops."""
    others = bytes_outside(word, 0x21, 0x7E)
    for i_stop in range(stops.size):
        others |= bytes_equal(word, stops[i_stop])
    return trailing_zeros(others) >> 3


@compiled
def _folded(word):  # type: ignore[no-untyped-def]
    """The word with a to z for A to Z."""
    return word | (bytes_outside(word, 0x41, 0x5A) ^ HIGH_BITS) >> np.uint64(2)


@compiled
def _write_unit(charsmap, symbols, values, i, stop, out, size, after_space, remove_extra, escape):  # type: ignore[no-untyped-def]
    """Write the unit at i to out[size:]; returns the state after it, with size -1 if there is too little room.

    A unit is a user-defined symbol, a replacement, a character, or U+FFFD for a byte outside characters. Only
    a replacement can need more room than `out` has.
    """
    byte = np.int64(values[i])
    if symbols.first[byte] < symbols.first[byte + 1]:
        length = _longest_user_defined(symbols, values, i, stop)
        if length > 0:
            size, after_space = _put(values, i, i + length, out, size, after_space, remove_extra, escape)
            return i + length, size, after_space
    length, at = longest_match(charsmap, values, i, stop)
    if length > 0:
        end = zero_byte(charsmap.replacements, at)
        if out.size - size < 3 * (end - at) + _room(stop - i):
            return i, np.int64(-1), False
        size, after_space = _put(charsmap.replacements, at, end, out, size, after_space, remove_extra, escape)
        return i + length, size, after_space
    if byte < 0x80:
        size, after_space = _put(values, i, i + 1, out, size, after_space, remove_extra, escape)
        return i + 1, size, after_space
    length = character_length(values, i, stop)
    if length == 0:
        out[size], out[size + 1], out[size + 2] = 0xEF, 0xBF, 0xBD
        return i + 1, size + 3, False
    for k in range(length):
        out[size + k] = values[i + k]
    return i + length, size + length, False


@compiled
def _first_unit(rules, values, i, stop):  # type: ignore[no-untyped-def]
    """Where values[i:stop] begins without the spaces that are left out there."""
    direct, kinds = rules.characters.direct, rules.characters.kinds
    while rules.remove_extra and i < stop and direct[values[i]] == SPACE:
        i += 1
    if not rules.remove_extra or i == stop:
        return i
    kind = np.int64(LOOK_UP)
    if values[i] < 0x80:
        is_alone = i + 1 == stop or values[i + 1] < 0x80
        kind = np.int64(LOOK_UP if direct[values[i]] == NOT_DIRECT else 0 if is_alone else kinds[values[i]] & BEGINS)
    elif 0xE1 <= values[i] < 0xED and character_length(values, i, stop) == 3:
        kind = np.int64(kinds[code_point(values, i)[0]])
    return _after_blanks(rules, values, i, stop) if kind & (LOOK_UP | BEGINS) else i


@compiled
def _is_blank(rules, values, i, stop):  # type: ignore[no-untyped-def]
    """Whether every unit of values[i:stop] is one space."""
    return _after_blanks(rules, values, i, stop) == stop


@compiled
def _after_blanks(rules, values, i, stop):  # type: ignore[no-untyped-def]
    """Where the first unit of values[i:stop] that is not one space begins."""
    replacements = rules.charsmap.replacements
    while i < stop:
        length = _longest_user_defined(rules.symbols, values, i, stop)
        is_space = length <= 1 and values[i] == SPACE
        if length == 0:
            length, at = longest_match(rules.charsmap, values, i, stop)
            if length > 0:
                is_space = replacements[at] == SPACE and replacements[at + 1] == 0
        if not is_space:
            break
        i += length if length > 0 else 1
    return i


@compiled
def _longest_user_defined(symbols, values, i, stop):  # type: ignore[no-untyped-def]
    """Length of the longest user-defined symbol at i, 0 for none; symbols low..high share the bytes read so far.

    Of more than 64 symbols that are prefixes of one another, SentencePiece sees the 64 shortest.
    """
    offsets = symbols.offsets
    low, high = symbols.first[values[i]], symbols.first[np.int64(values[i]) + 1]
    depth, length, num_matches = np.int64(1), np.int64(0), 0
    while low < high:
        if offsets[low + 1] - offsets[low] == depth:
            low += 1
            length = depth
            num_matches += 1
        if i + depth == stop or num_matches == MAX_USER_DEFINED_MATCHES:
            break
        byte = np.int64(values[i + depth])
        low = _first_symbol(symbols, low, high, depth, byte)
        high = _first_symbol(symbols, low, high, depth, byte + 1)
        depth += 1
    return length


@compiled
def _first_symbol(symbols, low, high, depth, byte):  # type: ignore[no-untyped-def]
    """The first of the sorted symbols low..high, all longer than depth, whose byte at depth is not below `byte`."""
    while low < high:
        middle = (low + high) // 2
        if symbols.values[symbols.offsets[middle] + depth] < byte:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _put(unit, start, stop, out, size, after_space, remove_extra, escape):  # type: ignore[no-untyped-def]
    """Write unit[start:stop] without its leading spaces if one precedes it; returns (size, whether it ends in a space).

    A unit of which nothing is left does not change the latter.
    """
    while after_space and start < stop and unit[start] == SPACE:
        start += 1
    if start == stop:
        return size, after_space
    for k in range(start, stop):
        if unit[k] == SPACE:
            size = _put_space(out, size, escape)
        else:
            out[size] = unit[k]
            size += 1
    return size, remove_extra and unit[stop - 1] == SPACE


@compiled(inline="always")
def _put_space(out, size, escape):  # type: ignore[no-untyped-def]
    if not escape:
        out[size] = 0x20
        return size + 1
    out[size], out[size + 1], out[size + 2] = 0xE2, 0x96, 0x81
    return size + 3


@compiled(inline="always")
def _drop_spaces(out, start, size, escape):  # type: ignore[no-untyped-def]
    """The size of out[start:size] without its trailing spaces as written: with `escape`, every U+2581 is one."""
    if not escape:
        while size > start and out[size - 1] == 0x20:
            size -= 1
        return size
    while size - start >= 3 and out[size - 3] == 0xE2 and out[size - 2] == 0x96 and out[size - 1] == 0x81:
        size -= 3
    return size
