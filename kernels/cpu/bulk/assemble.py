"""Runs of ids, part by part, put together into rows: row = document * num_samples + sample."""

import numpy as np

from gpu_lattice.kernels.compiled import compiled


@compiled
def plan_rows(run_lengths, part_doc, n_docs, n_around, is_null):
    """Where each run goes.

    run_lengths int64 [P, K], part_doc int64 [P] ascending, n_around: ids put around every row that is not null,
    is_null bool [D].
    Returns (offsets int64 [D K + 1], starts int64 [P, K]: where each run begins, without what is put before a row).
    """
    n_parts, num_samples = run_lengths.shape
    offsets = np.zeros(n_docs * num_samples + 1, np.int64)
    starts = np.empty((n_parts, num_samples), np.int64)
    i_part = 0
    for i_doc in range(n_docs):
        first = i_part
        while i_part < n_parts and part_doc[i_part] == i_doc:
            i_part += 1
        for i_sample in range(num_samples):
            row = i_doc * num_samples + i_sample
            end = offsets[row]
            for k in range(first, i_part):
                starts[k, i_sample] = end
                end += run_lengths[k, i_sample]
            offsets[row + 1] = end if is_null[i_doc] else end + n_around
    return offsets, starts


@compiled
def place_runs(ids, run_starts, run_lengths, starts, shift, out):
    """Copy the runs of `ids` from run_starts to out[starts + shift]; all int64 [P, K]."""
    for i_part in range(run_lengths.shape[0]):
        for i_sample in range(run_lengths.shape[1]):
            first, to = np.uint64(run_starts[i_part, i_sample]), np.uint64(starts[i_part, i_sample] + shift)
            # A loop, for an assignment of slices takes longer than the ids of a short document; unsigned indices let it
            # be vectorized.
            for k in range(np.uint64(run_lengths[i_part, i_sample])):
                out[to + k] = ids[first + k]


@compiled
def place_around(offsets, before, after, out):
    """Write the ids that belong before and after every row that has room for them (a null row has none)."""
    for row in range(len(offsets) - 1):
        if offsets[row + 1] > offsets[row]:
            out[offsets[row] : offsets[row] + len(before)] = before
            out[offsets[row + 1] - len(after) : offsets[row + 1]] = after


@compiled
def log_probs(log_weights, log_z, part_doc, n_docs):
    """float64 [D K]: log-weight - log Z, each summed over a document's parts from the first to the last."""
    n_parts, num_samples = log_weights.shape
    totals = np.zeros((n_docs, num_samples), np.float64)
    partitions = np.zeros(n_docs, np.float64)
    for i_part in range(n_parts):
        i_doc = part_doc[i_part]
        partitions[i_doc] += log_z[i_part]
        for i_sample in range(num_samples):
            totals[i_doc, i_sample] += log_weights[i_part, i_sample]
    return (totals - partitions.reshape(-1, 1)).ravel()
