"""Compiled rules of Hugging Face's tokenizers: added tokens, normalizers and pre-tokenizers over ranges of documents.

Every stage takes all documents of a range: documents -> parts between added tokens -> normalizers -> parts between
added tokens that are looked for in normalized text -> pre-tokens. Sources: tokenizers 0.23.3, added_vocabulary.rs,
normalizers/*.rs, pre_tokenizers/{metaspace,whitespace}.rs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import grown
from gpu_lattice.kernels.cpu.machine import LITTLE_ENDIAN, ONES, bytes_equal, load_eight, store_eight, trailing_zeros
from gpu_lattice.kernels.cpu.utf8 import are_valid, character_length, code_point, encode_code_point
from gpu_lattice.normalizers.charsmap import CharsMap, shortest_match
from gpu_lattice.normalizers.graphemes import LAST_ALONE, LAST_FIRST, cluster_end, grapheme_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOT_DIRECT = 255
HAS_KEY = 32
LONGEST_CLUSTER = 5
SPACE = 0x20
STRIP_LEFT, STRIP_RIGHT = 1, 2
# Of added tokens, for which eight bytes at a time are looked through.
MOST_FIRSTS = 4
NEVER, FIRST, ALWAYS = range(3)
SPACES = np.uint64(SPACE) * ONES


class Parts(NamedTuple):
    """P consecutive parts of the documents of a range.

    starts, stops  int64 [P], part i is values[starts[i]:stops[i]] of the array that goes with it
    tokens         int64 [P], the added token that a part is, -1 for text
    begins         bool [P], whether the part is text from the very start of its document
    docs           int64 [num_docs + 1], document d is the parts docs[d]..docs[d + 1]
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    tokens: NDArray[np.int64]
    begins: NDArray[np.bool_]
    docs: NDArray[np.int64]


class Precompiled(NamedTuple):
    """A character map, applied to grapheme clusters.

    direct   uint8 [256], the ASCII byte that an ASCII byte becomes when another ASCII byte or nothing follows it;
             NOT_DIRECT if the byte alone does not decide
    classes  uint8 [0x110000], the grapheme class of every code point, plus HAS_KEY if it begins with a key
    """

    charsmap: CharsMap
    direct: NDArray[np.uint8]
    classes: NDArray[np.uint8]


class TokenTrie(NamedTuple):
    """The patterns of added tokens; the children of node i are the nodes first[i]..first[i + 1].

    root      int32 [256], the node of a first byte, -1 for none
    first     int32 [num_nodes + 1]
    labels    uint8 [num_nodes], the byte that leads to a node
    tokens    int32 [num_nodes], the token whose pattern ends at a node, -1 for none
    lstrip, rstrip   bool, by token: whether it takes the white space before it, after it
    firsts    uint64, each first byte eight times; none if they are more than MOST_FIRSTS, or in a pickle of old
    """

    root: NDArray[np.int32]
    first: NDArray[np.int32]
    labels: NDArray[np.uint8]
    tokens: NDArray[np.int32]
    lstrip: NDArray[np.bool_]
    rstrip: NDArray[np.bool_]
    firsts: NDArray[np.uint64] = np.empty(0, np.uint64)


class Cutter(NamedTuple):
    """How normalized text is cut, and how added tokens are written.

    at_whitespace  cut at white space, and drop it
    metaspace      uint8, the bytes of the character that spaces become; empty without a Metaspace
    prefix         NEVER, FIRST (at the beginning of a document) or ALWAYS: where one is put before the text
    split          cut before every such character
    collapse       a run of spaces becomes one such character
    contents       uint8; token t is written as contents[bounds[t]:bounds[t + 1]]
    bounds         int64 [num_tokens + 1]
    """

    at_whitespace: bool
    metaspace: NDArray[np.uint8]
    prefix: int
    split: bool
    collapse: bool
    contents: NDArray[np.uint8]
    bounds: NDArray[np.int64]


