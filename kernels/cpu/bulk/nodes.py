"""Segments of few arcs that are to have no table (table.py): their arcs as the trace reads them, and that trace.

A node has of the n arcs into a position, shortest first and up to the last that adds to the sum, the running sums of
what arrives through them; then a word for each: its piece and length, and of the node where it begins how many arcs
that has and how many words after the record's base it is. The record's KIND is NODED + the latter two of the node
of the segment's end, which is the last. A position that no path reaches has none.

A trace reads one line of memory after another, none of which was read of late, so several segments are traced in turn,
and what they will need is fetched before.
"""

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.forward import LENGTH_SHIFT
from gpu_lattice.kernels.cpu.bulk.layout import BODY, KIND, NODED, NODES, NUMBER
from gpu_lattice.kernels.cpu.bulk.memo import LINE
from gpu_lattice.kernels.cpu.machine import N_SUMS, ONE, TWO, above, prefetch, trailing_zeros
from gpu_lattice.kernels.cpu.philox import DRAW_BYTES, to_uniform, uniform_bits
from gpu_lattice.kernels.cpu.utf8 import symbol_length

ZERO = np.uint64(0)
# A word: a piece, or NO_PIECE for an unknown arc; from these bits on the length, the next node's arcs, where that is.
LENGTH_BIT, COUNT_BIT, NODE_BIT = np.uint64(24), np.uint64(37), np.uint64(46)
NO_PIECE = (ONE << LENGTH_BIT) - ONE
MOST_IDS = int(NO_PIECE)
MOST_LENGTH = (ONE << (COUNT_BIT - LENGTH_BIT)) - ONE
MOST_COUNT = (ONE << (NODE_BIT - COUNT_BIT)) - ONE
COUNT_BITS = NODE_BIT - COUNT_BIT
MOST_WORDS = ONE << (np.uint64(64) - NODE_BIT)

# Of a segment with nodes: these have two words for each arc, and the memo has to hold many segments.
MOST_ARCS = 64

# Segments that are traced in turn, and what is known of each: its place in the list of drawn ones; how many bytes are
# left and how many are behind; how many are behind where a number is due; its record; the node and its number of arcs;
# where its path begins so far, and whether that has unknown arcs.
IN_TURN = 4
DRAWN, LEFT, BEHIND, DUE, RECORD, NODE, COUNT, TOP, HAS_UNKNOWN = range(9)
# Segments between the one whose record is fetched and the one that is begun, and words that are fetched.
AHEAD = np.uint64(8)
FETCHED = 5 * LINE
DRAW_STEP = np.uint64(DRAW_BYTES)


@compiled
def room_for_nodes(length):
    """The words that `write_nodes` may use from a record's base on."""
    return BODY + 4 * (length + 1) + 2 * MOST_ARCS


@compiled
def are_few(found, lists, length, count_bits):
    """Whether a segment's arcs are so few that nodes take little memory."""
    count_mask = (ONE << count_bits) - ONE
    n_arcs = ZERO
    for e in range(1, length + 1):
        n_arcs += np.uint64(found[lists + e]) & count_mask
    return n_arcs <= np.uint64(MOST_ARCS)


@compiled(forceinline=True)
def write_nodes(values, start, length, found, lists, count_bits, arc_weights, arc_words, is_bytes, arena, sums,
                base):  # fmt: skip
    """Put the nodes of a segment of few arcs in place of its scores, in sums from base + BODY on; returns their end.

    found int32: the list of arcs into the segment's position e at found[lists + e].
    """
    count_mask = (ONE << count_bits) - ONE
    z, length = np.uint64(base + BODY), np.uint64(length)
    # Of every position, behind the scores: what a word says of its node. Behind that the nodes, to be moved at last.
    links = z + length + ONE
    shift = links + length + ONE - z
    at = z + shift
    arena[links] = 0
    for e in range(ONE, length + ONE):
        if sums[z + e] == 0.0:
            continue
        listed = np.uint64(found[np.uint64(lists) + e])
        arc, n_listed = TWO * (listed >> count_bits), listed & count_mask
        node, running = at, 0.0
        n = ZERO
        for k in range(n_listed):
            s = e - (np.uint64(arc_words[arc + TWO * k + ONE]) >> LENGTH_SHIFT)
            term = sums[z + s] * arc_weights[arc + TWO * k]
            running += term
            sums[node + k] = running
            n = k + ONE if term != 0.0 else n
        at += n
        for k in range(n):
            word = np.uint64(arc_words[arc + TWO * k + ONE])
            arrow = word >> LENGTH_SHIFT
            arena[at] = np.int64(word & NO_PIECE | arrow << LENGTH_BIT) | arena[links + e - arrow]
            at += ONE
        if n == ZERO:
            arrow = np.uint64(symbol_length(values, np.int64(np.uint64(start) + e), is_bytes))
            sums[at] = sums[z + e]
            arena[at + ONE] = np.int64(NO_PIECE | arrow << LENGTH_BIT) | arena[links + e - arrow]
            at += TWO
        n = max(n, ONE)
        arena[links + e] = np.int64(n << COUNT_BIT | (node - shift - np.uint64(base)) << NODE_BIT)
    arena[base + KIND] = NODED + (np.uint64(arena[links + length]) >> COUNT_BIT)
    for k in range(z, at - shift):
        arena[k] = arena[k + shift]
    return np.int64(at - shift)


