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
from gpu_lattice.kernels.cpu.bulk.parts import block_bytes
from gpu_lattice.kernels.cpu.bulk.walk import find_lists
from gpu_lattice.kernels.cpu.machine import ONE, TWO
from gpu_lattice.kernels.cpu.utf8 import is_boundary, symbol_length

ZERO = np.uint64(0)
# The low half of an arc's word is its piece, as int32.
NO_PIECE = np.uint64(0xFFFFFFFF)


class Search(NamedTuple):
    """Scratch of a search through a segment of up to n bytes.

    found             int32, lists of arcs by position in the group
    By position in the segment, or in a block of it with as many positions before it as an arc may be long:
    best, subtracted  best scores, and what a reset takes from them, in the tool's dtype
    exact, gaps       float64, best scores, and their lead over the next best
    back              uint64, back-pointers: length << 32 | piece of the arc by which the best path arrives

    kept              of the tool's dtype, best and subtracted of the positions before each block, block by block
    """

    found: np.ndarray
    best: np.ndarray
    subtracted: np.ndarray
    exact: np.ndarray
    gaps: np.ndarray
    back: np.ndarray
    kept: np.ndarray


@compiled
def new_search(n, scores, n_kept):
    """scores: of the tool's dtype."""
    sums, exact = np.empty((2, n + 1), scores.dtype), np.empty((2, n + 1))
    return Search(np.empty(n, np.int32), sums[0], sums[1], exact[0], exact[1], np.empty(n + 1, np.uint64),
                  np.empty(n_kept, scores.dtype))  # fmt: skip


@compiled(forceinline=True)
def unknown_arc(values, e, stop, is_bytes):
    """The word of the unknown arc into e, or 0 within a character."""
    length = symbol_length(values, e, is_bytes) if is_boundary(values, e, stop, is_bytes) else 0
    return np.uint64(length) << LENGTH_SHIFT | NO_PIECE if length > 0 else ZERO


@compiled
def viterbi(values, start, stop, lists, model, arcs, search):
    """Write best scores and back-pointers of the segment start..stop, from index 0 on; `lowest` where no path ends.

    search.found[lists + e]: the list of arcs into the segment's position e. search.best[0]: what the caller has summed
    up to start, within the bounds of the reset.
    """
    search.subtracted[0] = 0
    _add_best(values, start, 0, stop - start, stop, lists, -model.pieces.longest, model, arcs, search)


