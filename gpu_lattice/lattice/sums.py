"""Sums over paths: forward and backward scores, posteriors, counts, entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.kernels.fixed import fixed_log
from gpu_lattice.lattice.arrays import LatticeArrays, Ranges
from gpu_lattice.lattice.ragged import counts_up_to, row_of
from gpu_lattice.runtime.on_host import on_host

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends import Launcher

LN_2 = float(np.log(2.0))
# float64 counts exactly up to 2^EXACT_BITS.
EXACT_BITS = 53
LONGEST_EXACT_COUNT = 1 << 16


class Sums(NamedTuple):
    """mantissas float64 [P] in [0.5, 1) or 0, exponents int64 [P]; of_ranges: float64 [S], the logs of whole ranges."""

    mantissas: Any
    exponents: Any
    of_ranges: Any


def forward(launcher: Launcher, arrays: LatticeArrays, ranges: Ranges, weights: Any) -> Sums:
    """z of every position of every range (kernels.*.lattice.sums); 0 outside the ranges."""
    xp, n_positions = launcher.xp, len(arrays.marks)
    z, exponents = xp.zeros(n_positions), xp.zeros(n_positions, xp.int64)
    launcher.run(
        "forward_sums", len(ranges.starts),
        starts=ranges.starts, stops=ranges.stops, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths,
        weights=weights, z=z, z_exponents=exponents,
    )  # fmt: skip
    return Sums(z, exponents, _logs(xp, z[ranges.stops], exponents[ranges.stops]))


def backward(launcher: Launcher, arrays: LatticeArrays, ranges: Ranges, weights: Any) -> Sums:
    """b of every position of every range."""
    xp, n_positions = launcher.xp, len(arrays.marks)
    b, exponents = xp.zeros(n_positions), xp.zeros(n_positions, xp.int64)
    launcher.run(
        "backward_sums", len(ranges.starts),
        starts=ranges.starts, stops=ranges.stops, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths,
        weights=weights, b=b, b_exponents=exponents,
    )  # fmt: skip
    return Sums(b, exponents, _logs(xp, b[ranges.starts], exponents[ranges.starts]))


def document_logs(
    launcher: Launcher, arrays: LatticeArrays, ranges: Ranges, scores: Sums, from_end: bool = False
) -> Any:
    """float64 [P]: logs of scores from the start (or end) of the document, not of the range."""
    xp = launcher.xp
    n_positions = len(arrays.marks)
    if not len(ranges.starts):
        return xp.zeros(n_positions)
    before, after, _ = running(launcher, ranges.offsets, scores.of_ranges)
    logs = _logs(xp, scores.mantissas, scores.exponents)
    if from_end:
        edge, i_range = arrays.doc_positions[1:] - 1, counts_up_to(xp, ranges.starts, n_positions) - 1
        outer = after[xp.maximum(i_range, 0)]
    else:
        edge, i_range = arrays.doc_positions[:-1], counts_up_to(xp, ranges.stops + 1, n_positions)
        outer = before[xp.minimum(i_range, len(ranges.stops) - 1)]
    logs = logs + outer
    logs[edge] = 0.0
    return logs


def log_partition(launcher: Launcher, ranges: Ranges, scores: Sums) -> Any:
    """float64 [B]."""
    return row_sums(launcher, ranges.offsets, scores.of_ranges)


def exact_counts(xp: Any, arrays: LatticeArrays, ranges: Ranges, ones: Sums) -> list[int]:
    """Python ints, from forward sums with all weights 1; counts too large for float64 are made again."""
    longest = int(xp.diff(arrays.doc_positions).max()) - 1 if len(arrays.doc_positions) > 1 else 0
    if longest > LONGEST_EXACT_COUNT:
        raise ValueError(
            f"a text has {longest} bytes; exact counts are for up to {LONGEST_EXACT_COUNT}: "
            "give log=True for their logs"
        )
    mantissas, exponents = on_host(ones.mantissas[ranges.stops]), on_host(ones.exponents[ranges.stops])
    is_exact = exponents <= EXACT_BITS
    counts = np.ldexp(mantissas, np.minimum(exponents, EXACT_BITS).astype(np.int32)).astype(np.int64).tolist()
    if not is_exact.all():
        starts, stops = on_host(ranges.starts), on_host(ranges.stops)
        arc_offsets, lengths = on_host(arrays.arc_offsets), on_host(arrays.lengths)
        for i in np.flatnonzero(~is_exact).tolist():
            counts[i] = _count(int(starts[i]), int(stops[i]), arc_offsets, lengths)
    totals = [1] * (len(arrays.doc_positions) - 1)
    for i_doc, count in zip(on_host(ranges.docs).tolist(), counts, strict=True):
        totals[i_doc] *= count
    return totals


def _count(start: int, stop: int, arc_offsets: Any, lengths: Any) -> int:
    counts = {start: 1}
    for e in range(start + 1, stop + 1):
        counts[e] = sum(counts[e - n] for n in lengths[arc_offsets[e] : arc_offsets[e + 1]].tolist())
    return counts[stop]


def posteriors(launcher: Launcher, arrays: LatticeArrays, ranges: Ranges, weights: Any, z: Sums) -> Any:
    """float64 [A]: the probability of each arc."""
    xp = launcher.xp
    b = backward(launcher, arrays, ranges, weights)
    whole = z.mantissas[ranges.stops]
    inverse = xp.where(whole > 0, 1.0 / xp.where(whole > 0, whole, 1.0), 0.0)
    out = xp.zeros(len(weights))
    launcher.run(
        "arc_posteriors", len(ranges.starts),
        starts=ranges.starts, stops=ranges.stops, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths,
        weights=weights, z=z.mantissas, z_exponents=z.exponents, b=b.mantissas, b_exponents=b.exponents,
        inverse=inverse, posteriors=out,
    )  # fmt: skip
    # No path spells a document if none crosses one of its ranges.
    is_dead = xp.zeros(len(arrays.doc_positions) - 1, bool)
    is_dead[ranges.docs[whole == 0]] = True
    if bool(is_dead.any()):
        position = row_of(xp, arrays.arc_offsets)
        out[is_dead[row_of(xp, arrays.doc_positions)[position]]] = 0.0
    return out


def entropy(launcher: Launcher, arrays: LatticeArrays, arc_posteriors: Any) -> Any:
    """float64 [B], nats: the sum over arcs of the posterior times -log of its share of those into the same position.

    share = posterior / (posterior + rest), so -log(share) = log1p(rest / posterior), exact however small the rest is.
    """
    xp = launcher.xp
    before, after, _ = running(launcher, arrays.arc_offsets, arc_posteriors)
    is_taken = arc_posteriors > 0
    rest = (before + after) / xp.where(is_taken, arc_posteriors, 1.0)
    by_position = row_sums(launcher, arrays.arc_offsets, xp.where(is_taken, arc_posteriors * xp.log1p(rest), 0.0))
    return row_sums(launcher, arrays.doc_positions, by_position)


def row_sums(launcher: Launcher, offsets: Any, values: Any) -> Any:
    """float64 [rows], each row summed from its first value to its last."""
    totals = launcher.xp.empty(len(offsets) - 1)
    launcher.run("row_sums", len(totals), offsets=offsets, values=values, totals=totals)
    return totals


def running(launcher: Launcher, offsets: Any, values: Any) -> tuple[Any, Any, Any]:
    xp = launcher.xp
    before, after, totals = xp.empty(len(values)), xp.empty(len(values)), xp.empty(len(offsets) - 1)
    launcher.run("running_sums", len(totals), offsets=offsets, values=values, before=before, after=after, totals=totals)
    return before, after, totals


def log_of(xp: Any, weights: Any) -> Any:
    """Natural logs, -inf for 0."""
    is_some = weights > 0
    return xp.where(is_some, xp.log(xp.where(is_some, weights, 1.0)), -np.inf)


def fixed_log_of(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logs on the host, the same to the last bit on every machine, -inf for 0."""
    is_some = weights > 0
    return np.where(is_some, fixed_log(np.where(is_some, weights, 1.0)), -np.inf)


def _logs(xp: Any, mantissas: Any, exponents: Any) -> Any:
    return log_of(xp, mantissas) + exponents * LN_2
