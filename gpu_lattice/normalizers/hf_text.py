"""Compiled rules of Hugging Face's tokenizers: added tokens, normalizers and pre-tokenizers over ranges of documents.

One direction: a document -> the text between added tokens -> normalized -> the text between added tokens that are
looked for in normalized text -> pre-tokens. Sources: tokenizers 0.23.3, added_vocabulary.rs, normalizers/*.rs,
pre_tokenizers/{metaspace,whitespace}.rs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gpu_lattice.normalizers.charsmap import CharsMap, shortest_match
from gpu_lattice.normalizers.graphemes import GraphemeTable, cluster_end

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOT_DIRECT = 255
LONGEST_CLUSTER = 5

PRECOMPILED, STRIP, REPLACE, COLLAPSE_SPACES, PREPEND = range(5)
STRIP_LEFT, STRIP_RIGHT = 1, 2
NEVER, FIRST, ALWAYS = range(3)
SPACE = 0x20


class Precompiled(NamedTuple):
    """A character map, applied to grapheme clusters.

    direct  uint8 [256], the ASCII byte that an ASCII byte becomes when another ASCII byte or nothing follows it;
            NOT_DIRECT where the byte alone does not decide
    """

    charsmap: CharsMap
    graphemes: GraphemeTable
    direct: NDArray[np.uint8]


class Steps(NamedTuple):
    """Normalizers in their order.

    kinds    int64 [n], PRECOMPILED to PREPEND
    flags    int64 [n], STRIP_LEFT | STRIP_RIGHT of a STRIP
    strings  uint8; step i finds strings[bounds[2 i]:bounds[2 i + 1]] and writes strings[bounds[2 i + 1]:bounds[2 i + 2]]
    bounds   int64 [2 n + 1]
    """

    kinds: NDArray[np.int64]
    flags: NDArray[np.int64]
    strings: NDArray[np.uint8]
    bounds: NDArray[np.int64]


class AddedTokens(NamedTuple):
    """A trie of the patterns of added tokens; the children of node i are the nodes first[i]..first[i + 1].

    root      int32 [256], the node of a first byte, -1 for none
    first     int32 [num_nodes + 1]
    labels    uint8 [num_nodes], the byte that leads to a node
    token     int32 [num_nodes], which token's pattern ends at a node, -1 for none
    ids       int32 [num_tokens]
    lstrip, rstrip   bool [num_tokens], whether the token takes the white space before it, after it
    contents  uint8; token t is written as contents[bounds[t]:bounds[t + 1]]
    bounds    int64 [num_tokens + 1]
    """

    root: NDArray[np.int32]
    first: NDArray[np.int32]
    labels: NDArray[np.uint8]
    token: NDArray[np.int32]
    ids: NDArray[np.int32]
    lstrip: NDArray[np.bool_]
    rstrip: NDArray[np.bool_]
    contents: NDArray[np.uint8]
    bounds: NDArray[np.int64]


class PreTokens(NamedTuple):
    """How normalized text is cut.

    at_whitespace  cut at white space, which is dropped
    metaspace      uint8, the bytes of the character that spaces become; empty without a Metaspace
    prefix         NEVER, FIRST (at the beginning of a document) or ALWAYS: where one is put before the text
    split          cut before every such character
    """

    at_whitespace: bool
    metaspace: NDArray[np.uint8]
    prefix: int
    split: bool


class Rules(NamedTuple):
    """Everything between texts and pre-tokens; tokens `raw` are looked for in the text, `cooked` in normalized text."""

    raw: AddedTokens
    precompiled: Precompiled
    steps: Steps
    cooked: AddedTokens
    pre_tokens: PreTokens


class Output(NamedTuple):
    """What is written so far; arrays may be longer than their numbers say.

    values, num_bytes   uint8
    ends, num_chunks    int64, where every chunk ends
    hits, num_hits      int64 [.., 2], (chunk, id) of added tokens
    """

    values: NDArray[np.uint8]
    num_bytes: int
    ends: NDArray[np.int64]
    num_chunks: int
    hits: NDArray[np.int64]
    num_hits: int


def direct_bytes(charsmap: CharsMap) -> NDArray[np.uint8]:
    """The table Precompiled.direct."""
    direct = np.full(256, NOT_DIRECT, np.uint8)
    for byte in range(128):
        length, at = shortest_match(charsmap, np.array([byte], np.uint8), 0, 1)
        if length == 0:
            direct[byte] = byte
        elif charsmap.replacements[at] in range(1, 128) and charsmap.replacements[at + 1] == 0:
            direct[byte] = charsmap.replacements[at]
    # "\r\n" is one cluster.
    direct[0x0D] = NOT_DIRECT
    return direct


@njit(nogil=True, cache=True)
def are_valid(values, offsets, i_start, i_stop):  # type: ignore[no-untyped-def]
    """Whether documents i_start..i_stop are UTF-8."""
    for i_doc in range(i_start, i_stop):
        i, stop = offsets[i_doc], offsets[i_doc + 1]
        while i < stop:
            while i + 64 <= stop:
                joined = np.uint8(0)
                for k in range(64):
                    joined |= values[i + k]
                if joined & 0x80:
                    break
                i += 64
            block_stop = min(i + 64, stop)
            while i < block_stop:
                length = character_length(values, i, stop)
                if length == 0:
                    return False
                i += length
    return True


@njit(nogil=True, cache=True)
def repair(values, offsets, i_start, i_stop):  # type: ignore[no-untyped-def]
    """Documents i_start..i_stop with U+FFFD for every byte that is not part of a character, as (values, offsets)."""
    out = np.empty(3 * (offsets[i_stop] - offsets[i_start]), np.uint8)
    out_offsets = np.zeros(i_stop - i_start + 1, np.int64)
    size = 0
    for i_doc in range(i_start, i_stop):
        i, stop = offsets[i_doc], offsets[i_doc + 1]
        while i < stop:
            length = character_length(values, i, stop)
            if length == 0:
                out[size], out[size + 1], out[size + 2] = 0xEF, 0xBF, 0xBD
                size += 3
            for k in range(length):
                out[size] = values[i + k]
                size += 1
            i += max(length, 1)
        out_offsets[i_doc - i_start + 1] = size
    return out[:size].copy(), out_offsets


@njit(nogil=True, cache=True)
def character_length(values, i, stop):  # type: ignore[no-untyped-def]
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
    if first == 0xE0 and second < 0xA0 or first == 0xED and second > 0x9F:
        return 0
    if first == 0xF0 and second < 0x90 or first == 0xF4 and second > 0x8F:
        return 0
    return length


@njit(nogil=True, cache=True)
def pre_tokenize_range(rules, values, offsets, i_start, i_stop):  # type: ignore[no-untyped-def]
    """Documents i_start..i_stop of valid UTF-8, as (values, offsets [n + 1], chunk ends, hits [.., 2])."""
    num_bytes = offsets[i_stop] - offsets[i_start]
    out = Output(
        np.empty(num_bytes + num_bytes // 2 + 64, np.uint8), 0,
        np.empty(num_bytes // 4 + 64, np.int64), 0,
        np.empty((16, 2), np.int64), 0,
    )  # fmt: skip
    out_offsets = np.zeros(i_stop - i_start + 1, np.int64)
    scratch = np.empty(256, np.uint8), np.empty(256, np.uint8)
    for i_doc in range(i_start, i_stop):
        out, scratch = _put_document(rules, values, offsets[i_doc], offsets[i_doc + 1], out, scratch)
        out_offsets[i_doc - i_start + 1] = out.num_bytes
    return out.values[: out.num_bytes], out_offsets, out.ends[: out.num_chunks], out.hits[: out.num_hits]


@njit(nogil=True, cache=True)
def normalize_text(rules, values, start, stop):  # type: ignore[no-untyped-def]
    """values[start:stop] by the steps alone."""
    source, start, stop, _ = _normalize(rules, values, start, stop, (np.empty(16, np.uint8), np.empty(16, np.uint8)))
    return source[start:stop].copy()


@njit(nogil=True, cache=True)
def _put_document(rules, values, start, stop, out, scratch):  # type: ignore[no-untyped-def]
    tokens = rules.raw
    if tokens.ids.size == 0:
        return _put_text(rules, values, start, stop, True, out, scratch)
    i = done = start
    while i < stop:
        token, begin, end, i = _next_token(tokens, values, start, stop, i, done)
        if token < 0:
            break
        if done < begin:
            out, scratch = _put_text(rules, values, done, begin, done == start, out, scratch)
        out = _put_token(tokens, token, out)
        done = end
    if done != stop:
        out, scratch = _put_text(rules, values, done, stop, done == start, out, scratch)
    return out, scratch


@njit(nogil=True, cache=True)
def _put_text(rules, values, start, stop, is_first, out, scratch):  # type: ignore[no-untyped-def]
    """Write the pre-tokens of values[start:stop], in which no raw token is."""
    source, start, stop, scratch = _normalize(rules, values, start, stop, scratch)
    tokens = rules.cooked
    if tokens.ids.size == 0:
        return _put_words(rules.pre_tokens, source, start, stop, is_first, out), scratch
    i = done = start
    while i < stop:
        token, begin, end, i = _next_token(tokens, source, start, stop, i, done)
        if token < 0:
            break
        if done < begin:
            out = _put_words(rules.pre_tokens, source, done, begin, is_first and done == start, out)
        out = _put_token(tokens, token, out)
        done = end
    if done != stop:
        out = _put_words(rules.pre_tokens, source, done, stop, is_first and done == start, out)
    return out, scratch


@njit(nogil=True, cache=True)
def _next_token(tokens, values, start, stop, i, done):  # type: ignore[no-untyped-def]
    """The next added token from i on, as (token or -1, begin, end, where to look on); before `done` all is written.

    The white space that a token takes is not skipped in the search for the next, as in the tool.
    """
    while i < stop:
        node = tokens.root[values[i]]
        if node < 0:
            i += 1
            continue
        token, end = _longest_token(tokens, node, values, i, stop)
        if token < 0:
            i += 1
            continue
        begin, after = i, end
        if tokens.lstrip[token]:
            while begin > start:
                length = space_before(values, start, begin)
                if length == 0:
                    break
                begin -= length
            begin = max(begin, done)
        if tokens.rstrip[token]:
            while end < stop:
                length = space_at(values, end, stop)
                if length == 0:
                    break
                end += length
        return token, begin, end, after
    return -1, stop, stop, stop


@njit(nogil=True, cache=True)
def _longest_token(tokens, node, values, i, stop):  # type: ignore[no-untyped-def]
    """(token or -1, its end) of the longest pattern at i, whose first byte leads to `node`."""
    token, end = np.int64(-1), i
    i += 1
    while True:
        if tokens.token[node] >= 0:
            token, end = np.int64(tokens.token[node]), i
        child, last = np.int64(tokens.first[node]), np.int64(tokens.first[node + 1])
        if i == stop:
            break
        while child < last and tokens.labels[child] != values[i]:
            child += 1
        if child == last:
            break
        node = child
        i += 1
    return token, end


@njit(nogil=True, cache=True)
def _put_token(tokens, token, out):  # type: ignore[no-untyped-def]
    """Write an added token, as its content, in a chunk of its own."""
    start, stop = tokens.bounds[token], tokens.bounds[token + 1]
    size, num_chunks, hits = out.num_bytes, out.num_chunks, out.hits
    if out.num_hits == len(hits):
        hits = np.empty((2 * len(hits), 2), np.int64)
        hits[: out.num_hits] = out.hits
    hits[out.num_hits, 0], hits[out.num_hits, 1] = num_chunks, tokens.ids[token]
    values = with_room(out.values, size, stop - start)
    for k in range(stop - start):
        values[size + k] = tokens.contents[start + k]
    ends = _with_ends(out.ends, num_chunks, 1)
    ends[num_chunks] = size + stop - start
    return Output(values, size + stop - start, ends, num_chunks + 1, hits, out.num_hits + 1)


@njit(nogil=True, cache=True)
def _put_words(pre_tokens, values, start, stop, is_first, out):  # type: ignore[no-untyped-def]
    if not pre_tokens.at_whitespace:
        return _put_word(pre_tokens, values, start, stop, is_first, out)
    while start < stop:
        length = space_at(values, start, stop)
        if length > 0:
            start += length
            continue
        end = start
        while end < stop and space_at(values, end, stop) == 0:
            end += 1
        out = _put_word(pre_tokens, values, start, end, is_first, out)
        start = end
    return out


@njit(nogil=True, cache=True)
def _put_word(pre_tokens, values, start, stop, is_first, out):  # type: ignore[no-untyped-def]
    """Write values[start:stop] with spaces as Metaspace has them, in one chunk or in one for every space."""
    if start == stop:
        return out
    mark, split = pre_tokens.metaspace, pre_tokens.split
    num_mark = mark.size
    if num_mark == 0:
        return _put_chunk(values, start, stop, out)
    num_spaces = 0
    for i in range(start, stop):
        num_spaces += (values[i] == SPACE) | (values[i] == mark[0])
    written = with_room(out.values, out.num_bytes, stop - start + (num_spaces + 1) * num_mark)
    ends = _with_ends(out.ends, out.num_chunks, num_spaces + 2)
    size, num_chunks = out.num_bytes, out.num_chunks
    chunk_start = size
    wants_prefix = pre_tokens.prefix == ALWAYS or pre_tokens.prefix == FIRST and is_first
    if wants_prefix and values[start] != SPACE and not _stands_at(mark, values, start, stop):
        for k in range(num_mark):
            written[size + k] = mark[k]
        size += num_mark
    i = start
    while i < stop:
        byte = values[i]
        if byte != SPACE and (byte != mark[0] or not _stands_at(mark, values, i, stop)):
            written[size] = byte
            size += 1
            i += 1
            continue
        if split and size > chunk_start:
            ends[num_chunks] = size
            num_chunks += 1
            chunk_start = size
        for k in range(num_mark):
            written[size + k] = mark[k]
        size += num_mark
        i += 1 if byte == SPACE else num_mark
    ends[num_chunks] = size
    return Output(written, size, ends, num_chunks + 1, out.hits, out.num_hits)


@njit(nogil=True, cache=True)
def _put_chunk(values, start, stop, out):  # type: ignore[no-untyped-def]
    size = out.num_bytes + stop - start
    written = with_room(out.values, out.num_bytes, stop - start)
    written[out.num_bytes : size] = values[start:stop]
    ends = _with_ends(out.ends, out.num_chunks, 1)
    ends[out.num_chunks] = size
    return Output(written, size, ends, out.num_chunks + 1, out.hits, out.num_hits)


@njit(nogil=True, cache=True)
def _normalize(rules, values, start, stop, scratch):  # type: ignore[no-untyped-def]
    """The steps over values[start:stop], as (array, start, stop, scratch); the array is one of the two of `scratch`."""
    steps = rules.steps
    target, other = scratch
    i_step = 0
    if len(steps.kinds) > 0 and steps.kinds[0] == PRECOMPILED:
        target, size = apply_precompiled(rules.precompiled, values, start, stop, target)
        i_step = 1
    else:
        size = stop - start
        target = with_room(target, 0, size)
        target[:size] = values[start:stop]
    start, stop = 0, size
    while i_step < len(steps.kinds):
        kind = steps.kinds[i_step]
        found = steps.strings[steps.bounds[2 * i_step] : steps.bounds[2 * i_step + 1]]
        content = steps.strings[steps.bounds[2 * i_step + 1] : steps.bounds[2 * i_step + 2]]
        if kind == STRIP:
            start, stop = _strip(steps.flags[i_step], target, start, stop)
        elif kind == PRECOMPILED:
            other, size = apply_precompiled(rules.precompiled, target, start, stop, other)
            target, other, start, stop = other, target, 0, size
        elif kind != COLLAPSE_SPACES or _has_two_spaces(target, start, stop):
            other, size = _rewrite(kind, found, content, target, start, stop, other)
            target, other, start, stop = other, target, 0, size
        i_step += 1
    return target, start, stop, (target, other)


@njit(nogil=True, cache=True)
def apply_precompiled(precompiled, values, i, stop, out):  # type: ignore[no-untyped-def]
    """(out, size): a cluster of at most 5 bytes becomes the replacement of the shortest key that it begins with.

    Longer clusters, and those without such a key, are taken character by character. There is always room in `out` for
    the bytes that are left, so that only replacements have to look.
    """
    direct, charsmap = precompiled.direct, precompiled.charsmap
    out = with_room(out, 0, stop - i)
    size = 0
    while i < stop:
        byte = direct[values[i]]
        if byte != NOT_DIRECT and (i + 1 == stop or values[i + 1] < 0x80):
            out[size] = byte
            size += 1
            i += 1
            continue
        cluster_stop = cluster_end(precompiled.graphemes, values, i, stop)
        if cluster_stop - i <= LONGEST_CLUSTER:
            length, at = shortest_match(charsmap, values, i, cluster_stop)
            if length > 0:
                i = cluster_stop
                out, size = _put_replacement(charsmap.replacements, at, stop - i, out, size)
                continue
        while i < cluster_stop:
            end = i + 1
            while end < cluster_stop and values[end] & 0xC0 == 0x80:
                end += 1
            length, at = shortest_match(charsmap, values, i, end)
            if length > 0:
                i = end
                out, size = _put_replacement(charsmap.replacements, at, stop - i, out, size)
            while i < end:
                out[size] = values[i]
                size += 1
                i += 1
    return out, size


@njit(nogil=True, cache=True)
def _put_replacement(replacements, at, num_left, out, size):  # type: ignore[no-untyped-def]
    end = at
    while replacements[end] != 0:
        end += 1
    out = with_room(out, size, end - at + num_left)
    for k in range(at, end):
        out[size] = replacements[k]
        size += 1
    return out, size


@njit(nogil=True, cache=True)
def _strip(flags, values, start, stop):  # type: ignore[no-untyped-def]
    """values[start:stop] without the white space at the ends that the flags name."""
    while flags & STRIP_LEFT and start < stop:
        length = space_at(values, start, stop)
        if length == 0:
            break
        start += length
    while flags & STRIP_RIGHT and start < stop:
        length = space_before(values, start, stop)
        if length == 0:
            break
        stop -= length
    return start, stop


@njit(nogil=True, cache=True)
def _has_two_spaces(values, start, stop):  # type: ignore[no-untyped-def]
    num_pairs = 0
    for i in range(start, stop - 1):
        num_pairs += (values[i] == SPACE) & (values[i + 1] == SPACE)
    return num_pairs > 0


@njit(nogil=True, cache=True)
def _rewrite(kind, found, content, values, i, stop, out):  # type: ignore[no-untyped-def]
    """(out, size) of REPLACE, COLLAPSE_SPACES or PREPEND over values[i:stop]."""
    out = with_room(out, 0, stop - i)
    size = 0
    if kind == PREPEND and i < stop:
        out, size = _put_content(content, stop - i, out, size)
    while i < stop:
        length = 0
        if kind == REPLACE and _stands_at(found, values, i, stop):
            length = found.size
        elif kind == COLLAPSE_SPACES:
            while i + length < stop and values[i + length] == SPACE:
                length += 1
        if length > (kind == COLLAPSE_SPACES):
            i += length
            out, size = _put_content(content, stop - i, out, size)
        else:
            out[size] = values[i]
            size += 1
            i += 1
    return out, size


@njit(nogil=True, cache=True)
def _put_content(content, num_left, out, size):  # type: ignore[no-untyped-def]
    out = with_room(out, size, content.size + num_left)
    for k in range(content.size):
        out[size + k] = content[k]
    return out, size + content.size


@njit(nogil=True, cache=True)
def _stands_at(string, values, i, stop):  # type: ignore[no-untyped-def]
    if stop - i < string.size:
        return False
    for k in range(string.size):
        if values[i + k] != string[k]:
            return False
    return True


@njit(nogil=True, cache=True)
def space_at(values, i, stop):  # type: ignore[no-untyped-def]
    """Bytes of the white space character (Unicode's White_Space) at i, 0 if another character is there."""
    first = np.int64(values[i])
    if first < 0x80:
        return 1 if first == SPACE or 0x09 <= first <= 0x0D else 0
    if first == 0xC2 and i + 1 < stop:
        return 2 if values[i + 1] == 0x85 or values[i + 1] == 0xA0 else 0
    if i + 2 >= stop:
        return 0
    second, third = np.int64(values[i + 1]), np.int64(values[i + 2])
    if first == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0
    if first == 0xE2 and second == 0x80:
        return 3 if third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF else 0
    if first == 0xE2 and second == 0x81:
        return 3 if third == 0x9F else 0
    return 3 if first == 0xE3 and second == 0x80 and third == 0x80 else 0


@njit(nogil=True, cache=True)
def space_before(values, start, i):  # type: ignore[no-untyped-def]
    """Bytes of the white space character that ends at i, 0 if another character is there."""
    begin = i - 1
    while begin > start and values[begin] & 0xC0 == 0x80:
        begin -= 1
    return space_at(values, begin, i)


@njit(nogil=True, cache=True)
def with_room(out, size, room):  # type: ignore[no-untyped-def]
    """`out`, of which `size` bytes are written, with at least `room` bytes after them."""
    if out.size - size >= room:
        return out
    larger = np.empty(2 * size + room, np.uint8)
    larger[:size] = out[:size]
    return larger


@njit(nogil=True, cache=True)
def _with_ends(ends, size, room):  # type: ignore[no-untyped-def]
    if ends.size - size >= room:
        return ends
    larger = np.empty(2 * size + room, np.int64)
    larger[:size] = ends[:size]
    return larger
