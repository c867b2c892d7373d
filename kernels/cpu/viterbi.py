"""Best segmentation of one chunk, with the sums of the model's own tool: left to right, in best_at's dtype.

Pulling arcs shortest first with >= gives the tools' rule that of equal sums the longest last arc wins. SentencePiece
also subtracts a start's score from every reached end when it leaves [-reset, reset]; ends within one piece of such a
start are done in the tool's order, longest arc first, so that each sum is rounded as the tool rounds it.
Source: sentencepiece 0.2.3 Model::EncodeOptimized; tokenizers 0.23.3 Unigram; bytepiece 0.6.3 Tokenizer.
"""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.arcs import UNKNOWN, is_boundary, symbol_length


@njit(nogil=True, cache=True)
def viterbi(values, start, stop, slots, piece_at, best_at, best_unk, lowest, reset, longest, is_bytes, best, subtracted,
            back_arc, back_start):  # fmt: skip
    """Write best scores and back-pointers of start..stop to index 0..; `lowest` where no path ends.

    best, subtracted: dtype of best_at, back_arc int32, back_start int64, all at least stop - start + 1 long.
    longest: bytes of the longest arc.
    """
    best[0], subtracted[0] = 0, 0
    zero = best[0]
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


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def follow(start, stop, back_arc, back_start, path_arc, path_start):
    """Write the best path, in the order of the text, to path_arc[first : stop - start]; returns first."""
    i = stop - start
    e = stop
    while e > start:
        i -= 1
        path_arc[i], path_start[i] = back_arc[e - start], back_start[e - start]
        e = path_start[i]
    return i