def precompiled(charsmap: CharsMap) -> Precompiled:
    """The tables for a character map."""
    classes = grapheme_classes().copy()
    _mark_keys(charsmap, classes)
    direct = np.full(256, NOT_DIRECT, np.uint8)
    for byte in range(128):
        length, at = shortest_match(charsmap, np.array([byte], np.uint8), 0, 1)
        if length == 0:
            direct[byte] = byte
        elif charsmap.replacements[at] in range(1, 128) and charsmap.replacements[at + 1] == 0:
            direct[byte] = charsmap.replacements[at]
    # "\r\n" is one cluster.
    direct[0x0D] = NOT_DIRECT
    return Precompiled(charsmap, direct, classes)


@compiled
def _mark_keys(charsmap, classes):  # type: ignore[no-untyped-def]
    character = np.empty(4, np.uint8)
    for code in range(classes.size):
        stop = encode_code_point(code, character)
        if shortest_match(charsmap, character, 0, stop)[0] > 0:
            classes[code] |= HAS_KEY


@compiled
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


def whole_documents(offsets: NDArray[np.int64]) -> Parts:
    """Every document as one part."""
    n = len(offsets) - 1
    return Parts(offsets[:-1].copy(), offsets[1:].copy(), np.full(n, -1), np.ones(n, np.bool_), np.arange(n + 1))


@compiled
def find_tokens(trie, values, parts):  # type: ignore[no-untyped-def]
    """The parts with added tokens as parts of their own; the leftmost pattern is one, in a tie the longest.

    As in the tool, the white space that a token takes is searched for the next one too.
    """
    old_starts, old_stops, old_tokens, old_docs = parts.starts, parts.stops, parts.tokens, parts.docs
    root, firsts = trie.root, trie.firsts
    room = len(old_starts) + 16
    starts, stops, tokens = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    docs = np.zeros_like(old_docs)
    size = 0
    for i_doc in range(len(docs) - 1):
        for i_part in range(old_docs[i_doc], old_docs[i_doc + 1]):
            start, stop = old_starts[i_part], old_stops[i_part]
            i = done = start
            while old_tokens[i_part] < 0 and i < stop:
                i = _skip_to_pattern(root, firsts, values, i, stop)
                if i == stop:
                    break
                token, end = _longest_token(trie, root[values[i]], values, i, stop)
                if token < 0:
                    i += 1
                    continue
                begin, after = i, end
                if trie.lstrip[token]:
                    begin = max(_strip_right(values, start, begin), done)
                if trie.rstrip[token]:
                    end = strip_left(values, end, stop)
                if begin >= end:  # within the white space that the one before took
                    i = after
                    continue
                starts, stops, tokens = _with_room_for_two(starts, stops, tokens, size)
                if done < begin:
                    starts[size], stops[size], tokens[size] = done, begin, -1
                    size += 1
                starts[size], stops[size], tokens[size] = begin, end, token
                size += 1
                i, done = after, end
            starts, stops, tokens = _with_room_for_two(starts, stops, tokens, size)
            if old_tokens[i_part] >= 0 or done != stop:
                starts[size], stops[size], tokens[size] = done, stop, old_tokens[i_part]
                size += 1
        docs[i_doc + 1] = size
    begins = np.zeros(size, np.bool_)
    for i_doc in range(len(docs) - 1):
        first, old = docs[i_doc], old_docs[i_doc]
        if first < docs[i_doc + 1]:
            begins[first] = tokens[first] < 0 and parts.begins[old] and starts[first] == old_starts[old]
    return Parts(starts[:size], stops[:size], tokens[:size], begins, docs)


@compiled
def are_plain(trie, most, values, docs):  # type: ignore[no-untyped-def]
    """Whether documents are UTF-8 without an added token or a byte above `most`."""
    if not are_valid(values, docs, 0, len(docs) - 1):
        return False
    highest = np.uint8(0)
    for i in range(docs[0], docs[-1]):
        highest = max(highest, values[i])
    if highest > most:
        return False
    for i_doc in range(len(docs) - 1):
        i, stop = docs[i_doc], docs[i_doc + 1]
        while i < stop:
            i = _skip_to_pattern(trie.root, trie.firsts, values, i, stop)
            if i < stop and _longest_token(trie, trie.root[values[i]], values, i, stop)[0] >= 0:
                return False
            i += 1
    return True


@compiled
def _with_room_for_two(starts, stops, tokens, size):  # type: ignore[no-untyped-def]
    return grown(starts, size, size + 2), grown(stops, size, size + 2), grown(tokens, size, size + 2)


