"""Where in the texts the ids of rows are, from the lengths of their pieces and where normalized bytes come from.

Unknown text of any length may stand before what follows an unknown id; of several places, what follows is at the first.
"""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.verify import length_at
from gpu_lattice.kernels.cpu.machine import LANES, ONE, ones, starts_of_characters
from gpu_lattice.kernels.cpu.passing import opened
from gpu_lattice.kernels.cpu.utf8 import are_valid, bytes_of_character, character_length, symbol_length_from

SAME, IN_CHARACTER, TO_NEXT, TO_END, LISTED = range(5)
# Positions of a text that a word has bits for.
BITS = 64
SHIFT, LOW_BITS = np.int64(6), np.int64(BITS - 1)


class Alignment(NamedTuple):
    """Where normalized bytes come from, as the model's tool has it.

    kind     SAME: as they are from the original; IN_CHARACTER: the same, and each from all of its character; TO_NEXT:
             bytes a..b from starts[a] to starts[b], or to the document's item of stops if b is its end; TO_END: from
             starts[a] to the end of the character at starts[b - 1], or to the chunk's item of stops if that is one
             token; LISTED: from starts[a] to stops[b - 1]
    starts, stops   uint32, bytes of the original document, counted from its start; empty where the kind tells all
    """

    kind: int
    starts: np.ndarray
    stops: np.ndarray


class Habits(NamedTuple):
    """What a model's tool does.

    is_bytes: symbols are bytes; fuses: a run of unknown symbols is one id; drops: unknown symbols have no id; joins:
    unknown text that is spelled in bytes has one span
    lengths int32: the normalized bytes that each id stands for, -1 where that is not always the same
    is_sure bool: whether each id's piece begins with a symbol that is a piece itself, and so is never unknown
    made_unk uint8: the piece that is the unknown id, if merges make it of known symbols
    trims bool: for each time that spaces at the ends of pieces are cut off, whether one that begins a text stays
    leading, trailing int32: spaces at the ends of each id's name, empty if there is nothing to trim
    """

    is_bytes: bool
    fuses: bool
    drops: bool
    joins: bool
    lengths: np.ndarray
    is_sure: np.ndarray
    made_unk: np.ndarray
    trims: np.ndarray
    leading: np.ndarray
    trailing: np.ndarray


