"""Where the bytes come from that the rules in hf_text.py write, as tokenizers has it.

There, every character of a normalized text is aligned with one character of the original, which it has from the
character that it replaces, or stands before; what is inserted shares the alignment of its neighbour. So a step is
described by its sources: uint32, for each byte that it writes, the byte of the original at which that character
begins. Each function follows the one of its name in hf_text.py. Source: tokenizers 0.23.3, tokenizer/normalizer.rs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpu_lattice.kernels.compiled import as_written, compiled
from gpu_lattice.kernels.cpu.machine import LITTLE_ENDIAN, ONES, bytes_equal, load_eight, trailing_zeros
from gpu_lattice.kernels.cpu.utf8 import bytes_of_character, character_length, code_point
from gpu_lattice.normalizers.charsmap import shortest_match
from gpu_lattice.normalizers.graphemes import cluster_end
from gpu_lattice.normalizers.hf_text import (
    ALWAYS,
    FIRST,
    HAS_KEY,
    LONGEST_CLUSTER,
    NOT_DIRECT,
    SPACE,
    SPACES,
    copy_plain,
    stands_at,
    strip_left,
    word_end,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.normalizers.hf_text import Parts


@compiled
def own_sources(values):  # type: ignore[no-untyped-def]
    """Where the character begins that each byte of valid text is in."""
    sources = np.empty(len(values), np.uint32)
    start = np.uint32(0)
    for i in range(len(values)):
        if values[i] & 0xC0 != 0x80:
            start = np.uint32(i)
        sources[i] = start
    return sources


@compiled
def repaired_from(values, offsets):  # type: ignore[no-untyped-def]
    """int64 [bytes of repaired text + 1]: where in the documents the bytes come from that `repair` writes of them."""
    out = np.empty(3 * (offsets[-1] - offsets[0]) + 1, np.int64)
    size = 0
    for i_doc in range(len(offsets) - 1):
        i, stop = offsets[i_doc], offsets[i_doc + 1]
        while i < stop:
            length = character_length(values, i, stop)
            for k in range(length if length > 0 else 3):
                out[size] = i + (k if length > 0 else 0)
                size += 1
            i += max(length, 1)
    out[size] = offsets[-1]
    return out[: size + 1].copy()


@compiled
def precompiled_sources(precompiled, values, parts, sources, new_values, new_parts):  # type: ignore[no-untyped-def]
    """The sources of the bytes that `apply_precompiled` writes.

    The tool notes for each character that it writes whether one is read for it, and how many more; what is removed
    counts to the character written before. Removed at the start of a text, it counts to none, and all that follows is
    aligned too far to the left.
    """
    charsmap, direct, classes = precompiled.charsmap, precompiled.direct, precompiled.classes
    replacements = charsmap.replacements
    out, copied = np.empty(len(new_values), np.uint32), np.empty(len(values), np.uint8)
    q = np.int64(0)
    for i_part in range(len(parts.starts)):
        i, stop = parts.starts[i_part], parts.stops[i_part]
        if parts.tokens[i_part] >= 0:
            continue
        if _is_same(values, i, stop, new_values, new_parts.starts[i_part], new_parts.stops[i_part]):
            out[q : q + stop - i] = sources[i:stop]
            q += stop - i
            continue
        # The last character written: where it begins in `out`, and how many characters are read for it, less one.
        begin, reads, cursor = q, np.int64(0), i
        while i < stop:
            if direct[values[i]] != NOT_DIRECT and (i + 1 == stop or values[i + 1] < 0x80):
                cursor = _settle(values, sources, cursor, stop, out, begin, q, reads)
                # All but the last one of a run, as what follows it may count to it.
                while cursor == i and i + 2 < stop and direct[values[i + 1]] != NOT_DIRECT and values[i + 2] < 0x80:
                    out[q] = sources[i]
                    q += 1
                    i += 1
                    cursor = i
                begin, reads = q, np.int64(0)
                q += 1
                i += 1
                continue
            plain_end = copy_plain(classes, values, i, stop, copied, 0)[0]
            runs_on = i < plain_end
            while i < plain_end:
                cursor = _settle(values, sources, cursor, stop, out, begin, q, reads)
                # As above, all but the last one.
                last = plain_end - 1
                while values[last] & 0xC0 == 0x80:
                    last -= 1
                if cursor == i:
                    for k in range(np.uint64(last - i)):
                        out[np.uint64(q) + k] = sources[np.uint64(i) + k]
                    q += last - i
                    i = cursor = last
                begin, reads = q, np.int64(0)
                num_bytes = bytes_of_character(values[i])
                q += num_bytes
                i += num_bytes
            if runs_on:
                continue
            end = cluster_end(classes, values, i, stop)
            length, at = 0, np.int64(-1)
            if end - i <= LONGEST_CLUSTER:
                length, at = shortest_match(charsmap, values, i, end)
            while i < end:
                num_bytes = end - i if length > 0 else code_point(values, i)[1]
                if length == 0 and classes[code_point(values, i)[0]] & HAS_KEY:
                    at = shortest_match(charsmap, values, i, i + num_bytes)[1]
                n_old = _count_characters(values, i, i + num_bytes)
                i += num_bytes
                if at < 0:
                    cursor = _settle(values, sources, cursor, stop, out, begin, q, reads)
                    begin, reads = q, np.int64(0)
                    q += num_bytes
                    continue
                n_new = np.int64(0)
                while replacements[at] != 0:
                    cursor = _settle(values, sources, cursor, stop, out, begin, q, reads)
                    begin, reads = q, np.int64(0) if n_new < n_old else np.int64(-1)
                    n_new += 1
                    q += bytes_of_character(replacements[at])
                    at += bytes_of_character(replacements[at])
                reads += max(0, n_old - n_new) if q > begin else 0
                at = np.int64(-1)
        _settle(values, sources, cursor, stop, out, begin, q, reads)
    return out


@compiled
def _is_same(values, start, stop, new_values, new_start, new_stop):  # type: ignore[no-untyped-def]
    """Whether both texts are equal, by blocks."""
    old, new = values[start:stop], new_values[new_start:new_stop]
    if len(old) != len(new):
        return False
    for i in range(0, len(old), 64):
        n_other = 0
        one, other = old[i : i + 64], new[i : i + 64]
        for k in range(len(one)):
            n_other += one[k] != other[k]
        if n_other > 0:
            return False
    return True


@compiled(forceinline=True)
def _settle(values, sources, cursor, stop, out, begin, q, reads):  # type: ignore[no-untyped-def]
    """Enter the source of the character out[begin:q], for which reads + 1 are read; returns where the next one is."""
    if begin == q:
        return cursor
    source = sources[cursor - 1] if reads < 0 else sources[min(cursor, stop - 1)]
    for k in range(begin, q):
        out[k] = source
    for _ in range(reads + 1):
        if cursor < stop:
            cursor += bytes_of_character(values[cursor])
    return cursor


@compiled
def _count_characters(values, i, stop):  # type: ignore[no-untyped-def]
    n = np.int64(0)
    for k in range(i, stop):
        n += values[k] & 0xC0 != 0x80
    return n


@compiled
def collapse_sources(content, values, parts, sources, new_values, new_parts):  # type: ignore[no-untyped-def]
    """The sources of the bytes that `collapse_spaces` writes: for a run, its last space."""
    out = np.empty(len(new_values), np.uint32)
    q = 0
    for i_part in range(len(parts.starts)):
        i, stop = parts.starts[i_part], parts.stops[i_part]
        while parts.tokens[i_part] < 0 and i < stop:
            first = i
            while i < stop and values[i] == SPACE:
                i += 1
            if i > first:
                i -= 1
            num_copies = content.size if i > first else 1
            for _ in range(num_copies):
                out[q] = sources[i]
                q += 1
            i += 1
    return out


@compiled
def replace_sources(pattern, content, values, parts, sources, new_values, new_parts):  # type: ignore[no-untyped-def]
    """The sources of the bytes that `replace` writes: for a match, its last character."""
    out = np.empty(len(new_values) + 8, np.uint32)
    q, firsts = np.int64(0), np.uint64(pattern[0]) * ONES
    for i_part in range(len(parts.starts)):
        i, stop = parts.starts[i_part], parts.stops[i_part]
        while parts.tokens[i_part] < 0 and i < stop:
            if LITTLE_ENDIAN and i + 8 <= values.size:
                n = _copy_eight(values, sources, i, stop, firsts, 0, out, q)
                i, q = i + n, q + n
                if n == 8 or i == stop:
                    continue
            num_copies = 1
            if values[i] == pattern[0] and stands_at(pattern, values, i, stop):
                i += pattern.size - 1
                num_copies = content.size
            for _ in range(num_copies):
                out[q] = sources[i]
                q += 1
            i += 1
    return out[:q]


@compiled(inline="always")
def _copy_eight(values, sources, i, stop, firsts, base, out, q):  # type: ignore[no-untyped-def]
    """Write eight sources, counted from base; how many of them are of bytes before stop and before one in `firsts`,
    a word that repeats it.
    """
    # Unsigned indices let the loop be vectorized.
    source, at, less = np.uint64(i), np.uint64(q), np.uint32(base)
    for k in range(np.uint64(8)):
        out[at + k] = sources[source + k] - less
    return min(trailing_zeros(bytes_equal(load_eight(values, i), firsts)) >> 3, stop - i)


@compiled
def prepend_sources(content, values, parts, sources, new_values, new_parts):  # type: ignore[no-untyped-def]
    """The sources of the bytes that `prepend` writes."""
    out = np.empty(len(new_values), np.uint32)
    q = np.int64(0)
    for i_part in range(len(parts.starts)):
        start, stop = parts.starts[i_part], parts.stops[i_part]
        if parts.tokens[i_part] < 0 and start < stop:
            for _ in range(content.size):
                out[q] = sources[start]
                q += 1
            out[q : q + stop - start] = sources[start:stop]
            q += stop - start
    return out


@compiled
def cut_sources(cutter, values, parts, sources, docs, extents, size):  # type: ignore[no-untyped-def]
    """(sources of the `size` bytes that `cut` writes, stops of added tokens), counted from the starts of documents.

    docs: where those begin; extents int64 [parts, 2]: where in them added tokens are.
    """
    mark, collapse, prefix, mark_bytes = cutter.metaspace, cutter.collapse, cutter.prefix, cutter.metaspace.size
    out, stops = np.empty(size + 8, np.uint32), np.empty(np.count_nonzero(parts.tokens >= 0), np.uint32)
    q, num_tokens, firsts = np.int64(0), 0, SPACES if mark_bytes > 0 else np.uint64(0xFF) * ONES
    for i_doc in range(len(docs) - 1):
        base = docs[i_doc]
        for i_part in range(parts.docs[i_doc], parts.docs[i_doc + 1]):
            i, part_stop, token = parts.starts[i_part], parts.stops[i_part], parts.tokens[i_part]
            if token >= 0:
                end = q + cutter.bounds[token + 1] - cutter.bounds[token]
                out[q:end], stops[num_tokens] = extents[i_part, 0] - base, extents[i_part, 1] - base
                q, num_tokens = end, num_tokens + 1
                continue
            has_prefix = mark_bytes > 0 and (prefix == ALWAYS or (prefix == FIRST and parts.begins[i_part]))
            while i < part_stop:
                stop = part_stop
                if cutter.at_whitespace:
                    i = strip_left(values, i, part_stop)
                    stop = word_end(values, i, part_stop)
                if has_prefix and i < stop and values[i] != SPACE and not stands_at(mark, values, i, stop):
                    for _ in range(mark_bytes):
                        out[q] = sources[i] - base
                        q += 1
                while i < stop:
                    if LITTLE_ENDIAN and i + 8 <= values.size:
                        n = _copy_eight(values, sources, i, stop, firsts, base, out, q)
                        i, q = i + n, q + n
                        if n == 8 or i == stop:
                            continue
                    is_space = mark_bytes > 0 and values[i] == SPACE
                    is_left_out = is_space and collapse and i + 1 < stop and values[i + 1] == SPACE
                    for _ in range(0 if is_left_out else mark_bytes if is_space else 1):
                        out[q] = sources[i] - base
                        q += 1
                    i += 1
    return out[:size], stops


def extents_of(
    parts: Parts, raw: NDArray[np.int64], sources: NDArray[np.uint32], original: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """int64 [parts, 2]: where added tokens are in the original; raw [.., 2]: those found before normalization."""
    extents = np.zeros((len(parts.tokens), 2), np.int64)
    is_token = parts.tokens >= 0
    is_raw = is_token & (parts.starts == parts.stops)
    is_cooked = is_token & ~is_raw
    extents[is_raw] = raw
    extents[is_cooked, 0] = sources[parts.starts[is_cooked]]
    last = sources[parts.stops[is_cooked] - 1]
    extents[is_cooked, 1] = last + as_written(bytes_of_character)(original[last])
    return extents
