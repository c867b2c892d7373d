"""Sampling without replacement: different paths, one after another by weight, and their inclusion probabilities.

Paths drawn one after another, each by weight among those not yet drawn, are paths in the order of their arrival times,
independent and exponential with the paths' probabilities as rates: among paths with total probability R, the first
arrives after an exponential time of rate R, and is each path with probability p / R. A perturbed log-probability
(log p plus Gumbel noise) is -log of an arrival time, so this is Gumbel-top-k over paths.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.backends import LatticeArrays
from gpu_lattice.kernels.cpu.philox import uniforms
from gpu_lattice.kernels.fixed import fixed_log
from gpu_lattice.lattice.arrays import documents
from gpu_lattice.lattice.paths import SampleOptions, path_sums
from gpu_lattice.lattice.sums import LN_2, forward, log_of, row_sums
from gpu_lattice.runtime.arguments import checked_integer
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.runtime.ragged import offsets_of, row_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends import Launcher

# The numbers of a document's rows are int32.
MOST_ROWS = 2**31 - 1
CELL_BYTES = 24
ROW_BYTES = 28
POSITION_BYTES = 24
SCORE_BYTES = 8
# The position in the counters of arrival times; no text has so many bytes.
ARRIVAL = 2**32 - 1


class Drawn(NamedTuple):
    """Rows doc_offsets[i] to doc_offsets[i + 1] are different paths of document i, in the order they are drawn.

    doc_offsets int64 [B + 1]; docs int64 [R]; path int32, the marks of each row's document, from firsts int64 [R] on.
    log_prob float64 [R]. rest float64 [R], int64 [R]: the probability that is left after each row, a number and its
    exponent of two. has_more bool [B]: whether a document has more paths than its rows.
    """

    doc_offsets: Any
    docs: Any
    path: Any
    firsts: Any
    log_prob: Any
    rest: tuple[Any, Any]
    has_more: Any


def checked_options(k: Any, seed: Any, doc_ids: Any, n_docs: int) -> SampleOptions:
    """For k >= 0 paths; ValueError or TypeError for options out of range."""
    return SampleOptions.checked(1, seed, doc_ids, n_docs)._replace(num_samples=checked_integer("k", k, 0, MOST_ROWS))


def draw(
    launcher: Launcher,
    arrays: LatticeArrays,
    weights: Any,
    options: SampleOptions,
    check_fits: Callable[[int, str], None],
) -> Drawn:
    """num_samples paths of each document, or all if there are fewer; weights float64 [A]."""
    xp, k = launcher.xp, options.num_samples
    check_fits(POSITION_BYTES * len(arrays.marks) + SCORE_BYTES * len(arrays.arcs), f"a sample of {k} paths")
    n_paths = _count(launcher, arrays, weights, k + 1)
    doc_offsets = offsets_of(xp, xp.minimum(n_paths, k))
    n_rows = int(doc_offsets[-1])
    check_fits(ROW_BYTES * n_rows, f"a sample of {k} paths")
    docs = row_of(xp, doc_offsets)
    cells = offsets_of(xp, xp.diff(arrays.doc_positions)[docs])
    n_cells = int(cells[-1])
    check_fits(CELL_BYTES * n_cells, f"a sample of {k} paths")
    ranges = documents(xp, arrays)
    z = forward(launcher, arrays, ranges, weights)
    path, siblings = xp.full(n_cells, -1, xp.int32), xp.full(n_cells, -1, xp.int32)
    left, exponents = xp.zeros(n_cells), xp.zeros(n_cells, xp.int64)
    parents, branches = xp.empty(n_rows, xp.int32), xp.empty(n_rows, xp.int64)
    rest, rest_exponents = xp.empty(n_rows), xp.empty(n_rows, xp.int64)
    launcher.run(
        "draw_without_replacement", len(options.doc_ids),
        doc_positions=arrays.doc_positions, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths, weights=weights,
        z=z.mantissas, z_exponents=z.exponents, seed=np.uint64(options.seed), doc_ids=launcher.upload(options.doc_ids),
        row_offsets=doc_offsets, cell_offsets=cells[doc_offsets], path=path, siblings=siblings, left=left,
        left_exponents=exponents, parents=parents, branches=branches, rest=rest, rest_exponents=rest_exponents,
    )  # fmt: skip
    logs = path_sums(launcher, arrays, path, docs, cells[:-1], log_of(xp, weights))
    log_prob = logs - row_sums(launcher, ranges.offsets, z.of_ranges)[docs]
    ends = arrays.doc_positions[docs + 1] - 1
    whole = xp.where(z.mantissas[ends] > 0, z.mantissas[ends], 1.0)
    left_of_one = rest / whole, rest_exponents - z.exponents[ends]
    return Drawn(doc_offsets, docs, path, cells[:-1], log_prob, left_of_one, n_paths > k)


def _count(launcher: Launcher, arrays: LatticeArrays, weights: Any, most: int) -> Any:
    """int64 [B]: how many paths of weight > 0 each document has, or `most` if there are more."""
    xp = launcher.xp
    counts = xp.zeros(len(arrays.marks), xp.int64)
    launcher.run(
        "count_prefixes", len(arrays.doc_positions) - 1,
        doc_positions=arrays.doc_positions, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths,
        scores=xp.where(weights > 0, 0.0, -np.inf), most=most, counts=counts,
    )  # fmt: skip
    return counts[arrays.doc_positions[1:] - 1]


def log_inclusion(drawn: Drawn, options: SampleOptions) -> NDArray[np.float64]:
    """float64 [R] on the host: log(1 - exp(-p * t)), t the arrival time of the first path not drawn; 0 for none.

    The waiting times are drawn from counters that nothing else uses: position ARRIVAL, with the number of paths drawn
    before as the sample.
    """
    out = np.zeros(len(drawn.docs))
    i_docs, k = np.flatnonzero(on_host(drawn.has_more)), options.num_samples
    if not len(i_docs):
        return out
    positions = np.full(len(i_docs), ARRIVAL)
    u = uniforms(np.uint64(options.seed), positions, 0, k + 1, options.doc_ids[i_docs]).T
    # A number in [0, 1) may be 0; it is replaced by half of the smallest positive one.
    waits = np.log(-fixed_log(np.maximum(u, 2.0**-54)))
    rows = on_host(drawn.doc_offsets)[i_docs][:, None] + np.arange(k)
    mantissas, exponents = (on_host(part)[rows] for part in drawn.rest)
    waits[:, 1:] -= np.log(mantissas) + exponents * LN_2
    log_t = np.logaddexp.reduce(waits, axis=1)
    out[rows] = _log1mexp(on_host(drawn.log_prob)[rows] + log_t[:, None])
    return out


def _log1mexp(log_x: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(1 - exp(-x)) from log(x); for small x it is log(x).

    Example:
        >>> _log1mexp(np.array([-1000.0, 0.0, 1000.0])).round(6).tolist()
        [-1000.0, -0.458675, -0.0]
    """
    x = np.exp(np.clip(log_x, -40.0, 40.0))
    of_small, of_great = np.log(-np.expm1(-x)), np.log1p(-np.exp(-np.maximum(x, LN_2)))
    return np.where(log_x < -40.0, log_x, np.where(x < LN_2, of_small, of_great))
