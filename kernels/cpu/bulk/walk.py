"""The automaton's walk (kernels/tables/automaton.py builds it): the list of arcs into every position of some segments.

The steps of several segments are taken in turn, without a branch on what is found, so that each waits for memory while
the others go on. Every segment begins at the root, so that no arc comes from before it.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.machine import ONE, prefetch

# A state is base << 37 | fail << 9 | label. No byte is NO_LABEL, the label of the root and of slots without a state.
NO_LABEL = 256
LABEL_MASK = np.uint64(511)
FAIL_MASK = np.uint64((1 << 28) - 1)
FAIL_SHIFT = np.uint64(9)
BASE_SHIFT = np.uint64(37)
ROOT = np.uint64(0)
# Segments whose steps are taken in turn.
IN_TURN = 8


@compiled
def find_lists(values, segments, todo, n_todo, arcs, found):
    """Write the list of every byte of the segments todo[:n_todo] to found, byte segments[0] at found[0].

    found: of the dtype of lists. The lists come last, one independent load after another, and their arcs are fetched.
    """
    lists, arc_words, count_bits = arcs.lists, arcs.words, arcs.count_bits
    _find_states(values, segments, todo, n_todo, arcs.states, found)
    for i in todo[:n_todo]:
        for p in range(np.uint64(segments[i] - segments[0]), np.uint64(segments[i + 1] - segments[0])):
            listed = lists[found[p]]
            found[p] = listed
            prefetch(arc_words, np.uint64(2) * (np.uint64(listed) >> count_bits))


@compiled
def _find_states(values, segments, todo, n_todo, nodes, states):
    """Write the state after every byte of the segments todo[:n_todo] to states, byte segments[0] at states[0]."""
    base = np.uint64(segments[0])
    at, stops, reached = np.empty(IN_TURN, np.uint64), np.empty(IN_TURN, np.uint64), np.empty(IN_TURN, np.uint64)
    n_lanes = np.uint64(min(IN_TURN, n_todo))
    for lane in range(n_lanes):
        at[lane], stops[lane], reached[lane] = segments[todo[lane]], segments[todo[lane] + 1], ROOT
    i = n_lanes
    while n_lanes > 0:
        lane = np.uint64(0)
        while lane < n_lanes:
            # Read the byte at p or fall back once.
            p, state = at[lane], reached[lane]
            byte, node = np.uint64(values[p]), nodes[state]
            child = (node >> BASE_SHIFT) + byte
            found = nodes[child] & LABEL_MASK == byte
            read = found | (state == ROOT)
            state = child if found else node >> FAIL_SHIFT & FAIL_MASK
            states[p - base] = state
            p += np.uint64(read)
            at[lane], reached[lane] = p, state
            if p == stops[lane]:
                if i < n_todo:
                    at[lane], stops[lane], reached[lane] = segments[todo[i]], segments[todo[i] + 1], ROOT
                    i += ONE
                else:
                    n_lanes -= ONE
                    at[lane], stops[lane], reached[lane] = at[n_lanes], stops[n_lanes], reached[n_lanes]
                    continue
            lane += ONE
