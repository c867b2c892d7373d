"""Viterbi Sampling, as in BytePiece 0.4: the best path's recursion with coin tosses for comparisons. Biased.

The lattice is that of lattice/sums.py, processed document by document: sums do not restart at cuts.
kernels/cuda/lattice/viterbi_sample.cu does the same operations in the same order.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled


@compiled
def viterbi_sample_paths(low, high, doc_positions, n_docs, arc_offsets, lengths, scores, alpha, logits, n_arcs,
                         n_positions, sums, path):  # fmt: skip
    """Mark the paths of units low..high; unit i is document i % n_docs of sample i // n_docs.

    sums[e] is the score of the path drawn to e. The first of the arcs into e, from the longest to the shortest, is
    chosen, and each of the others replaces the choice with probability sigmoid(alpha * difference of their sums): if
    logit(u) < alpha * difference. logits float64 [num_samples, n_arcs] are the logits of uniform numbers; a sum of -inf
    means no path. sums float64 and path int32 are [num_samples, n_positions]; without marks if no path reaches the end.

    It is wrong in two ways, which are kept on purpose: a late arc wins more often than its share, and the sum of one
    drawn prefix stands for all prefixes. Source: Su Jianlin, https://kexue.fm/archives/9768 and, on the first, /9811.
    """
    for i in range(low, high):
        i_doc, i_sample = i % n_docs, i // n_docs
        start, stop = doc_positions[i_doc], doc_positions[i_doc + 1] - 1
        cells, i_logits = i_sample * n_positions, i_sample * n_arcs
        sums[cells + start] = 0.0
        for e in range(start + 1, stop + 1):
            score, rank = -np.inf, np.int64(-1)
            for j in range(arc_offsets[e + 1] - 1, arc_offsets[e] - 1, -1):
                candidate = sums[cells + e - lengths[j]] + scores[j]
                if candidate == -np.inf:
                    continue
                if rank < 0 or logits[i_logits + j] < alpha * (candidate - score):
                    score, rank = candidate, j - arc_offsets[e]
            sums[cells + e], path[cells + e] = score, rank
        on_path = stop
        for e in range(stop, start, -1):
            if e == on_path and path[cells + e] >= 0:
                on_path -= lengths[arc_offsets[e] + path[cells + e]]
            else:
                path[cells + e] = -1
