"""Best segmentation of a range of documents: Viterbi over each chunk, then emission. One call runs on one thread."""

import numpy as np
from numba import njit

from gpu_lattice.kernels.cpu.buffers import grown
from gpu_lattice.kernels.cpu.emit import emit_path
from gpu_lattice.kernels.cpu.viterbi import follow, viterbi


@njit(nogil=True, cache=True)
def encode_docs(values, chunk_offsets, chunk_ids, doc_offsets, model):
    """(ids int32, run_lengths int64 [D], bad): bad is the end of a chunk that no path reaches, or -1.

    doc_offsets int64 [D + 1]; every document boundary is a chunk boundary.
    """
    slots, piece_at, best_at, best_unk = model.slots, model.piece_at, model.best_at, model.best_unk
    lowest, reset, longest_arc, is_bytes = model.lowest, model.reset, model.longest, model.is_bytes
    unk_id, byte_ids, look_up = model.unk_id, model.byte_ids, model.look_up
    n_docs = len(doc_offsets) - 1
    first = np.searchsorted(chunk_offsets, doc_offsets[0])
    last = np.searchsorted(chunk_offsets, doc_offsets[n_docs])
    longest = np.max(np.diff(chunk_offsets[first : last + 1])) if last > first else np.int64(0)
    best = np.empty(longest + 1, best_at.dtype)
    subtracted = np.empty(longest + 1, best_at.dtype)
    back_arc, back_start = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int64)
    path_arc, path_start = np.empty(longest, np.int32), np.empty(longest, np.int64)
    run_lengths = np.zeros(n_docs, np.int64)
    ids = np.empty(max(16, (doc_offsets[n_docs] - doc_offsets[0]) // 2), np.int32)
    n_ids = np.int64(0)
    i_chunk = first
    for i_doc in range(n_docs):
        before = n_ids
        while i_chunk < last and chunk_offsets[i_chunk] < doc_offsets[i_doc + 1]:
            start, stop = chunk_offsets[i_chunk], chunk_offsets[i_chunk + 1]
            ids = grown(ids, n_ids, n_ids + stop - start)
            if chunk_ids[i_chunk] >= 0:
                ids[n_ids] = chunk_ids[i_chunk]
                n_ids += 1
            else:
                viterbi(values, start, stop, slots, piece_at, best_at, best_unk, lowest, reset, longest_arc, is_bytes,
                        best, subtracted, back_arc, back_start)  # fmt: skip
                if best[stop - start] == lowest:
                    return ids, run_lengths, stop
                first_arc = follow(start, stop, back_arc, back_start, path_arc, path_start)
                n_ids = emit_path(values, stop, path_arc, path_start, first_arc, stop - start, slots, piece_at, unk_id,
                                  byte_ids, look_up, ids, n_ids)  # fmt: skip
            i_chunk += 1
        run_lengths[i_doc] = n_ids - before
    return ids[:n_ids], run_lengths, np.int64(-1)
