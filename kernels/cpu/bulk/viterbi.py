"""Best segmentation of one segment: in exact arithmetic with a lead (`find_best`), or as the model's own tool sums.

Both read the lists of arcs that the automaton has found (walk.py). `viterbi` goes left to right in the dtype of the
tool's sums. Pulling arcs shortest first with >= gives the tools' rule that of equal sums the longest last arc wins.
SentencePiece also subtracts a start's score from every reached end when it leaves [-reset, reset]; ends within one
piece of such a start are done in the tool's order, longest arc first, so that each sum is rounded as the tool rounds
it.
Source: sentencepiece 0.2.3 Model::EncodeOptimized; tokenizers 0.23.3 Unigram; bytepiece 0.6.3 Tokenizer.
"""

from typing import NamedTuple

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.forward import LENGTH_SHIFT
from gpu_lattice.kernels.cpu.bulk.layout import BODY, KIND, NUMBER
from gpu_lattice.kernels.cpu.machine import ONE, TWO
from gpu_lattice.kernels.cpu.utf8 import is_boundary, symbol_length

ZERO = np.uint64(0)
# The low half of an arc's word is its piece, as int32.
NO_PIECE = np.uint64(0xFFFFFFFF)


class Search(NamedTuple):
    """Scratch of a search through a segment of up to n bytes.

    found             int32, lists of arcs by position in the group
    By position in the segment:
    best, subtracted  best scores, and what a reset takes from them, in the tool's dtype
    exact, gaps       float64, best scores, and their lead over the next best
    back              uint64, back-pointers: length << 32 | piece of the arc by which the best path arrives
    """

    found: np.ndarray
    best: np.ndarray
    subtracted: np.ndarray
    exact: np.ndarray
    gaps: np.ndarray
    back: np.ndarray


@compiled
def new_search(n, scores):
    """scores: of the tool's dtype."""
    sums, exact = np.empty((2, n + 1), scores.dtype), np.empty((2, n + 1))
    return Search(np.empty(n, np.int32), sums[0], sums[1], exact[0], exact[1], np.empty(n + 1, np.uint64))


@compiled(forceinline=True)
def unknown_arc(values, e, stop, is_bytes):
    """The word of the unknown arc into e, or 0 within a character."""
    length = symbol_length(values, e, is_bytes) if is_boundary(values, e, stop, is_bytes) else 0
    return np.uint64(length) << LENGTH_SHIFT | NO_PIECE if length > 0 else ZERO


@compiled
def viterbi(values, start, stop, lists, model, arcs, search):
    """Write best scores and back-pointers of start..stop, from index 0 on; `lowest` where no path ends.

    search.found[lists + e]: the list of arcs into the segment's position e. search.best[0]: what the caller has summed
    up to start, within the bounds of the reset.
    """
    scores, unk_score, lowest, is_bytes = model.scores, model.unk_score, model.lowest, model.pieces.is_bytes
    words, count_bits = arcs.words, arcs.count_bits
    found, best, subtracted, back = search.found, search.best, search.subtracted, search.back
    count_mask = (ONE << count_bits) - ONE
    subtracted[0] = 0
    zero = subtracted[0]
    last_reset = -model.longest
    for e in range(1, stop - start + 1):
        subtracted[e] = zero
        listed = np.uint64(found[lists + e])
        first, n = listed >> count_bits, listed & count_mask
        unknown = unknown_arc(values, start + e, stop, is_bytes) if n == ZERO else ZERO
        if e - last_reset < model.longest:
            top, arc = _pull_across_resets(e, first, n, unknown, words, scores, unk_score, lowest, search)
        else:
            top, arc = lowest, NO_PIECE
            # A list of none stands for an unknown arc.
            for k in range(n + np.uint64(unknown != ZERO)):
                word = np.uint64(words[TWO * (first + k) + ONE]) if n > ZERO else unknown
                piece = np.int32(word & NO_PIECE)
                candidate = best[e - np.int64(word >> LENGTH_SHIFT)] + (
                    unk_score if piece == UNKNOWN else scores[piece]
                )
                if candidate >= top and candidate > lowest:
                    top, arc = candidate, word
        back[e] = arc
        if abs(top) > model.reset and start + e < stop and top > lowest:
            subtracted[e] = top
            top = zero
            last_reset = e
        best[e] = top


