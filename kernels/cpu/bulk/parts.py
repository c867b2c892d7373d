"""Parts: ranges of one document that are worked on alone, so that a long document keeps every core busy.

A document's parts depend on the document only. A part ends at a chunk's end, or at a static cut: one that no run of
unknown text crosses which has to be read as one, if it is near; else the end is *open*, and the run goes on in the next
part, which is worked on after this one.

A segment of more than a block is the last one of its part. It is worked on block by block, so that what a call holds
besides its results does not grow with the text.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import longest_of, range_at
from gpu_lattice.kernels.cpu.bulk.arcs import child
from gpu_lattice.kernels.cpu.bulk.cuts import find_cuts
from gpu_lattice.kernels.cpu.utf8 import symbol_length

PART_BYTES = 1 << 14
GROUP_BYTES = 1 << 14
# New segments that are worked on before the others are looked up once more.
AT_ONCE = 256
BLOCK_BYTES = 2 * PART_BYTES
# A block keeps at most this share of what it works out: the scores of as many positions as an arc may be long.
BLOCK_ARCS = 16


@compiled
def block_bytes(longest):
    """How many bytes of a segment are worked on at once; longest: the bytes of the longest arc."""
    return max(BLOCK_BYTES, BLOCK_ARCS * longest)


@compiled
def scratch_bytes(part_offsets, longest):
    """Positions for which a group of parts needs room at once."""
    block, most = block_bytes(longest), longest_of(part_offsets)
    if most > block:
        return 2 * PART_BYTES + block + longest
    return min(max(GROUP_BYTES, most), part_offsets[-1] - part_offsets[0])


@compiled
def group_end(part_offsets, low):
    """The end of a group of parts that begins with `low`: one part, or several of GROUP_BYTES together."""
    high = low + 1
    while high + 1 < len(part_offsets) and part_offsets[high + 1] - part_offsets[low] <= GROUP_BYTES:
        high += 1
    return high


@compiled
def filled_documents(offsets):
    """The boundaries of the documents that are not empty: offsets, each once."""
    bounds = np.empty(len(offsets), np.int64)
    bounds[0] = offsets[0]
    n = 1
    for i in range(1, len(offsets)):
        bounds[n] = offsets[i]
        n += offsets[i] > offsets[i - 1]
    return bounds[:n]


@compiled
def plan_parts(batch, pieces, part_bytes):
    """(part_offsets int64 [n + 1], part_docs int64 [n], firsts int64 [m + 1]): the parts tile the batch in order.

    The documents of the batch may be words (words.py): cuts that no run of unknown text crosses.
    firsts: the parts that do not begin at an open end, then n; from one to the next, parts are worked on in order.
    """
    offsets = batch.offsets
    n_docs = len(offsets) - 1
    capacity = n_docs + (offsets[n_docs] - offsets[0]) // part_bytes + 1
    part_offsets = np.empty(capacity + 1, np.int64)
    part_docs, firsts = np.empty(capacity, np.int64), np.empty(capacity + 1, np.int64)
    n = n_firsts = 0
    is_open = False
    for i_doc in range(n_docs):
        p, stop = offsets[i_doc], offsets[i_doc + 1]
        while p < stop:
            part_offsets[n], part_docs[n], firsts[n_firsts] = p, i_doc, n
            n_firsts += not is_open
            n += 1
            # A call takes as long as some ten bytes of text.
            p, is_open = (stop, False) if stop - p <= part_bytes else _part_end(batch, p, part_bytes, pieces)
            # Where documents are words, their end may be passed.
            p, is_open = (p, is_open) if p < stop else (stop, False)
    part_offsets[n], firsts[n_firsts] = offsets[n_docs], n
    return part_offsets[: n + 1], part_docs[:n], firsts[: n_firsts + 1]


@compiled
def _part_end(batch, start, part_bytes, pieces):
    """The end of the part that begins at start, and whether it is open."""
    values, chunk_offsets = batch.values, batch.chunk_offsets
    p = start + part_bytes
    i_chunk = range_at(chunk_offsets, p)
    chunk_start, chunk_stop = chunk_offsets[i_chunk], chunk_offsets[i_chunk + 1]
    if p == chunk_start:
        return p, False
    if batch.chunk_ids[i_chunk] >= 0:
        return chunk_stop, False
    while not pieces.is_bytes and p < chunk_stop and values[p] & 0xC0 == 0x80:
        p += 1
    cuts, places = np.empty(2, np.int64), np.empty(2, np.int64)
    while p < chunk_stop:
        cuts[0] = p
        find_cuts(values, p + 1, chunk_start, chunk_stop, pieces.pairs, pieces.keys, pieces.pages, pieces.characters,
                  pieces.joined, pieces.is_bytes, cuts, 1, places)  # fmt: skip
        p = cuts[1]
        is_open = p < chunk_stop and not (
            pieces.spells
            or ends_known(values, chunk_start, p, pieces.slots, pieces.piece_at, pieces.unk_id, pieces.is_bytes)
        )
        if not is_open or p >= start + 2 * part_bytes:
            return p, is_open
    return chunk_stop, False


@compiled
def ends_known(values, start, e, slots, piece_at, unk_id, is_bytes):
    """Whether no unknown arc, nor a piece that is the unknown token itself, can end at e."""
    symbol = symbol_length(values, e, is_bytes)
    node = np.int64(0)
    known = False
    for s in range(e - 1, start - 1, -1):
        node = child(slots, node, values[s])
        if node < 0:
            break
        if piece_at[node] >= 0 and piece_at[node] == unk_id:
            return False
        known |= e - s == symbol and piece_at[node] >= 0
    return known