@compiled
def find_spans(batch, alignment, texts, text_offsets, ids, offsets, num_samples, n_before, n_after, is_null, tables,
               in_characters, spans):  # fmt: skip
    """Fill spans int64 [ids, 2]: the bytes or characters of the original document that each id stands for.

    batch: without chunk_ids if no chunk is one token. texts uint8, text_offsets: the documents. Rows have n_before and
    n_after ids around them, whose spans are 0, 0. tables: spelling and habits, which may be held.
    """
    spelling, habits = opened(tables)
    kind, starts, stops = alignment.kind, alignment.starts, alignment.stops
    doc_offsets, chunk_offsets, chunk_ids = batch.offsets, batch.chunk_offsets, batch.chunk_ids
    values, surfaces, piece_offsets, unk_id = batch.values, spelling.surfaces, spelling.offsets, spelling.unk_id
    lengths, is_sure, is_bytes = habits.lengths, habits.is_sure, habits.is_bytes
    has_tokens, i_first = len(chunk_ids) > 0, np.int64(0)
    # No byte, if it has none.
    unk_name = np.int64(-1)
    if unk_id >= 0 and piece_offsets[unk_id] < piece_offsets[unk_id + 1]:
        unk_name = np.int64(surfaces[piece_offsets[unk_id]])
    for i_doc in range(len(text_offsets) - 1):
        first, last = text_offsets[i_doc], text_offsets[i_doc + 1]
        while i_first + 2 < len(chunk_offsets) and chunk_offsets[i_first + 1] <= doc_offsets[i_doc]:
            i_first += 1
        # What makes a position in this document of one in the batch.
        to_text = first - doc_offsets[i_doc]
        for row in range(i_doc * num_samples, (i_doc + 1) * num_samples):
            if is_null[i_doc]:
                continue
            low, high = offsets[row] + n_before, offsets[row + 1] - n_after
            for k in range(n_before):
                spans[low - 1 - k, 0] = spans[low - 1 - k, 1] = 0
            for k in range(n_after):
                spans[high + k, 0] = spans[high + k, 1] = 0
            k, i_chunk = low, i_first
            p, end = doc_offsets[i_doc], doc_offsets[i_doc + 1]
            stop_of_last = np.int64(0)
            while k < high and p < end:
                # Indices are unsigned where most ids pass, for Numba takes one below 0 for one from the end.
                length, n = np.int64(lengths[np.uint64(ids[np.uint64(k)])]), np.int64(1)
                is_token = False
                if length < 0 or has_tokens:
                    while chunk_offsets[i_chunk + 1] <= p:
                        i_chunk += 1
                    is_token = has_tokens and chunk_ids[i_chunk] >= 0
                    if is_token:
                        length = chunk_offsets[i_chunk + 1] - p
                    elif ids[k] == unk_id and k + 1 < high and is_sure[ids[k + 1]]:
                        start, stop = piece_offsets[ids[k + 1]], piece_offsets[ids[k + 1] + 1]
                        length = _length_before(values, p, chunk_offsets[i_chunk + 1], surfaces, start, stop, unk_name,
                                                is_bytes)  # fmt: skip
                    if length < 0:
                        length, n = _odd_length(batch, i_chunk, p, end, ids, k, high, spelling, habits)
                stop = min(p + length, end)
                if kind == LISTED:
                    start_in_text, stop_in_text = np.int64(starts[p]), np.int64(stops[stop - 1])
                elif kind == TO_NEXT:
                    start_in_text = np.int64(starts[np.uint64(p)])
                    stop_in_text = np.int64(starts[np.uint64(stop)]) if stop < end else np.int64(stops[i_doc])
                elif kind == TO_END:
                    start_in_text, stop_in_text = np.int64(starts[p]), np.int64(starts[stop - 1])
                    if is_token:
                        stop_in_text = np.int64(stops[i_chunk])
                    else:
                        stop_in_text += bytes_of_character(texts[first + stop_in_text])
                else:
                    start_in_text, stop_in_text = p + to_text, stop + to_text
                    if kind == IN_CHARACTER:
                        while start_in_text > first and texts[start_in_text] & 0xC0 == 0x80:
                            start_in_text -= 1
                        while stop_in_text < last and texts[stop_in_text] & 0xC0 == 0x80:
                            stop_in_text += 1
                    start_in_text -= first
                    stop_in_text -= first
                for _ in range(n):
                    spans[np.uint64(k), 0], spans[np.uint64(k), 1] = start_in_text, stop_in_text
                    k += 1
                p, stop_of_last = stop, stop_in_text
            while k < high:
                spans[k, 0] = spans[k, 1] = stop_of_last
                k += 1
    if len(habits.trims) > 0:
        _trim_rows(texts, text_offsets, ids, offsets, num_samples, n_before, n_after, habits, spans)
    if in_characters:
        _count_characters(texts, text_offsets, offsets, num_samples, spans)