@compiled
def _add_best(values, origin, first, last, stop, lists, last_reset, model, arcs, search):
    """Write best scores and back-pointers of the positions after origin + first up to origin + last, from index
    first + 1 on. last_reset: the last index, from -longest on, at which a reset was.
    """
    scores, unk_score, lowest, is_bytes = model.scores, model.unk_score, model.lowest, model.pieces.is_bytes
    longest = model.pieces.longest
    words, count_bits = arcs.words, arcs.count_bits
    found, best, subtracted, back = search.found, search.best, search.subtracted, search.back
    count_mask = (ONE << count_bits) - ONE
    subtracted[first + 1] = 0
    zero = subtracted[first + 1]
    for e in range(first + 1, last + 1):
        subtracted[e] = zero
        listed = np.uint64(found[lists + e])
        i_arc, n = listed >> count_bits, listed & count_mask
        unknown = unknown_arc(values, origin + e, stop, is_bytes) if n == ZERO else ZERO
        if e - last_reset < longest:
            top, arc = _pull_across_resets(e, i_arc, n, unknown, words, scores, unk_score, lowest, search)
        else:
            top, arc = lowest, NO_PIECE
            # A list of none stands for an unknown arc.
            for k in range(n + np.uint64(unknown != ZERO)):
                word = np.uint64(words[TWO * (i_arc + k) + ONE]) if n > ZERO else unknown
                piece = np.int32(word & NO_PIECE)
                candidate = best[e - np.int64(word >> LENGTH_SHIFT)] + (
                    unk_score if piece == UNKNOWN else scores[piece]
                )
                if candidate >= top and candidate > lowest:
                    top, arc = candidate, word
        back[e] = arc
        if abs(top) > model.reset and origin + e < stop and top > lowest:
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
def room_for_kept(length, longest):
    """How many of `Search.kept` a segment takes that is worked on block by block."""
    return 2 * longest * ((length - 1) // block_bytes(longest) + 1)


@compiled
def viterbi_blocks(values, start, stop, model, arcs, search):
    """The best score of a segment of more than a block, `lowest` if no path ends there; search.kept is filled.

    search.best[0]: as for `viterbi`.
    """
    best, subtracted, kept, longest = search.best, search.subtracted, search.kept, model.pieces.longest
    block = block_bytes(longest)
    for k in range(2 * longest):
        kept[k] = best[0] if k == longest - 1 else 0
    at = np.int64(0)
    for i_block in range((stop - start - 1) // block + 1):
        at = _viterbi_block(values, start, stop, i_block, model, arcs, search)
        i_kept = 2 * longest * (i_block + 1)
        if i_kept < len(kept):
            for k in range(longest):
                kept[i_kept + k] = best[at - longest + 1 + k]
                kept[i_kept + longest + k] = subtracted[at - longest + 1 + k]
    return best[at]


@compiled
def _viterbi_block(values, start, stop, i_block, model, arcs, search):
    """Best scores and back-pointers of one block from what is kept of it, of the position before it at index
    longest - 1; returns the index of the last.
    """
    best, subtracted, kept, longest = search.best, search.subtracted, search.kept, model.pieces.longest
    begin = start + i_block * block_bytes(longest)
    end = min(begin + block_bytes(longest), stop)
    i_kept, last_reset = 2 * longest * i_block, -longest
    for k in range(longest):
        best[k], subtracted[k] = kept[i_kept + k], kept[i_kept + longest + k]
        # What a reset subtracts is not 0.
        last_reset = last_reset if subtracted[k] == 0 else k
    # An automaton that has read as much as an arc may be long knows all arcs into what follows.
    low, origin = max(start, begin - longest), begin - longest + 1
    find_lists(values, np.array([low, end]), np.zeros(1, np.int64), 1, arcs, search.found)
    _add_best(values, origin, longest - 1, end - origin, stop, origin - 1 - low, last_reset, model, arcs, search)
    return end - origin


@compiled
def follow_blocks(values, start, stop, model, arcs, search, out, i):
    """As `follow`, after `viterbi_blocks`."""
    pieces = model.pieces
    block = block_bytes(pieces.longest)
    e, k = stop, i + stop - start
    for i_block in range((stop - start - 1) // block, -1, -1):
        _viterbi_block(values, start, stop, i_block, model, arcs, search)
        begin = start + i_block * block
        e, k = _follow_back(values, e, begin, begin - pieces.longest + 1, search.back, pieces.spells, pieces.byte_ids,
                            out, k)  # fmt: skip
    return move_down(out, k, i + stop - start, i)


@compiled(forceinline=True)
def follow(values, start, stop, back, spells, byte_ids, arcs, i):
    """Write the best path, in the order of the text, from arcs[i] on; returns the index after it.

    Where byte pieces always spell an unknown arc, they are written in its place.
    """
    _, k = _follow_back(values, stop, start, start, back, spells, byte_ids, arcs, i + stop - start)
    return move_down(arcs, k, i + stop - start, i)


@compiled(forceinline=True)
def _follow_back(values, e, begin, origin, back, spells, byte_ids, arcs, k):
    """Write the best path into e, as far as to begin, before arcs[k]; returns where it comes from, and its first arc.

    back[i]: of the position origin + i.
    """
    while e > begin:
        word = back[e - origin]
        piece, length = np.int32(word & NO_PIECE), np.int64(word >> LENGTH_SHIFT)
        if piece == UNKNOWN and spells:
            for p in range(e - 1, e - length - 1, -1):
                k -= 1
                arcs[k] = byte_ids[values[p]]
        else:
            k -= 1
            arcs[k] = piece
        e -= length
    return e, k


@compiled(forceinline=True)
def move_down(arcs, first, last, to):
    """Move arcs[first:last] to arcs[to:], to <= first; returns their end."""
    for k in range(first, last):
        arcs[to] = arcs[k]
        to += 1
    return to


@compiled(forceinline=True)
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


@compiled(forceinline=True)
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