@compiled
def _skip_to_pattern(root, firsts, values, i, stop):  # type: ignore[no-untyped-def]
    while LITTLE_ENDIAN and len(firsts) > 0 and i + 8 <= stop:
        word, found = load_eight(values, i), np.uint64(0)
        for k in range(len(firsts)):
            found |= bytes_equal(word, firsts[k])
        if found != np.uint64(0):
            break
        i += 8
    while i < stop and root[values[i]] < 0:
        i += 1
    return i


@compiled
def _longest_token(trie, node, values, i, stop):  # type: ignore[no-untyped-def]
    """(token or -1, its end) of the longest pattern at i, whose first byte leads to `node`."""
    token, end = np.int64(-1), i
    i += 1
    while True:
        if trie.tokens[node] >= 0:
            token, end = np.int64(trie.tokens[node]), i
        child, last = np.int64(trie.first[node]), np.int64(trie.first[node + 1])
        if i == stop:
            break
        while child < last and trie.labels[child] != values[i]:
            child += 1
        if child == last:
            break
        node = child
        i += 1
    return token, end


@compiled
def strip(flags, values, parts):  # type: ignore[no-untyped-def]
    """The parts without white space at the ends that STRIP_LEFT | STRIP_RIGHT name."""
    starts, stops = parts.starts.copy(), parts.stops.copy()
    for i in range(len(starts)):
        if parts.tokens[i] < 0 and flags & STRIP_LEFT:
            starts[i] = strip_left(values, starts[i], stops[i])
        if parts.tokens[i] < 0 and flags & STRIP_RIGHT:
            stops[i] = _strip_right(values, starts[i], stops[i])
    return Parts(starts, stops, parts.tokens, parts.begins, parts.docs)


@compiled
def apply_precompiled(precompiled, values, parts):  # type: ignore[no-untyped-def]
    """The parts by a character map, as (values, parts).

    A cluster of at most 5 bytes becomes the replacement of the shortest key that it begins with; longer clusters, and
    those that begin with no key, are processed character by character. There is always room for the remaining bytes,
    so that only replacements have to check.
    """
    charsmap, direct, classes = precompiled.charsmap, precompiled.direct, precompiled.classes
    replacements = charsmap.replacements
    old_starts, old_stops, tokens = parts.starts, parts.stops, parts.tokens
    starts, stops = np.zeros_like(old_starts), np.zeros_like(old_stops)
    num_later = _num_bytes(parts)
    out = np.empty(num_later + 64, np.uint8)
    size = 0
    for i_part in range(len(starts)):
        starts[i_part] = size
        i, stop = old_starts[i_part], old_stops[i_part]
        num_later -= stop - i
        if tokens[i_part] >= 0:
            i = stop
        while i < stop:
            i, size = _copy_direct(direct, values, i, stop, out, size)
            i, size = copy_plain(classes, values, i, stop, out, size)
            if i == stop:
                break
            end = cluster_end(classes, values, i, stop)
            if end - i <= LONGEST_CLUSTER:
                length, at = shortest_match(charsmap, values, i, end)
                if length > 0:
                    i = end
                    out, size = _put_replacement(replacements, at, stop - i + num_later, out, size)
            while i < end:
                character, num_bytes = code_point(values, i)
                at = -1
                if classes[character] & HAS_KEY:
                    _, at = shortest_match(charsmap, values, i, i + num_bytes)
                if at >= 0:
                    i += num_bytes
                    out, size = _put_replacement(replacements, at, stop - i + num_later, out, size)
                for _ in range(0 if at >= 0 else num_bytes):
                    out[size] = values[i]
                    size += 1
                    i += 1
        stops[i_part] = size
    return out[:size], Parts(starts, stops, parts.tokens, parts.begins, parts.docs)


@compiled
def _copy_direct(direct, values, i, stop, out, size):  # type: ignore[no-untyped-def]
    """Copy ASCII up to the first byte that needs a closer look; returns (where that is, size).

    The character before a byte above 127 may belong to the same cluster.
    """
    text, written = values[i:stop], out[size:]
    for k in range(len(text)):
        byte = direct[text[k]]
        if byte == NOT_DIRECT:
            num_copied = k - 1 if k > 0 and text[k] >= 0x80 else k
            return i + num_copied, size + num_copied
        written[k] = byte
    return stop, size + len(text)


