"""Words: what `rate` resamples or leaves alone, and what keeps its best segmentation where pieces are missing.

A word is a union of segments, and no run of unknown text crosses from one to the next (reference.py, words).
"""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import range_at
from gpu_lattice.kernels.cpu.bulk.arcs import child
from gpu_lattice.kernels.cpu.bulk.cuts import find_cuts
from gpu_lattice.kernels.cpu.bulk.parts import ends_known
from gpu_lattice.kernels.cpu.bulk.segments import WORD_START
from gpu_lattice.kernels.cpu.machine import load_word
from gpu_lattice.kernels.cpu.utf8 import is_boundary, symbol_length

# Where words end within a chunk: nowhere, at every cut, at cuts before a "▁", at cuts after one.
BY_CHUNK, BY_CUT, BY_MARK, BY_MARK_BEHIND = range(4)

CUTS_AT_ONCE = 512
MARK_BYTES = 3


class Words(NamedTuple):
    """W words that tile a batch.

    offsets int64 [W + 1]; docs int64 [W], the document of each; chunk_ids int32 [W], the id of one that is a token as
    it stands, else -1
    """

    offsets: np.ndarray
    docs: np.ndarray
    chunk_ids: np.ndarray


@compiled
def find_words(batch, pieces, division):
    """(offsets, docs, chunk_ids) of the Words of a batch; division: where they end, BY_CHUNK and so on."""
    values, doc_offsets, chunk_offsets, chunk_ids = batch.values, batch.offsets, batch.chunk_offsets, batch.chunk_ids
    pairs, keys, pages, characters, joined = pieces.pairs, pieces.keys, pieces.pages, pieces.characters, pieces.joined
    slots, piece_at, unk_id, spells, is_bytes = (
        pieces.slots, pieces.piece_at, pieces.unk_id, pieces.spells, pieces.is_bytes
    )  # fmt: skip
    n_docs = len(doc_offsets) - 1
    first, last = doc_offsets[0], doc_offsets[n_docs]
    # Pages that are never written take no memory.
    offsets, docs = np.empty(last - first + 1, np.int64), np.empty(last - first, np.int64)
    ids = np.empty(last - first, np.int32)
    cuts, places = np.empty(CUTS_AT_ONCE, np.int64), np.empty(CUTS_AT_ONCE, np.int64)
    n = i_doc = np.int64(0)
    i_chunk = range_at(chunk_offsets, first)
    offsets[0] = first
    while offsets[n] < last:
        start, stop = chunk_offsets[i_chunk], chunk_offsets[i_chunk + 1]
        while doc_offsets[i_doc + 1] <= start:
            i_doc += 1
        p = start if division != BY_CHUNK and chunk_ids[i_chunk] < 0 else stop
        while p < stop:
            cuts[0] = p
            n_cuts = find_cuts(values, stop, start, stop, pairs, keys, pages, characters, joined, is_bytes, cuts, 1,
                               places)  # fmt: skip
            for i in range(1, n_cuts):
                p = cuts[i]
                if division == BY_MARK and load_word(values, p, min(p + MARK_BYTES, stop)) != WORD_START:
                    continue
                if division == BY_MARK_BEHIND and load_word(values, max(p - MARK_BYTES, start), p) != WORD_START:
                    continue
                if p < stop and (spells or ends_known(values, start, p, slots, piece_at, unk_id, is_bytes)):
                    docs[n], ids[n] = i_doc, -1
                    n += 1
                    offsets[n] = p
        docs[n], ids[n] = i_doc, chunk_ids[i_chunk]
        n += 1
        offsets[n] = stop
        i_chunk += 1
    return offsets[: n + 1].copy(), docs[:n].copy(), ids[:n].copy()


@compiled
def find_unspellable(values, offsets, chunk_ids, slots, piece_at, has_unknown, is_bytes):
    """bool [W]: whether no path crosses a word; slots, piece_at: the trie of reversed pieces."""
    n_words = len(chunk_ids)
    out = np.zeros(n_words, np.bool_)
    reached = np.zeros(64, np.bool_)
    for i in range(n_words):
        start, stop = offsets[i], offsets[i + 1]
        if chunk_ids[i] >= 0:
            continue
        if stop - start >= len(reached):
            reached = np.zeros(2 * (stop - start), np.bool_)
        reached[0] = True
        for e in range(start + 1, stop + 1):
            reached[e - start] = is_boundary(values, e, stop, is_bytes) and _is_reached(
                values, start, e, reached, slots, piece_at, has_unknown, is_bytes
            )
        out[i] = not reached[stop - start]
    return out


@compiled
def _is_reached(values, start, e, reached, slots, piece_at, has_unknown, is_bytes):
    """Whether an arc into e begins where a path ends; reached: of the positions from start on."""
    symbol = symbol_length(values, e, is_bytes)
    node = np.int64(0)
    is_known = False
    for s in range(e - 1, start - 1, -1):
        node = child(slots, node, values[s])
        if node < 0:
            break
        if piece_at[node] >= 0:
            is_known |= e - s == symbol
            if reached[s - start]:
                return True
    return has_unknown and not is_known and reached[e - symbol - start]
