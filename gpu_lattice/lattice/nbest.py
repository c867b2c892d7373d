"""The n best paths: lists of best prefixes, the paths in the last list, samples of those; and texts in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.backends import LatticeArrays
from gpu_lattice.kernels.fixed import fixed_exp, fixed_log
from gpu_lattice.lattice.path_batch import PathBatch
from gpu_lattice.lattice.paths import SampleOptions
from gpu_lattice.lattice.sums import row_sums
from gpu_lattice.normalizers import NormalizedBatch
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.runtime.ragged import offsets_of, row_of, rows_to_values
from gpu_lattice.token_batch import TokenBatch, joined

if TYPE_CHECKING:
    from gpu_lattice.backends import Launcher

# Ranks are int32.
MOST_RANKS = 2**31 - 1
# Below this a path's weight, relative to the best one's, is 0; no 53-bit number in [0, 1) would ever draw it.
LEAST_LOG = -700.0

# A batch of texts for the n best takes this much memory, or a share of what is free if that is less.
NBEST_BATCH_BYTES = 1 << 30
NBEST_MEMORY_SHARE = 0.25
LATTICE_RATIO = 150  # bytes of lattice for a byte of text: its arcs, their scores, and what building them takes
PREFIX_BYTES = 16
HEAD_BYTES = 4
MARK_BYTES = 4

# check_fits(number of bytes, what they are for) raises if that is too much.
CheckFits = Callable[[int, str], None]


class Prefixes(NamedTuple):
    """The best prefixes of every position, best first: a list is offsets[p] to offsets[p + 1], int64 [P + 1].

    totals float64, ranks int32 and prefixes int32 are as in kernels/cpu/lattice/nbest.py.
    """

    offsets: Any
    totals: Any
    ranks: Any
    prefixes: Any


class RankedPaths(NamedTuple):
    """The best paths of documents: rows doc_offsets[i] to doc_offsets[i + 1] are those of document i, best first.

    doc_offsets int64 [B + 1]; docs and ranks int64 [R].
    """

    doc_offsets: Any
    docs: Any
    ranks: Any


def count(launcher: Launcher, arrays: LatticeArrays, scores: Any, n: int) -> Any:
    """int64 [P]: how many prefixes each position has, n at most (and at least 1 if it has any); scores float64 [A]."""
    counts = launcher.xp.zeros(len(arrays.marks), np.int64)
    launcher.run(
        "count_prefixes", len(arrays.doc_positions) - 1,
        doc_positions=arrays.doc_positions, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths, scores=scores,
        most=max(n, 1), counts=counts,
    )  # fmt: skip
    return counts


def merge(launcher: Launcher, arrays: LatticeArrays, scores: Any, counts: Any, check_fits: CheckFits) -> Prefixes:
    """The lists, with the lengths counts int64 [P]."""
    xp = launcher.xp
    offsets = offsets_of(xp, counts)
    total = int(offsets[-1])
    check_fits(PREFIX_BYTES * total + HEAD_BYTES * len(arrays.arcs), f"a table of {total} best prefixes")
    lists = Prefixes(offsets, xp.empty(total), xp.empty(total, xp.int32), xp.empty(total, xp.int32))
    launcher.run(
        "merge_prefixes", len(arrays.doc_positions) - 1,
        doc_positions=arrays.doc_positions, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths, scores=scores,
        list_offsets=offsets, heads=xp.zeros(len(arrays.arcs), xp.int32), totals=lists.totals, ranks=lists.ranks,
        prefixes=lists.prefixes,
    )  # fmt: skip
    return lists


def ranked_paths(xp: Any, arrays: LatticeArrays, counts: Any, n: int) -> RankedPaths:
    """The n best paths of each document, or all if there are fewer."""
    doc_offsets = offsets_of(xp, xp.minimum(counts[arrays.doc_positions[1:] - 1], n))
    docs = row_of(xp, doc_offsets)
    return RankedPaths(doc_offsets, docs, xp.arange(len(docs)) - doc_offsets[docs])


def scores_of(arrays: LatticeArrays, lists: Prefixes, best: RankedPaths) -> Any:
    """float64 [R]."""
    return lists.totals[lists.offsets[arrays.doc_positions[best.docs + 1] - 1] + best.ranks]


def follow(
    launcher: Launcher, arrays: LatticeArrays, lists: Prefixes, docs: Any, ranks: Any, check_fits: CheckFits
) -> tuple[Any, Any]:
    """(marks int32 of paths, each over all positions of its document; firsts int64 [R], where each begins)."""
    xp = launcher.xp
    bounds = offsets_of(xp, xp.diff(arrays.doc_positions)[docs])
    total = int(bounds[-1])
    check_fits(MARK_BYTES * total, f"a table of {len(docs)} paths")
    path = xp.full(total, -1, xp.int32)
    launcher.run(
        "follow_prefixes", len(docs),
        row_doc=docs, row_rank=ranks, doc_positions=arrays.doc_positions, arc_offsets=arrays.arc_offsets,
        lengths=arrays.lengths, list_offsets=lists.offsets, ranks=lists.ranks, prefixes=lists.prefixes,
        path_firsts=bounds, path=path,
    )  # fmt: skip
    return path, bounds[:-1]


def draw(launcher: Launcher, doc_offsets: Any, scores: Any, alpha: float, options: SampleOptions) -> tuple[Any, Any]:
    """(ranks int64, log-probabilities float64) [B * num_samples] of draws by exp(alpha * score) among all rows.

    Every document has a path. Logs and exponentials are computed on the host, so that all devices draw the same.
    """
    offsets, values = on_host(doc_offsets), on_host(scores)
    with np.errstate(over="ignore"):
        logs = alpha * (values - np.repeat(values[offsets[:-1]], np.diff(offsets)))
    weights = np.where(logs < LEAST_LOG, 0.0, fixed_exp(np.maximum(logs, LEAST_LOG)))
    device_weights = launcher.upload(weights)
    totals = row_sums(launcher, doc_offsets, device_weights)
    ranks = launcher.xp.empty(len(options.doc_ids) * options.num_samples, np.int64)
    launcher.run(
        "draw_ranks", len(ranks),
        doc_offsets=doc_offsets, weights=device_weights, totals=totals, num_samples=options.num_samples,
        seed=np.uint64(options.seed), doc_ids=launcher.upload(options.doc_ids), ranks=ranks,
    )  # fmt: skip
    docs = np.repeat(np.arange(len(options.doc_ids)), options.num_samples)
    log_prob = logs[offsets[docs] + on_host(ranks)] - fixed_log(on_host(totals))[docs]
    return ranks, launcher.upload(log_prob)


def in_parts(
    batch: NormalizedBatch, n: int, num_samples: int, free_bytes: int
) -> Iterator[tuple[int, int, NormalizedBatch]]:
    """(start, stop, documents start to stop), at least one such part; the lists and marks of each take bounded memory.

    A document that may take more is a part by itself; its lattice checks whether it fits.
    """
    lengths = np.diff(batch.offsets)
    # At most 2^(p - 1) prefixes lead to position p.
    most = np.minimum(n, 2.0 ** np.minimum(lengths, 60))
    sizes = lengths * (LATTICE_RATIO + PREFIX_BYTES * most + MARK_BYTES * np.maximum(most, num_samples))
    total = np.append(0.0, np.cumsum(sizes))
    budget = min(NBEST_BATCH_BYTES, NBEST_MEMORY_SHARE * free_bytes)
    start = 0
    while True:
        stop = int(np.searchsorted(total, total[start] + budget, side="right")) - 1
        stop = min(max(stop, start + 1), len(batch))
        yield start, stop, batch.part(start, stop)
        if stop == len(batch):
            return
        start = stop


def joined_paths(launcher: Launcher, parts: Sequence[PathBatch]) -> PathBatch:
    """The documents of all batches, one batch after another."""
    if len(parts) == 1:
        return parts[0]
    with launcher:
        xp = launcher.xp
        tokens = joined([part.tokens for part in parts])
        doc_offsets = offsets_of(xp, xp.concatenate([xp.diff(part.doc_offsets) for part in parts]))
        return PathBatch(tokens, doc_offsets, xp.concatenate([part.scores for part in parts]))


def repeated(launcher: Launcher, tokens: TokenBatch, times: int, has_log_prob: bool) -> TokenBatch:
    """Every row repeated; each has log-probability 0."""
    with launcher:
        xp = launcher.xp
        values, offsets = rows_to_values(xp, tokens.offsets, xp.repeat(xp.arange(len(tokens)), times))
        log_prob = xp.zeros(len(offsets) - 1) if has_log_prob else None
        valid = None if tokens.valid is None else np.repeat(tokens.valid, times)
        return TokenBatch(tokens.ids[values], offsets, log_prob, valid)