@compiled
def copy_plain(classes, values, i, stop, out, size):  # type: ignore[no-untyped-def]
    """Copy characters that are clusters and have no key, up to the first other one or ASCII; returns (where, size)."""
    if i == stop:
        return i, size
    character, length = code_point(values, i)
    what = np.int64(classes[character])
    while what <= LAST_ALONE:
        end = i + length
        next_what = np.int64(0)
        if end < stop:
            character, length = code_point(values, end)
            next_what = np.int64(classes[character])
            if next_what & 31 > LAST_FIRST:
                break
        while i < end:
            out[size] = values[i]
            size += 1
            i += 1
        if end == stop or values[end] < 0x80:
            break
        what = next_what
    return i, size


@compiled
def _put_replacement(replacements, at, num_left, out, size):  # type: ignore[no-untyped-def]
    end = at
    while replacements[end] != 0:
        end += 1
    out = grown(out, size, size + end - at + num_left)
    return out, _copy(replacements, at, end, out, size)


@compiled
def collapse_spaces(content, values, parts):  # type: ignore[no-untyped-def]
    """`content` for every run of two or more spaces, as (values, parts)."""
    old_starts, old_stops, tokens = parts.starts, parts.stops, parts.tokens
    starts, stops = np.zeros_like(old_starts), np.zeros_like(old_stops)
    num_later = _num_bytes(parts)
    out = np.empty(num_later + 64, np.uint8)
    size = 0
    for i_part in range(len(starts)):
        starts[i_part] = size
        i, stop = old_starts[i_part], old_stops[i_part]
        num_later -= stop - i
        if tokens[i_part] >= 0:
            i = stop
        while i < stop:
            i, size = _copy_to_two_spaces(values, i, stop, out, size)
            if i == stop:
                break
            while i < stop and values[i] == SPACE:
                i += 1
            out = grown(out, size, size + content.size + stop - i + num_later)
            size = _copy(content, 0, content.size, out, size)
        stops[i_part] = size
    return out[:size], Parts(starts, stops, parts.tokens, parts.begins, parts.docs)


@compiled
def _copy_to_two_spaces(values, i, stop, out, size):  # type: ignore[no-untyped-def]
    while i < stop:
        byte = values[i]
        if byte == SPACE and i + 1 < stop and values[i + 1] == SPACE:
            break
        out[size] = byte
        size += 1
        i += 1
    return i, size


@compiled
def has_two_spaces(values):  # type: ignore[no-untyped-def]
    """Whether there are two spaces in a row anywhere."""
    num_pairs = 0
    for i in range(values.size - 1):
        num_pairs += (values[i] == SPACE) & (values[i + 1] == SPACE)
    return num_pairs > 0


@compiled
def may_compose(inert, values, parts):  # type: ignore[no-untyped-def]
    """Whether each part of text holds a character that is not inert in NFC; inert: bits over code points."""
    starts, stops, tokens = parts.starts, parts.stops, parts.tokens
    out = np.zeros(len(starts), np.bool_)
    for i_part in range(len(starts)):
        i, stop = starts[i_part], stops[i_part]
        is_inert = True
        while i < stop and tokens[i_part] < 0:
            code, length = code_point(values, i)
            is_inert &= inert[code >> 3] >> (code & 7) & 1 == 1
            i += length
        out[i_part] = not is_inert
    return out


@compiled
def replace(pattern, content, values, parts):  # type: ignore[no-untyped-def]
    """`content` for every occurrence of a string, from left to right, as (values, parts)."""
    old_starts, old_stops, tokens = parts.starts, parts.stops, parts.tokens
    starts, stops = np.zeros_like(old_starts), np.zeros_like(old_stops)
    num_later = _num_bytes(parts)
    out = np.empty(num_later + 64, np.uint8)
    size = 0
    for i_part in range(len(starts)):
        starts[i_part] = size
        i, stop = old_starts[i_part], old_stops[i_part]
        num_later -= stop - i
        if tokens[i_part] >= 0:
            i = stop
        while i < stop:
            if values[i] != pattern[0] or not stands_at(pattern, values, i, stop):
                out[size] = values[i]
                size += 1
                i += 1
                continue
            i += pattern.size
            out = grown(out, size, size + content.size + stop - i + num_later)
            size = _copy(content, 0, content.size, out, size)
        stops[i_part] = size
    return out[:size], Parts(starts, stops, parts.tokens, parts.begins, parts.docs)