@compiled
def trace_nodes(values, traced, n_traced, seed, i_sample, model, memo, group, draws):
    """Trace the segments i of drawn[traced[0]], drawn[traced[1]], ...

    The path of a segment ends in draws.paths where its text does, before paths[segments[i + 1] - segments[0]]. ends[i]
    becomes its number of arcs << 1, + 1 where some are unknown.
    """
    segments, places, ends, arena, sums = group.segments, group.places, group.ends, memo.arena, memo.sums
    drawn, numbers, positions, doc_ids, paths = draws.drawn, draws.numbers, draws.positions, draws.doc_ids, draws.paths
    inverses, unk_inverse, pieces = model.inverses, model.unk_inverse, model.pieces
    unk_id, spells, byte_ids = pieces.unk_id, pieces.spells, pieces.byte_ids
    state, targets = np.empty((IN_TURN, 9), np.uint64), np.empty(IN_TURN)
    n_begun = n_lanes = lane = ZERO
    n_traced = np.uint64(n_traced)
    for i_traced in range(min(n_traced, AHEAD)):
        _fetch(arena, places[drawn[traced[i_traced]]])
    while n_begun < n_traced or n_lanes > ZERO:
        if lane == n_lanes:
            if n_begun < n_traced and n_lanes < np.uint64(IN_TURN):
                _begin(state, targets, lane, traced, n_begun, n_traced, segments, drawn, places, arena, sums, numbers)
                n_begun += ONE
                n_lanes += ONE
            else:
                lane = ZERO
        node, n, top, target = state[lane, NODE], state[lane, COUNT], state[lane, TOP], targets[lane]
        behind = state[lane, BEHIND]
        if behind >= state[lane, DUE]:
            state[lane, DUE] = behind - behind % DRAW_STEP + DRAW_STEP
            k = state[lane, DRAWN]
            bits = uniform_bits(seed, positions[k] - np.int64(behind), i_sample, doc_ids[k])
            target = to_uniform(bits) * sums[node + n - ONE]
        # The first arc whose running sum is above the target, or the last.
        first, bits = node, above(sums, node, target)
        while bits == ZERO and first + N_SUMS < node + n:
            first += N_SUMS
            bits = above(sums, first, target)
        i_arc = min(first - node + np.uint64(trailing_zeros(bits)), n - ONE)
        before = sums[node + i_arc - ONE]
        before = before if i_arc > ZERO else 0.0
        word = np.uint64(arena[node + n + i_arc])
        piece, length = word & NO_PIECE, word >> LENGTH_BIT & MOST_LENGTH
        state[lane, NODE] = state[lane, RECORD] + (word >> NODE_BIT)
        state[lane, COUNT] = word >> COUNT_BIT & MOST_COUNT
        state[lane, BEHIND] = behind + length
        left = state[lane, LEFT] - length
        state[lane, LEFT] = left
        inverse = inverses[piece] if piece != NO_PIECE else unk_inverse
        targets[lane] = (target - before) * inverse
        if piece == NO_PIECE and spells:
            e = np.uint64(segments[drawn[state[lane, DRAWN]] + 1]) - behind
            for j in range(length):
                top -= ONE
                paths[top] = byte_ids[values[e - ONE - j]]
        else:
            is_unknown = piece == NO_PIECE
            state[lane, HAS_UNKNOWN] |= np.uint64(is_unknown or np.int64(piece) == unk_id)
            top -= ONE
            paths[top] = np.int32(piece) if not is_unknown else np.int32(UNKNOWN)
        state[lane, TOP] = top
        lane += ONE
        if left == ZERO:
            lane -= ONE
            i = np.uint64(drawn[state[lane, DRAWN]])
            end = np.uint64(segments[i + ONE] - segments[0])
            ends[i] = (end - top) << ONE | state[lane, HAS_UNKNOWN]
            if n_begun < n_traced:
                _begin(state, targets, lane, traced, n_begun, n_traced, segments, drawn, places, arena, sums, numbers)
                n_begun += ONE
            else:
                n_lanes -= ONE
                state[lane], targets[lane] = state[n_lanes], targets[n_lanes]


@compiled(forceinline=True)
def _begin(state, targets, lane, traced, i_traced, n_traced, segments, drawn, places, arena, sums, numbers):
    """Have the lane trace a segment from its end, and the record of a later one fetched."""
    if i_traced + AHEAD < n_traced:
        _fetch(arena, places[drawn[traced[i_traced + AHEAD]]])
    i_drawn = traced[i_traced]
    i = np.uint64(drawn[i_drawn])
    base, stop = np.uint64(places[i] - NODES), segments[i + ONE]
    state[lane, DRAWN] = i_drawn
    state[lane, LEFT], state[lane, BEHIND], state[lane, DUE] = stop - segments[i], 0, DRAW_BYTES
    link = np.uint64(arena[base + np.uint64(KIND)] - NODED)
    state[lane, RECORD], state[lane, NODE] = base, base + (link >> COUNT_BITS)
    state[lane, COUNT] = link & MOST_COUNT
    state[lane, TOP], state[lane, HAS_UNKNOWN] = stop - segments[0], 0
    targets[lane] = to_uniform(numbers[i_drawn]) * sums[base + np.uint64(NUMBER)]


@compiled(forceinline=True)
def _fetch(arena, place):
    """Have the end of a record fetched, from its last node on backwards: which lines are read depends on numbers."""
    base = place - NODES
    last = base + np.int64(np.uint64(arena[base + KIND] - NODED) >> COUNT_BITS)
    for word in range(0, FETCHED, LINE):
        prefetch(arena, last + LINE - word)