@compiled
def _trim_rows(texts, text_offsets, ids, offsets, num_samples, n_before, n_after, habits, spans):
    """Cut off the spaces at the ends of the pieces of all rows, as often as the model's tool does."""
    trims, leading, trailing = habits.trims, habits.leading, habits.trailing
    for row in range(len(offsets) - 1):
        first, last = text_offsets[row // num_samples], text_offsets[row // num_samples + 1]
        for i_trim in range(len(trims)):
            for k in range(offsets[row] + n_before, offsets[row + 1] - n_after):
                if leading[ids[k]] + trailing[ids[k]] > 0:
                    _trim(texts, first, last, trims[i_trim], k == offsets[row], leading[ids[k]], trailing[ids[k]],
                          spans, k)  # fmt: skip


@compiled
def _count_characters(texts, text_offsets, offsets, num_samples, spans):
    """Make spans in characters of those in bytes."""
    begins, counts = _characters_of(texts, text_offsets)
    for i_doc in range(len(text_offsets) - 1):
        at = text_offsets[i_doc] - text_offsets[0]
        n_before = _count_before(begins, counts, at)
        for k in range(np.uint64(offsets[i_doc * num_samples]), np.uint64(offsets[(i_doc + 1) * num_samples])):
            # A piece may begin within a character.
            is_text = np.int64(spans[k, 0] < spans[k, 1])
            spans[k, 0] = _count_before(begins, counts, at + spans[k, 0] + is_text) - is_text - n_before
            spans[k, 1] = _count_before(begins, counts, at + spans[k, 1]) - n_before


@compiled
def _characters_of(texts, text_offsets):
    """(begins uint64, a bit for each byte of the documents, the first one lowest: whether a character begins there;
    counts int64: how many begin before each word of them). A byte outside characters is one.
    """
    first, size, n_docs = text_offsets[0], text_offsets[-1] - text_offsets[0], len(text_offsets) - 1
    begins, counts = np.zeros(size // BITS + 1, np.uint64), np.empty(size // BITS + 1, np.int64)
    if are_valid(texts, text_offsets, 0, n_docs):
        for i_word in range(size // BITS):
            i = first + i_word * BITS
            begins[i_word] = starts_of_characters(texts, i) | starts_of_characters(texts, i + LANES) << np.uint64(LANES)
        for i in range(size // BITS * BITS, size):
            begins[i >> SHIFT] |= np.uint64(texts[first + i] & 0xC0 != 0x80) << np.uint64(i & LOW_BITS)
    else:
        for i_doc in range(n_docs):
            i, stop = text_offsets[i_doc], text_offsets[i_doc + 1]
            while i < stop:
                begins[(i - first) >> SHIFT] |= ONE << np.uint64((i - first) & LOW_BITS)
                i += max(1, character_length(texts, i, stop))
    n = np.int64(0)
    for i_word in range(len(begins)):
        counts[i_word] = n
        n += ones(begins[i_word])
    return begins, counts


@compiled(inline="always")
def _count_before(begins, counts, i):
    """How many characters begin before byte i of all documents."""
    at = np.uint64(i)
    before = (ONE << (at & np.uint64(LOW_BITS))) - ONE
    return counts[at >> np.uint64(SHIFT)] + ones(begins[at >> np.uint64(SHIFT)] & before)


@compiled(inline="always")
def _length_before(values, p, stop, surfaces, start, end, name, is_bytes):
    """How many bytes of values[p:stop] come before the piece surfaces[start:end], or all; -1 if they may hold the name
    of the unknown id, which begins with the byte `name`, or it may follow.
    """
    e, n = p, np.int64(0)
    while e < stop and n < end - start and values[e] != name:
        e += 1 if is_bytes else bytes_of_character(values[e])
        n = np.int64(0)
        while n < end - start and e + n < stop and values[e + n] == surfaces[start + n]:
            n += 1
    is_found = n == end - start and values[e] != name
    return e - p if e == stop or is_found else np.int64(-1)


@compiled
def _odd_length(batch, i_chunk, p, end, ids, k, high, spelling, habits):
    """(length, number): the normalized bytes from p on that ids[k] stands for, of which its piece does not tell all,
    and how many ids stand for them together; 0 for a symbol that has no id.
    """
    values, chunk_stop = batch.values, batch.chunk_offsets[i_chunk + 1]
    byte_of, is_bytes, i = spelling.byte_of, habits.is_bytes, ids[k]
    made, n_made = habits.made_unk, np.int64(len(habits.made_unk))
    if i == spelling.unk_id and n_made > 0:
        if _stands_at(values, p, chunk_stop, made, 0, n_made):
            return n_made, np.int64(1)
        if habits.fuses and k + 1 < high and ids[k + 1] == i:
            # Two in a row are not both for unknown symbols.
            e = p
            while e < chunk_stop and not _stands_at(values, e, chunk_stop, made, 0, n_made):
                e += symbol_length_from(values, e, is_bytes)
            return e - p, np.int64(1)
    if i == spelling.unk_id and habits.fuses:
        return _unknown_length(values, p, chunk_stop, ids, k, high, spelling.surfaces, spelling.offsets, byte_of,
                               spelling.unk_id, is_bytes), np.int64(1)  # fmt: skip
    if i == spelling.unk_id:
        return symbol_length_from(values[:chunk_stop], p, is_bytes), np.int64(1)
    length = np.int64(length_at(values[:end], p, i, spelling))
    n = np.int64(1)
    if byte_of[i] >= 0 and length == 1 and habits.joins:
        while k + n < high and p + n < chunk_stop and byte_of[ids[k + n]] == values[p + n]:
            n += 1
        return n, n
    if habits.drops and length < 0 and byte_of[i] < 0:
        return symbol_length_from(values, p, is_bytes), np.int64(0)
    return max(length, 1), n


@compiled
def _unknown_length(values, p, stop, ids, k, high, surfaces, piece_offsets, byte_of, unk_id, is_bytes):
    """How many bytes of the chunk values[p:stop] the unknown id ids[k] stands for, where a run of symbols is one id."""
    # Text may spell the unknown id's name; it is taken for one symbol if what follows allows that.
    text, name, end_of_name = values[:stop], piece_offsets[unk_id], piece_offsets[unk_id + 1]
    has_name = end_of_name > name
    name_first = np.int64(surfaces[name]) if has_name else np.int64(-1)
    first = byte = np.int64(-1)
    if k + 1 < high and ids[k + 1] != unk_id:
        first = np.int64(surfaces[min(piece_offsets[ids[k + 1]], len(surfaces) - 1)])
        byte = np.int64(byte_of[ids[k + 1]])
    for by_name in range(np.int64(has_name), -1, -1):
        e = p
        while e < stop:
            is_name = by_name and text[e] == name_first and _stands_at(text, e, stop, surfaces, name, end_of_name)
            e += end_of_name - name if is_name else symbol_length_from(text, e, is_bytes)
            if e < stop and text[e] != first and text[e] != byte:
                continue
            if (
                by_name
                and e < stop
                and text[e] == name_first
                and _stands_at(text, e, stop, surfaces, name, end_of_name)
            ):
                continue
            q, j = e, k + 1
            while q < stop and j < high and ids[j] != unk_id:
                start, end = piece_offsets[ids[j]], piece_offsets[ids[j] + 1]
                length = end - start
                if not _stands_at(text, q, stop, surfaces, start, end):
                    if text[q] != byte_of[ids[j]]:
                        break
                    length = np.int64(1)
                q += length
                j += 1
            if q == stop or (j > k + 1 and j < high and ids[j] == unk_id):
                return e - p
    return stop - p


@compiled(forceinline=True)
def _stands_at(text, p, stop, surfaces, start, end):
    """Whether text[p:stop] begins with surfaces[start:end]."""
    n = np.uint64(max(end - start, 0))
    is_same = p + end - start <= stop
    k = np.uint64(0)
    while is_same and k < n:
        is_same = text[np.uint64(p) + k] == surfaces[np.uint64(start) + k]
        k += ONE
    return is_same


@compiled
def _trim(texts, first, last, keeps_first, is_first, leading, trailing, spans, k):
    """Move the ends of a span inwards by characters."""
    start, stop = first + spans[k, 0], first + spans[k, 1]
    if keeps_first and leading == 1 and (is_first or start == first):
        leading = 0
    while leading > 0 and start < stop:
        start += max(1, character_length(texts, start, last))
        leading -= 1
    while trailing > 0 and stop > start:
        stop -= 1
        while stop > start and texts[stop] & 0xC0 == 0x80:
            stop -= 1
        trailing -= 1
    spans[k, 0], spans[k, 1] = start - first, stop - first
