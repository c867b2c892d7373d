"""The automaton's walk (kernels/tables/automaton.py builds it): the list of arcs into every position of some segments.

The steps of four segments are taken in turn, without a branch on what is found, so that each waits for memory while the
others go on. Every segment begins at the root, so that no arc comes from before it.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.machine import prefetch

# A state is base << 37 | fail << 9 | label. No byte is NO_LABEL, the label of the root and of slots without a state.
NO_LABEL = 256
LABEL_MASK = np.uint64(511)
FAIL_MASK = np.uint64((1 << 28) - 1)
FAIL_SHIFT = np.uint64(9)
BASE_SHIFT = np.uint64(37)
ROOT = np.uint64(0)


@compiled
def _step(values, nodes, p, state, base, states):
    """Read the byte at p or fall back once: (the next p, the next state). states[p - base]: the state after byte p."""
    byte, node = np.uint64(values[p]), nodes[state]
    child = (node >> BASE_SHIFT) + byte
    found = nodes[child] & LABEL_MASK == byte
    read = found | (state == ROOT)
    state = child if found else node >> FAIL_SHIFT & FAIL_MASK
    states[p - base] = state
    return p + np.uint64(read), state


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
    base = np.uint64(segments[0])
    i = 0
    p0 = p1 = p2 = p3 = stop0 = stop1 = stop2 = stop3 = base
    state0 = state1 = state2 = state3 = ROOT
    while True:
        if p0 == stop0:
            if i == n_todo:
                break
            p0, stop0, state0 = np.uint64(segments[todo[i]]), np.uint64(segments[todo[i] + 1]), ROOT
            i += 1
        if p1 == stop1:
            if i == n_todo:
                break
            p1, stop1, state1 = np.uint64(segments[todo[i]]), np.uint64(segments[todo[i] + 1]), ROOT
            i += 1
        if p2 == stop2:
            if i == n_todo:
                break
            p2, stop2, state2 = np.uint64(segments[todo[i]]), np.uint64(segments[todo[i] + 1]), ROOT
            i += 1
        if p3 == stop3:
            if i == n_todo:
                break
            p3, stop3, state3 = np.uint64(segments[todo[i]]), np.uint64(segments[todo[i] + 1]), ROOT
            i += 1
        p0, state0 = _step(values, nodes, p0, state0, base, states)
        p1, state1 = _step(values, nodes, p1, state1, base, states)
        p2, state2 = _step(values, nodes, p2, state2, base, states)
        p3, state3 = _step(values, nodes, p3, state3, base, states)
    while p0 < stop0:
        p0, state0 = _step(values, nodes, p0, state0, base, states)
    while p1 < stop1:
        p1, state1 = _step(values, nodes, p1, state1, base, states)
    while p2 < stop2:
        p2, state2 = _step(values, nodes, p2, state2, base, states)
    while p3 < stop3:
        p3, state3 = _step(values, nodes, p3, state3, base, states)
