"""Whether rows of ids spell the normalized text that they came from."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def first_misspelled(values, doc_offsets, ids, offsets, num_samples, is_null, surfaces, surface_offsets, unk_id):
    """The first row whose surfaces, joined, are not its document's normalized text; -1 if there is none.

    surfaces uint8, surface_offsets int64 [V + 1]. An unknown id stands for any text that is not empty: what follows
    it is looked for from left to right, and must end where the document ends.
    """
    for row in range(len(offsets) - 1):
        i_doc = row // num_samples
        if is_null[i_doc]:
            if offsets[row + 1] > offsets[row]:
                return row
            continue
        spelled = values[doc_offsets[i_doc] : doc_offsets[i_doc + 1]]
        if not _spells(spelled, ids[offsets[row] : offsets[row + 1]], surfaces, surface_offsets, unk_id):
            return row
    return np.int64(-1)


@njit(nogil=True, cache=True)
def _spells(text, ids, surfaces, surface_offsets, unk_id):
    p = np.int64(0)
    i = np.int64(0)
    while i < len(ids) and ids[i] != unk_id:
        length = _match(text, p, ids[i], surfaces, surface_offsets)
        if length < 0:
            return False
        p += length
        i += 1
    if i == len(ids):
        return p == len(text)
    # After the last unknown id everything is anchored at the end of the text.
    last = len(ids) - 1
    stop = len(text)
    while ids[last] != unk_id:
        start, end = surface_offsets[ids[last]], surface_offsets[ids[last] + 1]
        stop -= end - start
        if stop < p or _match(text, stop, ids[last], surfaces, surface_offsets) < 0:
            return False
        last -= 1
    while i <= last:
        i += 1
        p += 1
        first = i
        while i <= last and ids[i] != unk_id:
            i += 1
        if first < i:
            p = _find(text, p, stop, ids[first:i], surfaces, surface_offsets)
            if p < 0:
                return False
    return p <= stop


@njit(nogil=True, cache=True)
def _match(text, p, i, surfaces, surface_offsets):
    """The length of piece i if it stands at p, else -1."""
    start, end = surface_offsets[i], surface_offsets[i + 1]
    if p + end - start > len(text):
        return np.int64(-1)
    for k in range(end - start):
        if text[p + k] != surfaces[start + k]:
            return np.int64(-1)
    return end - start


@njit(nogil=True, cache=True)
def _find(text, p, stop, run, surfaces, surface_offsets):
    """The end of the first place in p..stop where the run of pieces stands, or -1."""
    for start in range(p, stop):
        end = start
        for i in run:
            length = _match(text, end, i, surfaces, surface_offsets)
            if length < 0 or end + length > stop:
                end = np.int64(-1)
                break
            end += length
        if end >= 0:
            return end
    return np.int64(-1)