@compiled
def prepend(content, values, parts):  # type: ignore[no-untyped-def]
    """`content` before every part that is not empty, as (values, parts)."""
    starts, stops = np.zeros_like(parts.starts), np.zeros_like(parts.stops)
    out = np.empty(_num_bytes(parts) + len(starts) * content.size, np.uint8)
    size = 0
    for i_part in range(len(starts)):
        starts[i_part] = size
        if parts.tokens[i_part] < 0 and parts.starts[i_part] < parts.stops[i_part]:
            size = _copy(content, 0, content.size, out, size)
            size = _copy(values, parts.starts[i_part], parts.stops[i_part], out, size)
        stops[i_part] = size
    return out[:size], Parts(starts, stops, parts.tokens, parts.begins, parts.docs)


@compiled
def cut(cutter, values, parts):  # type: ignore[no-untyped-def]
    """The pre-tokens, as (values, offsets [num_docs + 1], chunk ends, hits int64 [.., 2]: (chunk, added token))."""
    starts, stops, tokens, docs = parts.starts, parts.stops, parts.tokens, parts.docs
    at_whitespace, mark, split, collapse = cutter.at_whitespace, cutter.metaspace, cutter.split, cutter.collapse
    contents, bounds, prefix, begins = cutter.contents, cutter.bounds, cutter.prefix, parts.begins
    num_bytes, num_chunks = _room(at_whitespace, mark, bounds, values, starts, stops, tokens)
    out, ends = np.empty(num_bytes, np.uint8), np.empty(num_chunks, np.int64)
    hits = np.empty((np.count_nonzero(tokens >= 0), 2), np.int64)
    offsets = np.zeros_like(docs)
    size, num_chunks, num_hits = 0, 0, 0
    for i_doc in range(len(offsets) - 1):
        for i_part in range(docs[i_doc], docs[i_doc + 1]):
            start, stop, token = starts[i_part], stops[i_part], tokens[i_part]
            if token >= 0:
                size = _copy(contents, bounds[token], bounds[token + 1], out, size)
                ends[num_chunks] = size
                hits[num_hits, 0], hits[num_hits, 1] = num_chunks, token
                num_chunks += 1
                num_hits += 1
                continue
            has_prefix = prefix == ALWAYS or (prefix == FIRST and begins[i_part])
            while start < stop:
                end = stop
                if at_whitespace:
                    start = strip_left(values, start, stop)
                    end = word_end(values, start, stop)
                if start == end:
                    break
                if mark.size == 0:
                    size = _copy(values, start, end, out, size)
                else:
                    size, num_chunks = _put_marked(
                        mark, has_prefix, split, collapse, values, start, end, out, size, ends, num_chunks
                    )
                ends[num_chunks] = size
                num_chunks += 1
                start = end
        offsets[i_doc + 1] = size
    return out[:size], offsets, ends[:num_chunks], hits


@compiled
def cut_plain(cutter, trie, precompiled, flags, values, docs):  # type: ignore[no-untyped-def]
    """(values, offsets, chunk offsets) of documents that are plain, by a character map, `strip` and `cut`; empty arrays
    if they are not.

    A short text takes one call so, where these come one by one and hand five arrays to each other.
    """
    if not are_plain(trie, 0xFF, values, docs):
        return np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64)
    n = len(docs) - 1
    starts, stops, tokens = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    begins, numbers = np.ones(n, np.bool_), np.empty(n + 1, np.int64)
    for i in range(n):
        starts[i], stops[i], tokens[i], numbers[i] = docs[i], docs[i + 1], -1, i
    numbers[n] = n
    normalized, parts = apply_precompiled(precompiled, values, Parts(starts, stops, tokens, begins, numbers))
    cut_values, offsets, ends, _ = cut(cutter, normalized, strip(flags, normalized, parts))
    bounds = np.zeros(len(ends) + 1, np.int64)
    for i in range(len(ends)):
        bounds[i + 1] = ends[i]
    return cut_values, offsets, bounds


