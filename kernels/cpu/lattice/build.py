"""The lattice of normalized text: its ranges between cuts, of which those that are new have their arcs looked up, and
the arcs of all of them, copied from there.

The arcs within a range depend on its text alone. So the text is divided as `sample` divides it, and what the automaton
(bulk/walk.py) finds in a range that came before is not looked for again. kernels/cuda/lattice/build.cu finds the same
arcs by the trie of reversed pieces.

An arc is a piece id, UNKNOWN, or TOKEN_ARC - id for a chunk that is a token as it stands.
kernels/cuda/common/text.cuh has the same values.
"""

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import range_at
from gpu_lattice.kernels.cpu.bulk.cuts import find_cuts
from gpu_lattice.kernels.cpu.bulk.distinct import enter
from gpu_lattice.kernels.cpu.machine import ONE
from gpu_lattice.kernels.cpu.utf8 import is_boundary, symbol_length

# Marks of a position: a chunk begins here, the byte that follows is within a token, a segment begins here.
# The end of a text is marked as a start of both kinds.
CHUNK = 1
TOKEN = 2
CUT = 4

CUTS_AT_ONCE = 512


@compiled
def enter_ranges(first, last, values, offsets, chunk_offsets, chunk_ids, pairs, keys, pages, characters, joined,
                 is_bytes, slots, text, bounds, token_ids, marks, entries):  # fmt: skip
    """The ranges of documents first..last; returns (how many there are, how many entries).

    marks uint8 [P], initially 0, of all documents. entries int64: of each range. Entries have distinct texts up to half
    of the slots, int64 [2^k], initially 0 (bulk/distinct.py); further ones, and tokens, have one each. Their texts are
    text[bounds[i]:bounds[i + 1]]; token_ids int32: -1, or the id of a token. There is room for as many as bytes.
    """
    cuts, places = np.empty(CUTS_AT_ONCE, np.int64), np.empty(CUTS_AT_ONCE, np.int64)
    n, n_entries = np.int64(0), np.int64(0)
    bounds[0] = 0
    i_chunk = range_at(chunk_offsets, offsets[first])
    for i_doc in range(first, last):
        p, stop = offsets[i_doc], offsets[i_doc + 1]
        while p < stop:
            while chunk_offsets[i_chunk + 1] <= p:
                i_chunk += 1
            chunk_start, chunk_stop = chunk_offsets[i_chunk], chunk_offsets[i_chunk + 1]
            is_token = chunk_ids[i_chunk] >= 0
            cuts[0], cuts[1], n_cuts = p, chunk_stop, 2
            if not is_token:
                n_cuts = find_cuts(values, chunk_stop, chunk_start, chunk_stop, pairs, keys, pages, characters, joined,
                                   is_bytes, cuts, 1, places)  # fmt: skip
            for k in range(n_cuts - 1):
                start, end = cuts[k], cuts[k + 1]
                if is_token or 2 * n_entries >= len(slots):
                    entry = n_entries
                    for q in range(start, end):
                        text[bounds[entry] + q - start] = values[q]
                    bounds[entry + 1] = bounds[entry] + end - start
                else:
                    entry = enter(values, start, end, slots, text, bounds, n_entries)
                if entry == n_entries:
                    token_ids[entry] = chunk_ids[i_chunk]
                    n_entries += 1
                marks[start + i_doc] = CUT
                entries[n] = entry
                n += 1
            if is_token:
                for q in range(p, chunk_stop):
                    marks[q + i_doc] = TOKEN
                marks[p + i_doc] = CUT | TOKEN
            if p == chunk_start:
                marks[p + i_doc] |= CHUNK
            p = cuts[n_cuts - 1]
        marks[stop + i_doc] = CHUNK | CUT
    return n, n_entries


@compiled
def place_entries(text, bounds, token_ids, found, words, count_bits, has_unknown, is_bytes, arc_offsets, arcs, lengths):
    """Write the arcs into every byte of the entries, shortest first; returns how many there are.

    found int32: the automaton's list of each byte; words int64: of its arc i, length << 32 | piece is words[2 i + 1]
    (bulk/group.py, Arcs). Those of entries that are tokens are of no account. arc_offsets int64 [bytes + 2]: position 0
    has no arcs, the others come after a byte.
    """
    mask = (np.int64(1) << np.int64(count_bits)) - 1
    j = np.int64(0)
    arc_offsets[0] = arc_offsets[1] = 0
    for i in range(len(bounds) - 1):
        stop = bounds[i + 1]
        for p in range(bounds[i], stop):
            if token_ids[i] >= 0:
                if p + 1 == stop:
                    arcs[j], lengths[j] = TOKEN_ARC - token_ids[i], stop - bounds[i]
                    j += 1
            else:
                listed = np.int64(found[p])
                k, n = listed >> np.int64(count_bits), listed & mask
                for word in range(2 * k + 1, 2 * (k + n) + 1, 2):
                    arcs[j], lengths[j] = np.int32(words[word] & 0xFFFFFFFF), words[word] >> 32
                    j += 1
                if n == 0 and has_unknown and is_boundary(text, p + 1, stop, is_bytes):
                    arcs[j], lengths[j] = UNKNOWN, symbol_length(text, p + 1, is_bytes)
                    j += 1
            arc_offsets[p + 2] = j
    return j


@compiled
def copy_arcs(low, high, doc_positions, range_offsets, starts, rows, row_starts, row_stops, row_offsets, row_arcs,
              row_lengths, firsts, arc_offsets, arcs, lengths):  # fmt: skip
    """Write the arcs of documents low..high: those of range i are copied from range rows[i] of another lattice.

    range_offsets int64 [B + 1], starts int64 [S]: the ranges of each document, and the position where each begins;
    firsts int64 [S + 1]: where their arcs begin. arc_offsets int64 [P + 1], its last one the caller's.
    """
    for i_doc in range(low, high):
        arc_offsets[doc_positions[i_doc]] = firsts[range_offsets[i_doc]]
        # Unsigned indices spare the check for negative ones, half of the time here.
        for i in range(np.uint64(range_offsets[i_doc]), np.uint64(range_offsets[i_doc + 1])):
            row, at, arc = np.uint64(rows[i]), np.uint64(starts[i]) + ONE, np.uint64(firsts[i])
            first, last = np.uint64(row_starts[row]) + ONE, np.uint64(row_stops[row]) + ONE
            source = np.uint64(row_offsets[first])
            shift = firsts[i] - row_offsets[first]
            for k in range(last - first):
                arc_offsets[at + k] = row_offsets[first + k] + shift
            for k in range(np.uint64(row_offsets[last]) - source):
                arcs[arc + k], lengths[arc + k] = row_arcs[source + k], row_lengths[source + k]
