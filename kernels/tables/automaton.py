"""An automaton of all pieces at once: one state for each position of a text, and one list of arcs for each state.

The state after a byte is the longest suffix of the text so far that is a prefix of some piece (Aho and Corasick 1975,
"Efficient string matching"), so it alone determines which pieces end there. A text needs about 1.3 steps per byte;
walking the trie of reversed pieces backwards from every position needs 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import longest_of
from gpu_lattice.kernels.cpu.bulk.walk import BASE_SHIFT, FAIL_SHIFT, NO_LABEL
from gpu_lattice.kernels.cpu.machine import ONE
from gpu_lattice.kernels.cpu.utf8 import bytes_of_character
from gpu_lattice.kernels.tables.trie import build_trie

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The bits of a state.
MOST_SLOTS = 1 << 27


class Automaton(NamedTuple):
    """States are the slots of a trie of the pieces, the root is 0; A arcs in lists that share prefixes.

    states  uint64 [N]: base << 37 | fail << 9 | label. The state after byte c is slot base + c if the label there is c,
            else that of the fail. A state without children has the base and fail of its longest suffix that has some.
    lists   int32 [N]: first << count_bits | count: the arcs into a position in this state, first to first + count,
            shortest first
    count_bits
    lengths int32 [A], bytes of an arc
    pieces  int32 [A], UNKNOWN for an unknown arc: -1 is also the index of its weight, the last of `arc_weights`
    """

    states: NDArray[np.uint64]
    lists: NDArray[np.int32]
    count_bits: np.uint64
    lengths: NDArray[np.int32]
    pieces: NDArray[np.int32]


def build_automaton(
    values: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    ids: NDArray[np.integer[Any]],
    is_bytes: bool,
    has_unknown: bool,
) -> Automaton:
    """The automaton of the pieces values[offsets[i]:offsets[i + 1]] with ids[i], distinct and not empty.

    is_bytes: symbols are bytes, not characters. has_unknown: a symbol without a piece is an unknown arc, the first of
    its list; an empty list at a symbol's end stands for an unknown arc too.
    Raises ValueError for more pieces than 31 bits can number.
    """
    total = offsets[-1] if len(offsets) else 0
    trie = build_trie(values[:total][::-1].copy(), total - offsets[::-1], ids[::-1], distinct_bases=True)
    order, depths, fails = _link(values, offsets, trie.slots)
    first, counts, lengths, pieces = _make_lists(order, depths, fails, trie.slots, trie.piece, is_bytes, has_unknown)
    count_bits = int(counts.max(initial=1)).bit_length()
    if len(trie.piece) > MOST_SLOTS or len(pieces) >> (31 - count_bits):
        raise ValueError(f"{len(ids)} pieces of {total} bytes are more than this format can list; give fewer")
    return Automaton(
        states=_pack(order, fails, trie.slots),
        lists=(first << count_bits | counts).astype(np.int32),
        count_bits=np.uint64(count_bits),
        lengths=lengths,
        pieces=pieces,
    )


@compiled
def _link(values, offsets, slots):
    """(order: the trie's slots by depth, depths, fails: by slot, that of the longest proper suffix that is a node)."""
    n_slots = len(slots) // 2
    depths, fails = np.full(n_slots, -1, np.int32), np.zeros(n_slots, np.int32)
    longest = longest_of(offsets)
    starts = np.zeros(longest + 2, np.int64)
    depths[0], starts[1] = 0, 1
    for i_piece in range(len(offsets) - 1):
        node = np.int64(0)
        for p in range(offsets[i_piece], offsets[i_piece + 1]):
            node = slots[2 * node] + np.int64(values[p])
            if depths[node] < 0:
                depths[node] = p + 1 - offsets[i_piece]
                starts[depths[node] + 1] += 1
    for depth in range(longest + 1):
        starts[depth + 1] += starts[depth]
    order = np.empty(starts[longest + 1], np.int32)
    for slot in range(n_slots):
        if depths[slot] >= 0:
            order[starts[depths[slot]]] = slot
            starts[depths[slot]] += 1
    for node in order[1:]:
        parent = np.int64(slots[2 * node + 1])
        byte = node - np.int64(slots[2 * parent])
        while parent != 0:
            parent = np.int64(fails[parent])
            child = slots[2 * parent] + byte
            if slots[2 * child + 1] == parent:
                fails[node] = child
                break
    return order, depths, fails


@compiled
def _make_lists(order, depths, fails, slots, piece, is_bytes, has_unknown):
    """(first int64 [N], counts int64 [N], lengths int32 [A], pieces int32 [A]).

    A list is that of the node's fail plus what is new at the node: its piece, and before it an unknown arc if no
    shorter list covers the last symbol. So the list of a node is a prefix of that of any longer one.
    """
    n_slots = len(depths)
    symbols, missing = np.zeros(n_slots, np.int32), np.zeros(n_slots, np.int32)
    has_new, last = np.zeros(n_slots, np.uint8), np.zeros(n_slots, np.int32)
    first, counts = np.full(n_slots, -1, np.int64), np.zeros(n_slots, np.int64)
    for node in order[1:]:
        parent, fail = slots[2 * node + 1], fails[node]
        symbols[node], missing[node] = symbols[parent], missing[parent] - 1
        if missing[parent] == 0:
            symbols[node] = 1 if is_bytes else bytes_of_character(node - slots[2 * parent])
            missing[node] = symbols[node] - 1
        if missing[node] > 0:
            continue
        is_piece = piece[node] >= 0
        is_unknown = has_unknown and fail == 0 and not (is_piece and depths[node] == symbols[node])
        has_new[node] = is_piece + 2 * is_unknown
        counts[node] = counts[fail] + is_piece + is_unknown
        last[node] = node if has_new[node] else last[fail]
    n_arcs = 0
    for i in range(len(order) - 1, 0, -1):
        node = order[i]
        if has_new[node] and first[node] < 0:
            shorter = node
            while shorter != 0 and first[shorter] < 0:
                first[shorter] = n_arcs
                shorter = last[fails[shorter]]
            n_arcs += counts[node]
    lengths, pieces = np.empty(n_arcs, np.int32), np.empty(n_arcs, np.int32)
    first[0] = 0
    for node in order[1:]:
        first[node] = first[last[node]] if last[node] != 0 else 0
        # If a piece has several longer ones, several lists share its own as a prefix.
        shorter, i_arc = last[node], first[node] + counts[node]
        while has_new[node] and shorter != 0:
            if has_new[shorter] & 1:
                i_arc -= 1
                lengths[i_arc], pieces[i_arc] = depths[shorter], piece[shorter]
            if has_new[shorter] & 2:
                i_arc -= 1
                lengths[i_arc], pieces[i_arc] = symbols[shorter], UNKNOWN
            shorter = last[fails[shorter]]
    return np.maximum(first, 0), counts, lengths, pieces


@compiled
def _pack(order, fails, slots):
    """The states of an automaton. Fails skip leaves, and suffixes with no child that the node itself lacks."""
    n_slots = len(fails)
    labels = np.zeros((n_slots, 4), np.uint64)
    owner, next_fail = np.zeros(n_slots, np.int32), np.zeros(n_slots, np.int32)
    has_child = np.zeros(n_slots, np.bool_)
    nodes = np.full(n_slots, NO_LABEL, np.uint64)
    for node in order[1:]:
        parent = slots[2 * node + 1]
        byte = node - slots[2 * parent]
        labels[parent, byte >> 6] |= ONE << np.uint64(byte & 63)
        has_child[parent] = True
        nodes[node] = np.uint64(byte)
    for node in order:
        fail = fails[node]
        while fail != 0 and not _adds(labels, fail, node):
            fail = next_fail[fail]
        next_fail[node] = fail
        owner[node] = node if node == 0 or has_child[node] else owner[fail]
        own = owner[node]
        nodes[node] |= np.uint64(slots[2 * own]) << BASE_SHIFT | np.uint64(next_fail[own]) << FAIL_SHIFT
    return nodes


@compiled
def _adds(labels, other, node):
    """Whether `other` has a child by some byte by which `node` has none."""
    for i in range(4):
        if labels[other, i] & ~labels[node, i] != 0:
            return True
    return False
