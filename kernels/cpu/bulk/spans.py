"""Where in the texts the ids of rows are, from the lengths of their pieces and where normalized bytes come from.

Unknown text of any length may stand before what follows an unknown id; of several places, what follows is at the first.
"""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.verify import length_at
from gpu_lattice.kernels.cpu.machine import ONE
from gpu_lattice.kernels.cpu.utf8 import are_valid, character_length, symbol_length_from

# Which span a byte piece has: of its byte, of all unknown text that is spelled in bytes, or of its character if it is
# the last byte, and else the place where that begins.
OWN, RUN, LAST = range(3)


class Habits(NamedTuple):
    """What a model's tool does.

    is_bytes: symbols are bytes; fuses: a run of unknown symbols is one id; drops: unknown symbols have no id
    byte_spans: OWN, RUN or LAST
    trims bool: for each time that spaces at the ends of pieces are cut off, whether one that begins a text stays
    leading, trailing int32: spaces at the ends of each id's name, empty if there is nothing to trim
    """

    is_bytes: bool
    fuses: bool
    drops: bool
    byte_spans: int
    trims: np.ndarray
    leading: np.ndarray
    trailing: np.ndarray


@compiled
def find_spans(batch, starts, stops, texts, text_offsets, ids, offsets, num_samples, n_before, n_after, is_null,
               spelling, habits, in_characters, spans):  # fmt: skip
    """Fill spans int64 [ids, 2]: the bytes or characters of the original document that each id stands for.

    starts, stops int64: of every normalized byte, in the document. texts uint8, text_offsets: the documents. Rows
    have n_before and n_after ids around them, whose spans are 0, 0.
    """
    trims, leading, trailing = habits.trims, habits.leading, habits.trailing
    doc_offsets, chunk_offsets, chunk_ids = batch.offsets, batch.chunk_offsets, batch.chunk_ids
    piece_offsets, byte_of, unk_id = spelling.offsets, spelling.byte_of, spelling.unk_id
    drops, characters, i_first = habits.drops, np.empty(0, np.int64), np.int64(0)
    for i_doc in range(len(text_offsets) - 1):
        first, last = text_offsets[i_doc], text_offsets[i_doc + 1]
        if in_characters:
            if last - first >= len(characters):
                characters = np.empty(2 * (last - first + 1), np.int64)
            _number_characters(texts, text_offsets, i_doc, characters)
        while i_first + 2 < len(chunk_offsets) and chunk_offsets[i_first + 1] <= doc_offsets[i_doc]:
            i_first += 1
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
            chunk_stop = p
            while k < high and p < end:
                if p >= chunk_stop:
                    while chunk_offsets[i_chunk + 1] <= p:
                        i_chunk += 1
                    chunk_stop = chunk_offsets[i_chunk + 1]
                i = np.int64(ids[k])
                if i == unk_id or byte_of[i] >= 0 or chunk_ids[i_chunk] >= 0 or drops:
                    k, p = _place_odd(batch, i_chunk, p, end, starts, stops, ids, k, high, spelling, habits, spans)
                    continue
                stop = min(p + piece_offsets[i + 1] - piece_offsets[i], end)
                spans[k, 0], spans[k, 1] = starts[p], stops[stop - 1]
                p = stop
                k += 1
            while k < high:
                spans[k, 0] = spans[k, 1] = stops[end - 1] if end > doc_offsets[i_doc] else 0
                k += 1
            for i_trim in range(len(trims)):
                for k in range(low, high):
                    if leading[ids[k]] + trailing[ids[k]] > 0:
                        _trim(texts, first, last, trims[i_trim], k == offsets[row], leading[ids[k]], trailing[ids[k]],
                              spans, k)  # fmt: skip
            if in_characters:
                for k in range(low, high):
                    start, stop = spans[k, 0], spans[k, 1]
                    spans[k, 1] = characters[stop]
                    # A piece may begin within a character.
                    spans[k, 0] = characters[start + 1] - 1 if start < stop else characters[start]


@compiled
def _number_characters(texts, text_offsets, i_doc, characters):
    """characters[i]: how many characters begin before byte i of a document; a byte outside characters is one."""
    first, last = text_offsets[i_doc], text_offsets[i_doc + 1]
    i, n = first, np.int64(0)
    if are_valid(texts, text_offsets, i_doc, i_doc + 1):
        while i < last:
            characters[i - first] = n
            n += texts[i] & 0xC0 != 0x80
            i += 1
    while i < last:
        length = np.int64(1) if texts[i] < 0x80 else max(character_length(texts, i, last), 1)
        characters[i - first] = n
        n += 1
        for k in range(1, length):
            characters[i - first + k] = n
        i += length
    characters[last - first] = n


@compiled
def _place_odd(batch, i_chunk, p, end, starts, stops, ids, k, high, spelling, habits, spans):
    """Fill the spans, in bytes, of ids[k], of which the length of its piece does not tell all, and of those that are
    placed with it; returns (the id, the byte of the batch that come next).
    """
    values, chunk_stop = batch.values, batch.chunk_offsets[i_chunk + 1]
    byte_of, unk_id, is_bytes = spelling.byte_of, spelling.unk_id, habits.is_bytes
    i = ids[k]
    if batch.chunk_ids[i_chunk] >= 0:
        length = chunk_stop - p
    elif i == unk_id:
        length = (
            _unknown_length(values, p, chunk_stop, ids, k, high, spelling.surfaces, spelling.offsets, byte_of, unk_id,
                            is_bytes)
            if habits.fuses
            else symbol_length_from(values[:chunk_stop], p, is_bytes)
        )  # fmt: skip
    elif byte_of[i] >= 0 and length_at(values[:end], p, i, spelling) == 1 and habits.byte_spans != OWN:
        n = _place_bytes(values, p, chunk_stop, starts, stops, ids, k, high, spelling, habits.byte_spans, spans)
        return k + n, p + n
    elif byte_of[i] >= 0:
        length = max(1, length_at(values[:end], p, i, spelling))
    else:
        length = spelling.offsets[i + 1] - spelling.offsets[i]
        if habits.drops and length_at(values[:end], p, i, spelling) < 0:
            return k, p + symbol_length_from(values, p, is_bytes)
    stop = min(p + length, end)
    spans[k, 0], spans[k, 1] = starts[p], stops[stop - 1]
    return k + 1, stop


@compiled
def _place_bytes(values, p, stop, starts, stops, ids, k, high, spelling, byte_spans, spans):
    """Fill the spans of byte pieces from ids[k] on, of one character or of a run in values[p:stop]; how many."""
    n = np.int64(1)
    while k + n < high and p + n < stop and spelling.byte_of[ids[k + n]] == values[p + n] and (
        byte_spans == RUN or values[p + n] & 0xC0 == 0x80
    ):  # fmt: skip
        n += 1
    for j in range(n):
        spans[k + j, 0] = starts[p]
        spans[k + j, 1] = stops[p + n - 1] if byte_spans == RUN or j == n - 1 else starts[p]
    return n


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
