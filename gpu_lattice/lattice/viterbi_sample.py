"""Viterbi Sampling, the biased sampler of BytePiece 0.4: a coin for every arc and sample, then paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.backends import LatticeArrays, Ranges
from gpu_lattice.kernels.cpu.philox import uniforms
from gpu_lattice.kernels.fixed import fixed_log
from gpu_lattice.lattice.paths import SampleOptions, raise_if_broken
from gpu_lattice.lattice.without_replacement import ARRIVAL
from gpu_lattice.runtime.arguments import checked_alpha
from gpu_lattice.runtime.on_host import on_host

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends import Launcher

# How many arcs times samples are worked on at once (but at least one sample), and how many logits are computed at once.
SAMPLED_ARCS = 1 << 22
LOGITS = 1 << 16
MARK_BYTES = 4
SUM_BYTES = 8
LOGIT_BYTES = 8
COUNTER_BYTES = 16
# The arcs of a document count down from this position of its counters; draws at positions count up from 0.
FIRST_ARC = ARRIVAL - 1


def checked_positive_alpha(alpha: Any) -> float:
    """alpha as a float; ValueError for 0, which has two meanings."""
    value = checked_alpha(alpha)
    if value == 0:
        raise ValueError(
            "alpha is 0, which was the best path in BytePiece 0.4 and is uniform sampling elsewhere; "
            "give a number > 0, or use viterbi() or sample(alpha=0)"
        )
    return value


def draw(
    launcher: Launcher,
    arrays: LatticeArrays,
    ranges: Ranges,
    scores: Any,
    alpha: float,
    options: SampleOptions,
    check_fits: Callable[[int, str], None],
) -> Any:
    """Marks int32 [num_samples, P]; scores float64 [A], -inf for no arc. Ranges only tell where a text is broken."""
    xp, n_docs, n_positions, n_arcs = launcher.xp, len(options.doc_ids), len(arrays.marks), len(arrays.arcs)
    group = min(max(SAMPLED_ARCS // max(n_arcs, n_positions, 1), 1), options.num_samples)
    size = MARK_BYTES * options.num_samples * n_positions + group * (SUM_BYTES * n_positions + LOGIT_BYTES * n_arcs)
    check_fits(size + COUNTER_BYTES * n_arcs, f"{options.num_samples} samples")
    doc_ids, positions = _counters(arrays, options)
    path = xp.full((options.num_samples, n_positions), -1, xp.int32)
    for first in range(0, options.num_samples, group):
        marks = path[first : first + group]
        totals = xp.empty((len(marks), n_positions))
        logits = np.empty((len(marks), n_arcs))
        _fill_logits(logits, options.seed, positions, first, doc_ids)
        launcher.run(
            "viterbi_sample_paths", n_docs * len(marks),
            doc_positions=arrays.doc_positions, n_docs=n_docs, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths,
            scores=scores, alpha=alpha, logits=launcher.upload(logits.reshape(-1)), n_arcs=n_arcs,
            n_positions=n_positions, sums=totals.reshape(-1), path=marks.reshape(-1),
        )  # fmt: skip
        raise_if_broken(launcher, arrays, ranges, totals[0, ranges.stops] > -np.inf)
    return path


def _counters(arrays: LatticeArrays, options: SampleOptions) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """For every arc, its document's id and a counter position that no other arc or draw of the document uses."""
    doc_positions, arc_offsets = on_host(arrays.doc_positions), on_host(arrays.arc_offsets)
    doc_arcs = arc_offsets[doc_positions]
    counts = np.diff(doc_arcs)
    if len(counts) and int((counts + np.diff(doc_positions)).max()) > FIRST_ARC:
        raise ValueError(f"a text has more than {FIRST_ARC} bytes and arcs; cut it into parts")
    number = np.arange(len(arrays.arcs)) - np.repeat(doc_arcs[:-1], counts)
    return np.repeat(options.doc_ids, counts), FIRST_ARC - number


def _fill_logits(
    out: NDArray[np.float64], seed: int, positions: NDArray[np.int64], first: int, doc_ids: NDArray[np.uint64]
) -> None:
    """out [samples, A]: log(u) - log(1 - u) of the uniform number of every arc in samples first, first + 1, ...

    Computed on the host, so that all devices draw the same.
    """
    n_samples, n_arcs = out.shape
    step = max(LOGITS // max(n_samples, 1), 1)
    for low in range(0, n_arcs, step):
        arcs = slice(low, low + step)
        u = uniforms(np.uint64(seed), positions[arcs], first, n_samples, doc_ids[arcs])
        out[:, arcs] = np.where(u > 0, fixed_log(np.maximum(u, 2.0**-54)) - fixed_log(1.0 - u), -np.inf)
