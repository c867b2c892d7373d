"""Best segmentation of one segment, with the sums of the model's own tool: left to right, in best_at's dtype.

Pulling arcs shortest first with >= gives the tools' rule that of equal sums the longest last arc wins. SentencePiece
also subtracts a start's score from every reached end when it leaves [-reset, reset]; ends within one piece of such a
start are done in the tool's order, longest arc first, so that each sum is rounded as the tool rounds it.
Source: sentencepiece 0.2.3 Model::EncodeOptimized; tokenizers 0.23.3 Unigram; bytepiece 0.6.3 Tokenizer.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.arcs import UNKNOWN
from gpu_lattice.kernels.cpu.bulk.memo import HEAD
from gpu_lattice.kernels.cpu.utf8 import is_boundary, symbol_length


@compiled
def viterbi(values, start, stop, slots, piece_at, best_at, best_unk, lowest, reset, longest, is_bytes, best, subtracted,
            back_arc, back_start):  # fmt: skip
    """Write best scores and back-pointers of start..stop to index 0..; `lowest` where no path ends.

    best[0]: what the caller has summed up to start, within the bounds of the reset. best, subtracted: dtype of best_at,
    back_arc int32, back_start int64, all at least stop - start + 1 long. longest: bytes of the longest arc.
    """
    subtracted[0] = 0
    zero = subtracted[0]
    last_reset = -longest
    for e in range(start + 1, stop + 1):
        i = e - start
        subtracted[i] = zero
        if not is_boundary(values, e, stop, is_bytes):
            best[i] = lowest
            continue
        if i - last_reset < longest:
            top, arc, arc_start = _pull_across_resets(
                values, start, e, slots, piece_at, best_at, best_unk, lowest, longest, is_bytes, best, subtracted
            )
        else:
            symbol = symbol_length(values, e, is_bytes)
            top = lowest
            arc, arc_start = np.int32(UNKNOWN), np.int64(e - symbol)
            node = np.int64(0)
            s = e
            while s > start:
                slot = np.int64(slots[2 * node]) + np.int64(values[s - 1])
                if slots[2 * slot + 1] != node:
                    break
                node = slot
                s -= 1
                if piece_at[node] >= 0:
                    candidate = best[s - start] + best_at[node]
                    if candidate >= top and candidate > lowest:
                        top, arc, arc_start = candidate, piece_at[node], np.int64(s)
                elif e - s == symbol:
                    top = best[s - start] + best_unk
            if e - s < symbol:
                top = best[e - symbol - start] + best_unk
        back_arc[i], back_start[i] = arc, arc_start
        if abs(top) > reset and e < stop and top > lowest:
            subtracted[i] = top
            top = zero
            last_reset = i
        best[i] = top


@compiled
def _pull_across_resets(values, start, e, slots, piece_at, best_at, best_unk, lowest, longest, is_bytes, best,
                        subtracted):  # fmt: skip
    """Longest arc first: what a reset at p takes from an end goes after the arcs that begin before p."""
    symbol = symbol_length(values, e, is_bytes)
    arcs = np.empty(longest + 1, np.int32)
    arc_starts = np.empty(longest + 1, np.int64)
    arc_scores = np.empty(longest + 1, best.dtype)
    n = 0
    node = np.int64(0)
    s = e
    while s > start:
        slot = np.int64(slots[2 * node]) + np.int64(values[s - 1])
        if slots[2 * slot + 1] != node:
            break
        node = slot
        s -= 1
        if piece_at[node] >= 0:
            arcs[n], arc_starts[n], arc_scores[n] = piece_at[node], s, best_at[node]
            n += 1
        elif e - s == symbol:
            arcs[n], arc_starts[n], arc_scores[n] = UNKNOWN, s, best_unk
            n += 1
    if e - s < symbol:
        arcs[n], arc_starts[n], arc_scores[n] = UNKNOWN, e - symbol, best_unk
        n += 1
    top = lowest
    arc, arc_start = np.int32(UNKNOWN), np.int64(e - symbol)
    p = arc_starts[n - 1] + 1 if n else e
    for k in range(n - 1, -1, -1):
        while p <= arc_starts[k]:
            top -= subtracted[p - start]
            p += 1
        candidate = best[arc_starts[k] - start] + arc_scores[k]
        if candidate > top:
            top, arc, arc_start = candidate, arcs[k], arc_starts[k]
    while p < e:
        top -= subtracted[p - start]
        p += 1
    return top, arc, arc_start


@compiled
def follow(values, start, stop, back_arc, back_start, spells, byte_ids, arcs, i):
    """Write the best path, in the order of the text, from arcs[i] on; returns the index after it.

    Where byte pieces always spell an unknown arc, they are written in its place.
    """
    e = stop
    top = k = i + stop - start
    while e > start:
        arc, arc_start = back_arc[e - start], back_start[e - start]
        if arc == UNKNOWN and spells:
            for p in range(e - 1, arc_start - 1, -1):
                k -= 1
                arcs[k] = byte_ids[values[p]]
        else:
            k -= 1
            arcs[k] = arc
        e = arc_start
    while k < top:
        arcs[i] = arcs[k]
        i += 1
        k += 1
    return i


@compiled
def best_path(values, start, stop, slots, piece_at, best_at, best_unk, is_bytes, best, gaps, back_arc, back_start,
              arena, sums, cells, base, unk_id, spells, byte_ids):  # fmt: skip
    """Write a segment's best path to the arena: its lead, its number of arcs (less than 0 where some may become other
    ids), then the arcs as int32 cells.

    The lead is the score by which the path beats every other, in float64: the least, over the positions on the path, of
    what the best arc into it is ahead of the next. Returns the end of what was written, -1 if there is no path.
    best, gaps: float64 scratch, back_arc int32, back_start int64.
    """
    best[0] = 0.0
    for e in range(start + 1, stop + 1):
        i = e - start
        top, second = -np.inf, -np.inf
        arc, arc_start = np.int32(UNKNOWN), np.int64(start)
        if is_boundary(values, e, stop, is_bytes):
            symbol = symbol_length(values, e, is_bytes)
            arc_start = np.int64(e - symbol)
            node = np.int64(0)
            s = e
            while s > start:
                slot = np.int64(slots[2 * node]) + np.int64(values[s - 1])
                if slots[2 * slot + 1] != node:
                    break
                node = slot
                s -= 1
                if piece_at[node] >= 0:
                    candidate = best[s - start] + np.float64(best_at[node])
                    if candidate > top:
                        second, top = top, candidate
                        arc, arc_start = piece_at[node], np.int64(s)
                    elif candidate > second:
                        second = candidate
                elif e - s == symbol:
                    top = best[s - start] + np.float64(best_unk)
            if e - s < symbol:
                top = best[e - symbol - start] + np.float64(best_unk)
        best[i], back_arc[i], back_start[i] = top, arc, arc_start
        gaps[i] = top - second if second > -np.inf else np.inf
    if best[stop - start] == -np.inf:
        return np.int64(-1)
    lead = np.inf
    is_known = True
    e = np.int64(stop)
    while e > start:
        lead = min(lead, gaps[e - start])
        is_known &= (back_arc[e - start] != UNKNOWN or spells) and back_arc[e - start] != unk_id
        e = back_start[e - start]
    first = 2 * (base + HEAD)
    last = follow(values, start, stop, back_arc, back_start, spells, byte_ids, cells, first)
    sums[base], arena[base + 1] = lead, last - first if is_known else first - last
    return (last + 1) >> 1
