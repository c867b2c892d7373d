"""Best segmentation of one segment: in exact arithmetic with a lead (`find_best`), or as the model's own tool sums.

`viterbi` goes left to right in the dtype of the tool's sums. Pulling arcs shortest first with >= gives the tools' rule
that of equal sums the longest last arc wins. SentencePiece also subtracts a start's score from every reached end when
it leaves [-reset, reset]; ends within one piece of such a start are done in the tool's order, longest arc first, so
that each sum is rounded as the tool rounds it.
Source: sentencepiece 0.2.3 Model::EncodeOptimized; tokenizers 0.23.3 Unigram; bytepiece 0.6.3 Tokenizer.
"""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.arcs import find_arcs
from gpu_lattice.kernels.cpu.bulk.layout import BODY, KIND, NUMBER


class Search(NamedTuple):
    """Scratch of a search through a segment of up to n bytes, by position in it.

    best, subtracted      best scores, and what a reset takes from them, in the tool's dtype
    exact, gaps           float64, best scores, and their lead over the next best
    back_arc, back_start  int32, int64, back-pointers
    arcs, starts          int32, int64, the arcs into one position
    """

    best: np.ndarray
    subtracted: np.ndarray
    exact: np.ndarray
    gaps: np.ndarray
    back_arc: np.ndarray
    back_start: np.ndarray
    arcs: np.ndarray
    starts: np.ndarray


@compiled
def new_search(n, scores):
    """scores: of the tool's dtype."""
    sums, exact = np.empty((2, n + 1), scores.dtype), np.empty((2, n + 1))
    arcs, starts = np.empty((2, n + 1), np.int32), np.empty((2, n + 1), np.int64)
    return Search(sums[0], sums[1], exact[0], exact[1], arcs[0], starts[0], arcs[1], starts[1])


@compiled
def viterbi(values, start, stop, model, search):
    """Write best scores and back-pointers of start..stop, from index 0 on; `lowest` where no path ends.

    search.best[0]: what the caller has summed up to start, within the bounds of the reset.
    """
    pieces, scores, unk_score, lowest = model.pieces, model.scores, model.unk_score, model.lowest
    slots, piece_at, is_bytes = pieces.slots, pieces.piece_at, pieces.is_bytes
    best, subtracted, back_arc, back_start = search.best, search.subtracted, search.back_arc, search.back_start
    arcs, starts = search.arcs, search.starts
    subtracted[0] = 0
    zero = subtracted[0]
    last_reset = -model.longest
    for e in range(start + 1, stop + 1):
        i = e - start
        subtracted[i] = zero
        top, arc, arc_start = lowest, np.int32(UNKNOWN), np.int64(start)
        n = find_arcs(values, start, e, stop, slots, piece_at, is_bytes, arcs, starts)
        if i - last_reset < model.longest:
            top, arc, arc_start = _pull_across_resets(start, e, n, scores, unk_score, lowest, search)
        else:
            for k in range(n):
                score = unk_score if arcs[k] == UNKNOWN else scores[arcs[k]]
                candidate = best[starts[k] - start] + score
                if candidate >= top and candidate > lowest:
                    top, arc, arc_start = candidate, arcs[k], starts[k]
        back_arc[i], back_start[i] = arc, arc_start
        if abs(top) > model.reset and e < stop and top > lowest:
            subtracted[i] = top
            top = zero
            last_reset = i
        best[i] = top


@compiled
def _pull_across_resets(start, e, n, scores, unk_score, lowest, search):
    """Longest arc first: what a reset at p takes from an end goes after the arcs that begin before p."""
    best, subtracted, arcs, starts = search.best, search.subtracted, search.arcs, search.starts
    top, arc, arc_start = lowest, np.int32(UNKNOWN), np.int64(start)
    p = starts[n - 1] + 1 if n else e
    for k in range(n - 1, -1, -1):
        while p <= starts[k]:
            top -= subtracted[p - start]
            p += 1
        candidate = best[starts[k] - start] + (unk_score if arcs[k] == UNKNOWN else scores[arcs[k]])
        if candidate > top:
            top, arc, arc_start = candidate, arcs[k], starts[k]
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
def find_best(values, start, stop, slots, piece_at, is_bytes, scores, unk_score, exact, gaps, back_arc, back_start,
              arcs, starts):  # fmt: skip
    """Best scores in float64, from index 0 on, their gaps and back-pointers; returns that of stop, -inf for none."""
    exact[0] = 0.0
    for e in range(start + 1, stop + 1):
        i = e - start
        top, second = -np.inf, -np.inf
        arc, arc_start = np.int32(UNKNOWN), np.int64(start)
        for k in range(find_arcs(values, start, e, stop, slots, piece_at, is_bytes, arcs, starts)):
            candidate = exact[starts[k] - start] + np.float64(unk_score if arcs[k] == UNKNOWN else scores[arcs[k]])
            if candidate > top:
                second, top = top, candidate
                arc, arc_start = arcs[k], starts[k]
            elif candidate > second:
                second = candidate
        exact[i], back_arc[i], back_start[i] = top, arc, arc_start
        gaps[i] = top - second if second > -np.inf else np.inf
    return exact[stop - start]


@compiled
def write_best(values, start, stop, gaps, back_arc, back_start, unk_id, spells, byte_ids, arena, sums, cells, base):
    """Put a segment's best path at base: its lead; its number of arcs, less than 0 where some may become other ids; its
    arcs as int32 cells. Returns the end of what was written.

    The lead is the score by which the path beats every other: the least, over the positions on the path, of what the
    best arc into it is ahead of the next.
    """
    lead = np.inf
    is_known = True
    e = np.int64(stop)
    while e > start:
        lead = min(lead, gaps[e - start])
        is_known &= (back_arc[e - start] != UNKNOWN or spells) and back_arc[e - start] != unk_id
        e = back_start[e - start]
    first = 2 * (base + BODY)
    last = follow(values, start, stop, back_arc, back_start, spells, byte_ids, cells, first)
    sums[base + NUMBER], arena[base + KIND] = lead, last - first if is_known else first - last
    return (last + 1) >> 1
