"""What the CPU backend calls: a range of parts to runs of ids, or, where one thread has a whole batch, texts to rows.

For a short text, each call from Python takes as long as its segmentation, so a whole batch is one call, and what it
returns is in few arrays.
"""

import numpy as np

from gpu_lattice.kernels.compiled import compiled
from gpu_lattice.kernels.cpu.bulk.assemble import place_around, place_runs, plan_rows
from gpu_lattice.kernels.cpu.bulk.encode import encode_parts
from gpu_lattice.kernels.cpu.bulk.encode_merges import encode_merges
from gpu_lattice.kernels.cpu.bulk.group import Batch
from gpu_lattice.kernels.cpu.bulk.parts import filled_documents, plan_parts
from gpu_lattice.kernels.cpu.bulk.sample import sample_parts
from gpu_lattice.kernels.cpu.passing import opened


@compiled
def sample_rows(texts, parts, part_bytes, is_null, doc_ids, seed, num_samples, tables, memo, weighed):
    """Samples of a range of parts, or of a whole batch.

    texts: what a Batch has, as a tuple. parts: part_offsets and part_docs, as of `sample_parts`; empty for a whole
    batch, which is divided into parts of part_bytes here, and whose chunks may be missing.
    is_null bool [D]. tables: around, int32, the ids before and after each row that is not null, then the model. The
    memo is held, like these.
    Returns (ids, bounds, scores, bad), as `sample_parts`. bounds int64: the offsets of a whole batch's rows; of a range
    where its runs start, then their lengths [2, P, K]. scores float64: log_weights [P, K], z, z_exponent [P], or empty.
    """
    around, model = opened(tables)
    memo = opened(memo)
    batch, part_offsets, part_docs, is_whole = _planned(texts, parts, part_bytes, model.pieces, False)
    ids, starts, lengths, log_weights, z, z_exponent, bad = sample_parts(
        batch, part_offsets, part_docs, doc_ids, seed, num_samples, model, memo, weighed
    )
    ids, bounds = _assembled(is_whole and bad < 0, ids, starts, lengths, part_docs, is_null, around)
    n, n_paths = len(z), log_weights.size
    scores = np.empty(n_paths + 2 * n)
    for i in range(n):
        for k in range(log_weights.shape[1]):
            scores[i * log_weights.shape[1] + k] = log_weights[i, k]
        scores[n_paths + i], scores[n_paths + n + i] = z[i], z_exponent[i]
    return ids, bounds, scores, bad


@compiled
def encode_rows(texts, parts, part_bytes, is_null, tables, memo):
    """As `sample_rows`, of best segmentations: (ids, bounds, bad)."""
    around, model, arcs = opened(tables)
    memo = opened(memo)
    batch, part_offsets, part_docs, is_whole = _planned(texts, parts, part_bytes, model.pieces, False)
    ids, starts, lengths, bad = encode_parts(batch, part_offsets, model, arcs, memo)
    ids, bounds = _assembled(is_whole and bad < 0, ids, starts, lengths, part_docs, is_null, around)
    return ids, bounds, bad


@compiled
def merge_rows(texts, parts, part_bytes, is_null, tables, memo):
    """As `sample_rows`, of canonical segmentations: (ids, bounds, bad).

    What merges make of unknown text is one run, so parts do not end within it.
    """
    around, model = opened(tables)
    memo = opened(memo)
    batch, part_offsets, part_docs, is_whole = _planned(texts, parts, part_bytes, model.pieces, True)
    ids, starts, lengths, bad = encode_merges(batch, part_offsets, model, memo)
    ids, bounds = _assembled(is_whole and bad < 0, ids, starts, lengths, part_docs, is_null, around)
    return ids, bounds, bad


@compiled
def _planned(texts, parts, part_bytes, pieces, keeps_runs):
    """(batch, part_offsets, part_docs, whether the batch is whole), with the parts and chunks of a whole one.

    keeps_runs: no part ends within unknown text.
    """
    part_offsets, part_docs = parts
    values, offsets, chunk_offsets, chunk_ids = texts
    is_whole = len(part_offsets) == 0
    if len(chunk_offsets) == 0:
        chunk_offsets = filled_documents(offsets)
    if len(chunk_ids) < len(chunk_offsets) - 1:
        chunk_ids = np.full(len(chunk_offsets) - 1, np.int32(-1))
    batch = Batch(values, offsets, chunk_offsets, chunk_ids)
    if is_whole:
        part_offsets, part_docs, firsts = plan_parts(batch, pieces, part_bytes)
        if keeps_runs:
            n = len(firsts) - 1
            for i in range(n):
                part_offsets[i], part_docs[i] = part_offsets[firsts[i]], part_docs[firsts[i]]
            part_offsets[n] = part_offsets[firsts[n]]
            part_offsets, part_docs = part_offsets[: n + 1], part_docs[:n]
    return batch, part_offsets, part_docs, is_whole


@compiled
def _assembled(is_whole, ids, run_starts, run_lengths, part_docs, is_null, around):
    """(ids, offsets) of the rows of a whole batch; of a range its ids, and where its runs start, and their lengths."""
    if not is_whole:
        n = run_starts.size
        bounds = np.empty(2 * n, np.int64)
        for i in range(run_starts.shape[0]):
            for k in range(run_starts.shape[1]):
                j = i * run_starts.shape[1] + k
                bounds[j], bounds[n + j] = run_starts[i, k], run_lengths[i, k]
        return ids, bounds
    before, after = around
    n_around = len(before) + len(after)
    offsets, starts = plan_rows(run_lengths, part_docs, len(is_null), n_around, is_null)
    if n_around == 0 and _are_equal(run_starts, starts):
        return ids, offsets
    out = np.empty(offsets[-1], np.int32)
    place_runs(ids, run_starts, run_lengths, starts, len(before), out)
    place_around(offsets, before, after, out)
    return out, offsets


@compiled
def _are_equal(a, b):
    """Whether two arrays of the same shape [n, m] hold the same: `np.array_equal` takes Numba a second."""
    is_same = True
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            is_same &= a[i, k] == b[i, k]
    return is_same
