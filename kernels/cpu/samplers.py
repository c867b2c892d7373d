"""The samplers of the literature (kernels/reference_samplers.py) for many texts. One call runs on one thread.

A row is a document's sample, doc-major; its coins are numbered from 0.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.buffers import grown
from gpu_lattice.kernels.cpu.philox import uniform
from gpu_lattice.kernels.tables.merges import LOW_HALF, NONE, merge_of


@compiled
def bpe_dropout_rows(symbols, unit_offsets, doc_units, table, dropout, seed, doc_ids, num_samples):
    """BPE with dropout.

    symbols int32: those of unit i are unit_offsets[i] to unit_offsets[i + 1]; the units of document i are doc_units[i]
    to doc_units[i + 1]. table: kernels/tables/merges.py. Returns (ids int32, lengths int64 [rows]).
    """
    slots, may_merge = table.slots, table.filter
    n_docs = len(doc_units) - 1
    lengths = np.zeros(n_docs * num_samples, np.int64)
    ids = np.empty(len(symbols) * num_samples, np.int32)
    longest = np.int64(0)
    for i in range(len(unit_offsets) - 1):
        longest = max(longest, unit_offsets[i + 1] - unit_offsets[i])
    tokens, kept = np.empty(longest, np.int64), np.empty(longest, np.int64)
    n_ids = np.int64(0)
    for i_doc in range(n_docs):
        for i_sample in range(num_samples):
            coin, first = np.int64(0), n_ids
            for i_unit in range(doc_units[i_doc], doc_units[i_doc + 1]):
                n = unit_offsets[i_unit + 1] - unit_offsets[i_unit]
                for k in range(n):
                    tokens[k] = symbols[unit_offsets[i_unit] + k]
                merges_left = True
                while merges_left:
                    least = np.int64(-1)
                    for k in range(n - 1):
                        kept[k] = merge_of(slots, may_merge, tokens[k], tokens[k + 1])
                        if kept[k] != NONE and dropout > 0.0:
                            if uniform(seed, coin, i_sample, doc_ids[i_doc]) < dropout:
                                kept[k] = NONE
                            coin += 1
                        if kept[k] != NONE and (least < 0 or kept[k] >> 32 < least):
                            least = kept[k] >> 32
                    merges_left = least >= 0
                    if merges_left:
                        n = _merge_all(tokens, kept, n, least)
                for k in range(n):
                    ids[n_ids] = tokens[k]
                    n_ids += 1
            lengths[i_doc * num_samples + i_sample] = n_ids - first
    return ids[:n_ids], lengths


@compiled
def _merge_all(tokens, kept, n, least):
    """Merge all pairs of this rank, from left to right; returns how many tokens are left."""
    k = m = np.int64(0)
    while k < n:
        if k + 1 < n and kept[k] != NONE and kept[k] >> 32 == least:
            tokens[m] = kept[k] & LOW_HALF
            k += 2
        else:
            tokens[m] = tokens[k]
            k += 1
        m += 1
    return m


@compiled
def maxmatch_paths(doc_positions, out_offsets, out_arcs, arc_offsets, lengths, dropout, seed, doc_ids, num_samples,
                   path):  # fmt: skip
    """Mark the longest matches with dropout; returns the first position where none begins, or -1.

    out_arcs int64: the arcs that begin at position p, shortest first, are out_arcs[out_offsets[p]:out_offsets[p + 1]],
    as indices of lengths int32; path int32 [num_samples, P], initially -1.
    """
    for i_doc in range(len(doc_positions) - 1):
        start, stop = doc_positions[i_doc], doc_positions[i_doc + 1] - 1
        for i_sample in range(num_samples):
            s, coin = start, np.int64(0)
            while s < stop:
                first, k = out_offsets[s], out_offsets[s + 1] - 1
                if k < first:
                    return s
                while k > first and dropout > 0.0:
                    coin += 1
                    if uniform(seed, coin - 1, i_sample, doc_ids[i_doc]) >= dropout:
                        break
                    k -= 1
                s += lengths[out_arcs[k]]
                path[i_sample, s] = out_arcs[k] - arc_offsets[s]
    return np.int64(-1)


@compiled
def walk_paths(doc_positions, arc_offsets, lengths, weights, seed, doc_ids, num_samples, path):
    """Mark walks from the end: at every position an arc into it, by weights float64 [A]; some arc has one above 0.

    The first arc, shortest first, whose running sum exceeds a coin times the sum of all; if none does, the last.
    """
    for i_doc in range(len(doc_positions) - 1):
        start, stop = doc_positions[i_doc], doc_positions[i_doc + 1] - 1
        for i_sample in range(num_samples):
            e, coin = stop, np.int64(0)
            while e > start:
                total = 0.0
                for j in range(arc_offsets[e], arc_offsets[e + 1]):
                    total += weights[j]
                target, running, chosen = uniform(seed, coin, i_sample, doc_ids[i_doc]) * total, 0.0, np.int64(-1)
                for j in range(arc_offsets[e], arc_offsets[e + 1]):
                    if weights[j] > 0.0:
                        chosen = j
                        running += weights[j]
                        if running > target:
                            break
                coin += 1
                path[i_sample, e] = chosen - arc_offsets[e]
                e -= lengths[chosen]


@compiled
def split_rows(ids, offsets, splits, split_offsets, share, seed, doc_ids, num_samples):
    """StochasTok of rows of ids; splits int32 [S, 2]: those of id i are split_offsets[i] to split_offsets[i + 1].

    Returns (ids int32, lengths int64 [rows]).
    """
    n_docs = len(offsets) - 1
    lengths = np.zeros(n_docs * num_samples, np.int64)
    out = np.empty(max(16, 2 * len(ids) * num_samples), np.int32)
    n_ids = np.int64(0)
    for i_doc in range(n_docs):
        given = offsets[i_doc + 1] - offsets[i_doc]
        n_times = np.int64(share * given)
        for i_sample in range(num_samples):
            out = grown(out, n_ids, n_ids + given + n_times)
            for k in range(given):
                out[n_ids + k] = ids[offsets[i_doc] + k]
            n, coin = given, np.int64(0)
            for _ in range(n_times):
                at = n_ids + np.int64(uniform(seed, coin, i_sample, doc_ids[i_doc]) * n)
                coin += 1
                low, high = split_offsets[out[at]], split_offsets[out[at] + 1]
                if low == high:
                    continue
                chosen = low + np.int64(uniform(seed, coin, i_sample, doc_ids[i_doc]) * (high - low))
                coin += 1
                for k in range(n_ids + n, at + 1, -1):
                    out[k] = out[k - 1]
                out[at], out[at + 1] = splits[chosen, 0], splits[chosen, 1]
                n += 1
            n_ids += n
            lengths[i_doc * num_samples + i_sample] = n
    return out[:n_ids], lengths