@compiled
def _pull_across_resets(e, first, n, unknown, words, scores, unk_score, lowest, search):
    """Longest arc first: what a reset at p takes from an end goes after the arcs that begin before p."""
    best, subtracted = search.best, search.subtracted
    top, arc = lowest, NO_PIECE
    n_arcs = n + np.uint64(unknown != ZERO)
    p = np.int64(-1)
    for k in range(n_arcs):
        word = np.uint64(words[TWO * (first + n_arcs - ONE - k) + ONE]) if n > ZERO else unknown
        s, piece = e - np.int64(word >> LENGTH_SHIFT), np.int32(word & NO_PIECE)
        p = s + 1 if p < 0 else p
        while p <= s:
            top -= subtracted[p]
            p += 1
        candidate = best[s] + (unk_score if piece == UNKNOWN else scores[piece])
        if candidate > top:
            top, arc = candidate, word
    while 0 <= p < e:
        top -= subtracted[p]
        p += 1
    return top, arc


@compiled
def follow(values, start, stop, back, spells, byte_ids, arcs, i):
    """Write the best path, in the order of the text, from arcs[i] on; returns the index after it.

    Where byte pieces always spell an unknown arc, they are written in its place.
    """
    e = stop
    top = k = i + stop - start
    while e > start:
        word = back[e - start]
        piece, length = np.int32(word & NO_PIECE), np.int64(word >> LENGTH_SHIFT)
        if piece == UNKNOWN and spells:
            for p in range(e - 1, e - length - 1, -1):
                k -= 1
                arcs[k] = byte_ids[values[p]]
        else:
            k -= 1
            arcs[k] = piece
        e -= length
    while k < top:
        arcs[i] = arcs[k]
        i += 1
        k += 1
    return i


@compiled
def find_best(values, start, stop, found, lists, arc_scores, arc_words, count_bits, unk_score, is_bytes, exact, gaps,
              back):  # fmt: skip
    """Best scores in float64, from index 0 on, their gaps and back-pointers; returns that of stop, -inf for none.

    found int32: the list of arcs into the segment's position e at found[lists + e].
    """
    count_mask = (ONE << count_bits) - ONE
    exact[0] = 0.0
    for e in range(ONE, np.uint64(stop - start) + ONE):
        listed = np.uint64(found[np.uint64(lists) + e])
        i_arc, n = TWO * (listed >> count_bits), listed & count_mask
        top, second, arc = -np.inf, -np.inf, NO_PIECE
        for _ in range(n):
            word = np.uint64(arc_words[i_arc + ONE])
            candidate = exact[e - (word >> LENGTH_SHIFT)] + arc_scores[i_arc]
            is_better = candidate > top
            second = top if is_better else max(second, candidate)
            top, arc = (candidate, word) if is_better else (top, arc)
            i_arc += TWO
        if n == ZERO:
            word = unknown_arc(values, start + np.int64(e), stop, is_bytes)
            if word != ZERO:
                top, arc = exact[e - (word >> LENGTH_SHIFT)] + unk_score, word
        exact[e], back[e] = top, arc
        gaps[e] = top - second if second > -np.inf else np.inf
    return exact[stop - start]


@compiled
def write_best(values, start, stop, gaps, back, unk_id, spells, byte_ids, arena, sums, cells, base):
    """Put a segment's best path at base: its lead; its number of arcs, less than 0 where some may become other ids; its
    arcs as int32 cells. Returns the end of what was written.

    The lead is the score by which the path beats every other: the least, over the positions on the path, of what the
    best arc into it is ahead of the next.
    """
    lead = np.inf
    is_known = True
    e = np.int64(stop - start)
    while e > 0:
        lead = min(lead, gaps[e])
        piece = np.int32(back[e] & NO_PIECE)
        is_known &= (piece != UNKNOWN or spells) and piece != unk_id
        e -= np.int64(back[e] >> LENGTH_SHIFT)
    first = 2 * (base + BODY)
    last = follow(values, start, stop, back, spells, byte_ids, cells, first)
    sums[base + NUMBER], arena[base + KIND] = lead, last - first if is_known else first - last
    return (last + 1) >> 1
