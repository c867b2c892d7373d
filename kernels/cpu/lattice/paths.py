"""One path through each range of positions: the best one, or perfect samples; then its ids.

The lattice is that of lattice/sums.py. A path is given by marks: where an arc of it ends, the arc's rank among those
into that position, elsewhere -1. kernels/cuda/lattice/paths.cu does the same operations in the same order.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.philox import DRAW_BYTES, uniform
from gpu_lattice.kernels.cpu.scaled import add, greater, scaled, subtract


@compiled
def best_paths(low, high, starts, stops, arc_offsets, lengths, scores, best, back):
    """best[e] = the greatest best[s] + score over the arcs into e, back[e] its rank; in a tie, the longest arc's.

    best is -inf if no path reaches e; a score of -inf means no arc.
    """
    for i in range(low, high):
        start = starts[i]
        for e in range(start + 1, stops[i] + 1):
            most, rank = -np.inf, np.int32(-1)
            for j in range(arc_offsets[e], arc_offsets[e + 1]):
                s = e - lengths[j]
                score = scores[j] if s == start else best[s] + scores[j]
                if score >= most and score > -np.inf:
                    most, rank = score, np.int32(j - arc_offsets[e])
            best[e], back[e] = most, rank


@compiled
def follow_back(low, high, starts, stops, arc_offsets, lengths, back, path):
    """Mark the path found by following back from stop."""
    for i in range(low, high):
        e = stops[i]
        while e > starts[i]:
            path[e] = back[e]
            e -= lengths[arc_offsets[e] + back[e]]


@compiled
def draw_paths(low, high, starts, stops, n_ranges, range_doc, doc_positions, arc_offsets, lengths, weights, inverses,
               z, z_exponents, seed, doc_ids, n_positions, path):  # fmt: skip
    """Mark perfect samples; unit i is range i % n_ranges of sample i // n_ranges, path int32 is flat
    [num_samples, n_positions].

    The choice at e is the first arc, shortest first, whose running sum exceeds the target; if none does, the last that
    adds. Targets are those of `sample` in reference.py. inverses float64 [A]: 1 / weights.
    Source: Su Jianlin, https://kexue.fm/archives/9811.
    """
    for i in range(low, high):
        i_range, i_sample = i % n_ranges, i // n_ranges
        start, i_doc = starts[i_range], range_doc[i_range]
        stop = e = stops[i_range]
        i_draw, target, target_exponent = np.int64(-1), 0.0, np.int64(0)
        while e > start:
            if (stop - e) // DRAW_BYTES > i_draw:
                i_draw = (stop - e) // DRAW_BYTES
                u = uniform(seed, e - doc_positions[i_doc], i_sample, doc_ids[i_doc])
                target, target_exponent = scaled(u * z[e], z_exponents[e])
            running, exponent = 0.0, np.int64(0)
            before, before_exponent = running, exponent
            rank = np.int64(0)
            for j in range(arc_offsets[e], arc_offsets[e + 1]):
                s = e - lengths[j]
                if s == start:
                    term, term_exponent = scaled(weights[j], np.int64(0))
                else:
                    term, term_exponent = scaled(z[s] * weights[j], z_exponents[s])
                if term == 0.0:
                    continue
                rank = j - arc_offsets[e]
                before, before_exponent = running, exponent
                running, exponent = add(running, exponent, term, term_exponent)
                if greater(running, exponent, target, target_exponent):
                    break
            path[i_sample * n_positions + e] = rank
            arc = arc_offsets[e] + rank
            target, target_exponent = subtract(target, target_exponent, before, before_exponent)
            target, target_exponent = scaled(target * inverses[arc], target_exponent)
            e -= lengths[arc]
