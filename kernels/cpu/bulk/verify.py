"""Whether rows of ids spell the normalized text that they came from."""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled


class Spelling(NamedTuple):
    """What ids stand for.

    surfaces uint8 and offsets int64 [V + 1]: the text of every id; contents, content_offsets: one that an id may stand
    for instead, which is not a part of that, or nothing; byte_of int16 [V]: the byte that an id of byte fallback may
    stand for instead, else -1; unk_id: the id that stands for any text that is not empty, or -1
    """

    surfaces: np.ndarray
    offsets: np.ndarray
    contents: np.ndarray
    content_offsets: np.ndarray
    byte_of: np.ndarray
    unk_id: int


@compiled
def first_misspelled(values, doc_offsets, ids, offsets, num_samples, n_before, n_after, is_null, spelling):
    """The first row whose ids, without n_before and n_after around it, do not spell its document; -1 if all do.

    After an unknown id, what follows is looked for from left to right; the end of a row must be the text's end.
    """
    for row in range(len(offsets) - 1):
        i_doc = row // num_samples
        start, stop = offsets[row], offsets[row + 1]
        if is_null[i_doc]:
            if stop > start:
                return row
            continue
        text = values[doc_offsets[i_doc] : doc_offsets[i_doc + 1]]
        if stop - start < n_before + n_after or not _spells(text, ids[start + n_before : stop - n_after], spelling):
            return row
    return np.int64(-1)


@compiled
def _spells(text, ids, spelling):
    begin, p, i = np.int64(0), np.int64(0), np.int64(0)
    while i < len(ids) and ids[i] != spelling.unk_id:
        length = length_at(text, p, ids[i], spelling)
        if length < 0 and i > 0 and spelling.content_offsets[ids[i - 1]] < spelling.content_offsets[ids[i - 1] + 1]:
            # The id before stands for its piece, though its content, which begins alike, was there too.
            start, end = spelling.offsets[ids[i - 1]], spelling.offsets[ids[i - 1] + 1]
            p = begin + end - start
            if _equals(text, begin, spelling.surfaces, start, end):
                length = length_at(text, p, ids[i], spelling)
        if length < 0:
            return False
        begin, p, i = p, p + length, i + 1
    if i == len(ids):
        return p == len(text)
    stop, last = np.int64(len(text)), np.int64(len(ids) - 1)
    while ids[last] != spelling.unk_id:
        length = _length_before(text, stop, ids[last], spelling)
        if length < 0 or stop - length < p:
            return False
        stop -= length
        last -= 1
    while i <= last:
        i += 1
        p += 1
        first = i
        while i <= last and ids[i] != spelling.unk_id:
            i += 1
        if first < i:
            p = _find(text[:stop], p, ids[first:i], spelling)
            if p < 0:
                return False
    return p <= stop


@compiled
def length_at(text, p, i, spelling):
    """How many bytes of text from p on the id i stands for, -1 if it does not."""
    start, end = spelling.content_offsets[i], spelling.content_offsets[i + 1]
    if start < end and _equals(text, p, spelling.contents, start, end):
        return end - start
    start, end = spelling.offsets[i], spelling.offsets[i + 1]
    if _equals(text, p, spelling.surfaces, start, end):
        return end - start
    return np.int64(1) if p < len(text) and text[p] == spelling.byte_of[i] else np.int64(-1)


@compiled
def _length_before(text, stop, i, spelling):
    """As `length_at`, for the bytes before stop."""
    start, end = spelling.content_offsets[i], spelling.content_offsets[i + 1]
    if start < end and _equals(text, stop - (end - start), spelling.contents, start, end):
        return end - start
    start, end = spelling.offsets[i], spelling.offsets[i + 1]
    if _equals(text, stop - (end - start), spelling.surfaces, start, end):
        return end - start
    return np.int64(1) if stop > 0 and text[stop - 1] == spelling.byte_of[i] else np.int64(-1)


@compiled
def _equals(text, p, surfaces, start, end):
    if p < 0 or p + end - start > len(text):
        return False
    for k in range(end - start):
        if text[p + k] != surfaces[start + k]:
            return False
    return True


@compiled
def _find(text, p, ids, spelling):
    """The end of the first place at or after p where the ids stand, or -1."""
    for start in range(p, len(text)):
        end = np.int64(start)
        for i in ids:
            length = length_at(text, end, i, spelling)
            if length < 0:
                end = np.int64(-1)
                break
            end += length
        if end >= 0:
            return end
    return np.int64(-1)