@compiled
def _room(at_whitespace, mark, bounds, values, starts, stops, tokens):  # type: ignore[no-untyped-def]
    """Upper bounds of the (bytes, chunks) that the parts are cut into, with the bytes that _put_marked writes ahead."""
    num_bytes, num_chunks, num_marks = 8, len(starts) + 1, 0
    for i_part in range(len(starts)):
        start, stop, token = starts[i_part], stops[i_part], tokens[i_part]
        if token >= 0:
            num_bytes += bounds[token + 1] - bounds[token]
            continue
        num_bytes += stop - start
        if mark.size > 0:
            num_marks += 1 + _count_marks(mark[0], values, start, stop)
        if at_whitespace:
            num_words = (stop - start) // 2
            num_marks += num_words
            num_chunks += num_words
    return num_bytes + num_marks * mark.size, num_chunks + num_marks


@compiled
def _count_marks(first, values, start, stop):  # type: ignore[no-untyped-def]
    text = values[start:stop]
    num_marks = 0
    for k in range(len(text)):
        num_marks += (text[k] == SPACE) | (text[k] == first)
    return num_marks


@compiled
def word_end(values, i, stop):  # type: ignore[no-untyped-def]
    while i < stop and space_at(values, i, stop) == 0:
        i += 1
    return i


@compiled
def _put_marked(mark, has_prefix, split, collapse, values, start, stop, out, size, ends, num_chunks):  # type: ignore[no-untyped-def]
    """Write values[start:stop] with spaces as Metaspace has them; returns (size, num_chunks).

    The caller sets the end of the last chunk.
    """
    begin, i, after_space = size, start, False
    length, firsts = mark.size, np.uint64(mark[0]) * ONES
    first, second = mark[0], mark[min(1, length - 1)]
    third, fourth = mark[min(2, length - 1)], mark[length - 1]
    if has_prefix and values[i] != SPACE and not stands_at(mark, values, i, stop):
        size = _copy(mark, 0, length, out, size)
    while i < stop:
        if LITTLE_ENDIAN and i + 8 <= values.size:
            word = load_eight(values, i)
            store_eight(out, size, word)
            num_copied = min(trailing_zeros(bytes_equal(word, SPACES) | bytes_equal(word, firsts)) >> 3, stop - i)
            i += num_copied
            size += num_copied
            after_space = after_space and num_copied == 0
            if num_copied == 8 or i == stop:
                continue
        byte = values[i]
        is_space = byte == SPACE
        is_mark = is_space and not (collapse and after_space)
        if (
            split
            and size > begin
            and (is_mark or (byte == first and not is_space and stands_at(mark, values, i, stop)))
        ):
            ends[num_chunks] = size
            num_chunks += 1
        if is_mark:
            out[size], out[size + 1], out[size + 2], out[size + 3] = first, second, third, fourth
            size += length
        elif not is_space:
            out[size] = byte
            size += 1
        after_space = is_space
        i += 1
    return size, num_chunks


@compiled
def _copy(source, start, stop, out, size):  # type: ignore[no-untyped-def]
    """source[start:stop] written to out[size:]; returns the new size."""
    for k in range(start, stop):
        out[size] = source[k]
        size += 1
    return size


@compiled
def _num_bytes(parts):  # type: ignore[no-untyped-def]
    num_bytes = 0
    for i in range(len(parts.starts)):
        num_bytes += parts.stops[i] - parts.starts[i]
    return num_bytes


@compiled
def strip_left(values, start, stop):  # type: ignore[no-untyped-def]
    """The first position in start..stop that is not white space."""
    while start < stop:
        length = space_at(values, start, stop)
        if length == 0:
            break
        start += length
    return start


@compiled
def _strip_right(values, start, stop):  # type: ignore[no-untyped-def]
    """The end of values[start:stop] without white space at its end."""
    while start < stop:
        begin = stop - 1
        while begin > start and values[begin] & 0xC0 == 0x80:
            begin -= 1
        if space_at(values, begin, stop) == 0:
            break
        stop = begin
    return stop


@compiled
def stands_at(string, values, i, stop):  # type: ignore[no-untyped-def]
    num_equal = 0
    if stop - i >= string.size:
        while num_equal < string.size and values[i + num_equal] == string[num_equal]:
            num_equal += 1
    return num_equal == string.size


@compiled
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
