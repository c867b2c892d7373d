"""Parts: ranges of one document that are worked on alone, so that a long document keeps every core busy.

A document's parts depend on the document only. A part ends at a chunk's end, or at a static cut where no unknown arc
ends unless byte pieces always spell it: no run of unknown text that has to be read as one crosses from part to part.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import range_at
from gpu_lattice.kernels.cpu.bulk.arcs import child
from gpu_lattice.kernels.cpu.bulk.cuts import find_cuts
from gpu_lattice.kernels.cpu.utf8 import symbol_length

PART_BYTES = 1 << 14
GROUP_BYTES = 1 << 14
# New segments that are worked on before the others are looked up once more.
AT_ONCE = 256


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
    """(part_offsets int64 [n + 1], part_docs int64 [n]): the parts tile the batch in order."""
    offsets = batch.offsets
    n_docs = len(offsets) - 1
    capacity = n_docs + (offsets[n_docs] - offsets[0]) // part_bytes + 1
    part_offsets = np.empty(capacity + 1, np.int64)
    part_docs = np.empty(capacity, np.int64)
    n = 0
    for i_doc in range(n_docs):
        p, stop = offsets[i_doc], offsets[i_doc + 1]
        while p < stop:
            part_offsets[n], part_docs[n] = p, i_doc
            n += 1
            # A call takes as long as some ten bytes of text.
            p = stop if stop - p <= part_bytes else _part_end(batch, p + part_bytes, pieces)
    part_offsets[n] = offsets[n_docs]
    return part_offsets[: n + 1], part_docs[:n]


@compiled
def _part_end(batch, p, pieces):
    """The first end of a part at or after p."""
    values, chunk_offsets = batch.values, batch.chunk_offsets
    i_chunk = range_at(chunk_offsets, p)
    chunk_start, chunk_stop = chunk_offsets[i_chunk], chunk_offsets[i_chunk + 1]
    if p == chunk_start:
        return p
    if batch.chunk_ids[i_chunk] >= 0:
        return chunk_stop
    while not pieces.is_bytes and p < chunk_stop and values[p] & 0xC0 == 0x80:
        p += 1
    cuts, places = np.empty(2, np.int64), np.empty(2, np.int64)
    while p < chunk_stop:
        cuts[0] = p
        find_cuts(values, p + 1, chunk_start, chunk_stop, pieces.pairs, pieces.keys, pieces.pages, pieces.characters,
                  pieces.joined, pieces.is_bytes, cuts, 1, places)  # fmt: skip
        p = cuts[1]
        if pieces.spells or ends_known(
            values, chunk_start, p, pieces.slots, pieces.piece_at, pieces.unk_id, pieces.is_bytes
        ):
            return p
    return chunk_stop


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
