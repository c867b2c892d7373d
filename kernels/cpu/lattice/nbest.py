"""The n best paths of each document: a list of the best prefixes at every position, merged over the arcs into it.

The lattice is that of lattice/sums.py, processed document by document, ignoring cuts. A prefix is a path from the
document's start to a position; the list of position p, best first, is list_offsets[p] to list_offsets[p + 1] of
    totals      float64, its score: a sum from left to right
    ranks       int32, the rank of its last arc among those into p
    prefixes    int32, the index of the rest of it in the list of that arc's start
A score of -inf means no arc. kernels/cuda/lattice/nbest.cu does the same operations in the same order.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.philox import uniform


@compiled
def count_prefixes(low, high, doc_positions, arc_offsets, lengths, scores, most, counts):
    """counts int64 [P]: how many prefixes each position of documents low..high has, or `most` if there are more."""
    for i in range(low, high):
        start = doc_positions[i]
        counts[start] = 1
        for e in range(start + 1, doc_positions[i + 1]):
            count = np.int64(0)
            for j in range(arc_offsets[e], arc_offsets[e + 1]):
                if scores[j] > -np.inf:
                    count = min(most, count + counts[e - lengths[j]])
            counts[e] = count


@compiled
def merge_prefixes(low, high, doc_positions, arc_offsets, lengths, scores, list_offsets, heads, totals, ranks,
                   prefixes):  # fmt: skip
    """Fill the lists of documents low..high; heads int32 [A], initially 0: how much of an arc's list is taken.

    The next prefix is the greatest that the arcs offer; in a tie that of the last arc, which is the longest.
    """
    for i in range(low, high):
        start = doc_positions[i]
        totals[list_offsets[start]] = 0.0
        for e in range(start + 1, doc_positions[i + 1]):
            for place in range(list_offsets[e], list_offsets[e + 1]):
                most, taken = -np.inf, np.int64(-1)
                for j in range(arc_offsets[e], arc_offsets[e + 1]):
                    s = e - lengths[j]
                    prefix = list_offsets[s] + heads[j]
                    if prefix < list_offsets[s + 1] and scores[j] > -np.inf:
                        total = totals[prefix] + scores[j]
                        if total >= most:
                            most, taken = total, j
                totals[place] = most
                ranks[place], prefixes[place] = taken - arc_offsets[e], heads[taken]
                heads[taken] += 1


@compiled
def follow_prefixes(low, high, row_doc, row_rank, doc_positions, arc_offsets, lengths, list_offsets, ranks, prefixes,
                    path_firsts, path):  # fmt: skip
    """Mark the path at row_rank[i] in the last list of document row_doc[i], from path[path_firsts[i]] on."""
    for i in range(low, high):
        start = doc_positions[row_doc[i]]
        e = doc_positions[row_doc[i] + 1] - 1
        prefix = row_rank[i]
        while e > start:
            place = list_offsets[e] + prefix
            path[path_firsts[i] + e - start] = ranks[place]
            prefix = np.int64(prefixes[place])
            e -= lengths[arc_offsets[e] + ranks[place]]


@compiled
def draw_ranks(low, high, doc_offsets, weights, totals, num_samples, seed, doc_ids, ranks):
    """ranks int64: one of each document's values, drawn by weight; unit i is sample i % num_samples of a document.

    weights float64 decrease within a document (doc_offsets), totals float64 are their sums from the first on. The draw
    is the first whose running sum exceeds u * total; if none does, the last that adds. Its counter has position 0,
    where no arc ends.
    """
    for i in range(low, high):
        i_doc, i_sample = i // num_samples, i % num_samples
        target = uniform(seed, 0, i_sample, doc_ids[i_doc]) * totals[i_doc]
        running = 0.0
        rank = np.int64(0)
        for j in range(doc_offsets[i_doc], doc_offsets[i_doc + 1]):
            if weights[j] == 0.0:
                break
            rank = j - doc_offsets[i_doc]
            running += weights[j]
            if running > target:
                break
        ranks[i] = rank
