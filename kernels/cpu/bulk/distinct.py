"""The distinct segments of a text, each with the weight of the documents in which it occurs, added in their order.

What a segment contributes to a sum over a corpus depends on its text alone, so it is worked out once. Segments are kept
in the order in which they were first met: tables of consecutive texts, merged in their order, hold what one table of
all of them would, and the weights are sums of the tables' own.
"""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import range_at
from gpu_lattice.kernels.cpu.bulk.cuts import find_cuts
from gpu_lattice.kernels.cpu.bulk.memo import fold
from gpu_lattice.kernels.cpu.machine import load_word

CUTS_AT_ONCE = 512


class Distinct(NamedTuple):
    """Room for segments; how many there are, n, is told beside it.

    slots    int64 [N], N a power of two: the high 32 bits of a hash and an entry's number + 1, or 0
    text     uint8, the segments one after another
    offsets  int64 [M + 1], segment i is text[offsets[i]:offsets[i + 1]]; N > 2 M
    weights  float64 [M]
    docs     int64 [M], the document in which it was met first
    """

    slots: np.ndarray
    text: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray
    docs: np.ndarray


class Members(NamedTuple):
    """The segments of documents in order: entries int32 [m] of a table, docs int64 [m]; m may be 0: not wanted."""

    entries: np.ndarray
    docs: np.ndarray


@compiled
def enter_segments(batch, p, stop, pieces, doc_weights, first_doc, table, n, members, n_members):
    """Enter the segments of p..stop; doc_weights float64 [D] of the batch's documents, the first called first_doc.

    Returns (where it stopped for want of room, or stop; n; n_members).
    """
    values, offsets, chunk_offsets, chunk_ids = batch.values, batch.offsets, batch.chunk_offsets, batch.chunk_ids
    pairs, keys, pages, characters, joined = pieces.pairs, pieces.keys, pieces.pages, pieces.characters, pieces.joined
    is_bytes = pieces.is_bytes
    slots, text, starts, weights, docs = table.slots, table.text, table.offsets, table.weights, table.docs
    entries, member_docs = members.entries, members.docs
    cuts, places = np.empty(CUTS_AT_ONCE, np.int64), np.empty(CUTS_AT_ONCE, np.int64)
    i_chunk, i_doc = range_at(chunk_offsets, p), range_at(offsets, p)
    while p < stop:
        while chunk_offsets[i_chunk + 1] <= p:
            i_chunk += 1
        chunk_stop = chunk_offsets[i_chunk + 1]
        if chunk_ids[i_chunk] >= 0:
            p = chunk_stop
            continue
        while offsets[i_doc + 1] <= p:
            i_doc += 1
        cuts[0] = p
        n_cuts = find_cuts(values, chunk_stop, chunk_offsets[i_chunk], chunk_stop, pairs, keys, pages, characters,
                           joined, is_bytes, cuts, 1, places)  # fmt: skip
        end = cuts[n_cuts - 1]
        if (
            n + n_cuts > len(weights)
            or starts[n] + end - p > len(text)
            or (len(entries) > 0 and n_members + n_cuts > len(entries))
        ):
            break
        for k in range(1, n_cuts):
            entry = enter(values, cuts[k - 1], cuts[k], slots, text, starts, n)
            if entry == n:
                weights[n], docs[n] = 0.0, first_doc + i_doc
                n += 1
            weights[entry] += doc_weights[i_doc]
            if len(entries) > 0:
                entries[n_members], member_docs[n_members] = entry, i_doc
                n_members += 1
        p = end
    return p, n, n_members


@compiled(forceinline=True)
def enter(values, start, stop, slots, text, offsets, n):
    """The entry of values[start:stop]; n if it is new, and then its text is there."""
    hashed = hash_of(values, start, stop)
    mask = len(slots) - 1
    slot = np.int64(hashed) & mask
    high = np.int64(hashed >> np.uint64(32))
    entry = np.int64(-1)
    while slots[slot] != 0 and entry < 0:
        if (slots[slot] >> 32) & 0xFFFFFFFF == high:
            i = (slots[slot] & 0xFFFFFFFF) - 1
            at, last = offsets[i], offsets[i + 1]
            is_same = last - at == stop - start
            p = start
            while is_same and p < stop:
                is_same = load_word(values, p, stop) == load_word(text, at, last)
                p += 8
                at += 8
            if is_same:
                entry = i
        slot = (slot + 1) & mask
    if entry < 0:
        slots[slot] = high << 32 | (n + 1)
        at = offsets[n]
        for p in range(start, stop):
            text[at + p - start] = values[p]
        offsets[n + 1] = at + stop - start
        entry = n
    return entry


@compiled(forceinline=True)
def hash_of(values, start, stop):
    hashed = np.uint64(stop - start)
    for p in range(start, stop, 8):
        hashed = fold(hashed, load_word(values, p, stop))
    return hashed


@compiled
def enter_listed(other, listed, first, table, n):
    """Enter the segments listed[first], listed[first + 1], ... of another table, with their weights; returns (where in
    the list it stopped for want of room, or its end; n).
    """
    values, bounds, other_weights, other_docs = other.text, other.offsets, other.weights, other.docs
    slots, text, offsets, weights, docs = table.slots, table.text, table.offsets, table.weights, table.docs
    k = first
    while k < len(listed):
        i = listed[k]
        if n == len(weights) or offsets[n] + bounds[i + 1] - bounds[i] > len(text):
            break
        entry = enter(values, bounds[i], bounds[i + 1], slots, text, offsets, n)
        if entry == n:
            weights[n], docs[n] = 0.0, other_docs[i]
            n += 1
        weights[entry] += other_weights[i]
        k += 1
    return k, n


@compiled
def add_by_document(entries, docs, n, values, totals):
    """totals[docs[k]] += values[entries[k]] for each of the first n members, in their order."""
    for k in range(n):
        totals[docs[k]] += values[entries[k]]
