"""Sums over paths: forward and backward scores, posteriors, counts, entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.backends import Distinct, LatticeArrays, Positions, Ranges
from gpu_lattice.kernels.fixed import fixed_log
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.runtime.ragged import rows_to_values

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
    launcher: Launcher, of: Distinct, positions: Positions, ranges: Ranges, scores: Sums, width: int,
    from_end: bool = False,
) -> Any:  # fmt: skip
    """float64 [B, width]: logs of scores from the start (or end) of the document, not of the range; -inf after it."""
    xp, n_docs = launcher.xp, len(positions.doc_positions) - 1
    out = xp.full((n_docs, width), -np.inf)
    if not n_docs:
        return out
    before, after, _ = running(launcher, ranges.offsets, scores.of_ranges[of.of_range])
    # A score belongs to the end of a range, or to its start: the first, or the last, is not in it.
    outer, skipped = (after, 0) if from_end else (before, 1)
    launcher.run(
        "copy_rows", len(ranges.starts),
        rows=of.of_range, starts=of.ranges.starts + skipped, stops=of.ranges.stops + skipped,
        values=_logs(xp, scores.mantissas, scores.exponents), added=outer,
        firsts=places(positions, ranges, width) + skipped, out=out.reshape(-1),
    )  # fmt: skip
    edges = xp.diff(positions.doc_positions) - 1 if from_end else xp.zeros(n_docs, xp.int64)
    out[xp.arange(n_docs), edges] = 0.0
    return out


def places(positions: Positions, ranges: Ranges, width: int) -> Any:
    """int64 [S]: where the positions of each range begin in a flat tensor [B, width]."""
    return ranges.docs * width + ranges.starts - positions.doc_positions[ranges.docs]


def log_partition(launcher: Launcher, of: Distinct, ranges: Ranges, scores: Sums) -> Any:
    """float64 [B]."""
    return row_sums(launcher, ranges.offsets, scores.of_ranges[of.of_range])


def exact_counts(xp: Any, of: Distinct, positions: Positions, ranges: Ranges, ones: Sums) -> list[int]:
    """Python ints, from forward sums with all weights 1; counts too large for float64 are made again."""
    n_positions = xp.diff(positions.doc_positions)
    longest = int(n_positions.max()) - 1 if len(n_positions) else 0
    if longest > LONGEST_EXACT_COUNT:
        raise ValueError(
            f"a text has {longest} bytes; exact counts are for up to {LONGEST_EXACT_COUNT}: "
            "give log=True for their logs"
        )
    mantissas, exponents = on_host(ones.mantissas[of.ranges.stops]), on_host(ones.exponents[of.ranges.stops])
    is_exact = exponents <= EXACT_BITS
    counts = np.ldexp(mantissas, np.minimum(exponents, EXACT_BITS).astype(np.int32)).astype(np.int64).tolist()
    if not is_exact.all():
        starts, stops = on_host(of.ranges.starts), on_host(of.ranges.stops)
        arc_offsets, lengths = on_host(of.arrays.arc_offsets), on_host(of.arrays.lengths)
        for i in np.flatnonzero(~is_exact).tolist():
            counts[i] = _count(int(starts[i]), int(stops[i]), arc_offsets, lengths)
    totals = [1] * len(n_positions)
    for i_doc, i in zip(on_host(ranges.docs).tolist(), on_host(of.of_range).tolist(), strict=True):
        totals[i_doc] *= counts[i]
    return totals


def _count(start: int, stop: int, arc_offsets: Any, lengths: Any) -> int:
    counts = {start: 1}
    for e in range(start + 1, stop + 1):
        counts[e] = sum(counts[e - n] for n in lengths[arc_offsets[e] : arc_offsets[e + 1]].tolist())
    return counts[stop]


class Posteriors(NamedTuple):
    """float64, of the arcs of distinct ranges; has_path: bool, whether a path crosses each of these."""

    of_arcs: Any
    has_path: Any


def posteriors(launcher: Launcher, of: Distinct, weights: Any) -> Posteriors:
    """The probability of each arc of a distinct range in the paths that cross it; weights float64 of its arcs."""
    xp, arrays, ranges = launcher.xp, of.arrays, of.ranges
    z, b = forward(launcher, arrays, ranges, weights), backward(launcher, arrays, ranges, weights)
    whole = z.mantissas[ranges.stops]
    has_path = whole > 0
    out = xp.zeros(len(weights))
    launcher.run(
        "arc_posteriors", len(ranges.starts),
        starts=ranges.starts, stops=ranges.stops, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths,
        weights=weights, z=z.mantissas, z_exponents=z.exponents, b=b.mantissas, b_exponents=b.exponents,
        inverse=xp.where(has_path, 1.0 / xp.where(has_path, whole, 1.0), 0.0), posteriors=out,
    )  # fmt: skip
    return Posteriors(out, has_path)


def dead_documents(xp: Any, of: Distinct, positions: Positions, ranges: Ranges, has_path: Any) -> Any:
    """int64: the documents that no path spells, since none crosses one of their ranges."""
    is_dead = xp.zeros(len(positions.doc_positions) - 1, bool)
    is_dead[ranges.docs[~has_path[of.of_range]]] = True
    return xp.flatnonzero(is_dead)


def padded_posteriors(
    launcher: Launcher, of: Distinct, positions: Positions, ranges: Ranges, found: Posteriors,
    shape: tuple[int, int, int],
) -> Any:  # fmt: skip
    """float64 of this shape, [B, L + 1, K]."""
    xp, (_, n_positions, n_arcs) = launcher.xp, shape
    out = xp.zeros(shape)
    launcher.run(
        "pad_arcs", len(ranges.starts),
        rows=of.of_range, starts=of.ranges.starts, stops=of.ranges.stops, arc_offsets=of.arrays.arc_offsets,
        values=found.of_arcs, firsts=places(positions, ranges, n_positions) * n_arcs, width=n_arcs, out=out.reshape(-1),
    )  # fmt: skip
    out[dead_documents(xp, of, positions, ranges, found.has_path)] = 0.0
    return out


def posteriors_of_all(
    launcher: Launcher, of: Distinct, arrays: LatticeArrays, ranges: Ranges, found: Posteriors
) -> Any:
    """float64 [A]."""
    xp, out = launcher.xp, launcher.xp.zeros(len(arrays.arcs))
    starts, stops = of.arc_ranges
    launcher.run(
        "copy_rows", len(ranges.starts),
        rows=of.of_range, starts=starts, stops=stops, values=found.of_arcs, added=xp.zeros(len(ranges.starts)),
        firsts=arrays.arc_offsets[ranges.starts + 1], out=out,
    )  # fmt: skip
    dead = dead_documents(xp, of, arrays.positions, ranges, found.has_path)
    if len(dead):
        positions, _ = rows_to_values(xp, arrays.doc_positions, dead)
        out[rows_to_values(xp, arrays.arc_offsets, positions)[0]] = 0.0
    return out


def entropy(launcher: Launcher, of: Distinct, positions: Positions, ranges: Ranges, found: Posteriors) -> Any:
    """float64 [B], nats: the sum over arcs of the posterior times -log of its share of those into the same position.

    share = posterior / (posterior + rest), so -log(share) = log1p(rest / posterior), exact however small the rest is.
    """
    xp, posteriors, arc_offsets = launcher.xp, found.of_arcs, of.arrays.arc_offsets
    others = xp.empty(len(posteriors))
    launcher.run("other_sums", len(arc_offsets) - 1, offsets=arc_offsets, values=posteriors, others=others)
    is_taken = posteriors > 0
    rest = others / xp.where(is_taken, posteriors, 1.0)
    by_position = row_sums(launcher, arc_offsets, xp.where(is_taken, posteriors * xp.log1p(rest), 0.0))
    out = xp.zeros(len(positions.marks))
    launcher.run(
        "copy_rows", len(ranges.starts),
        rows=of.of_range, starts=of.ranges.starts + 1, stops=of.ranges.stops + 1, values=by_position,
        added=xp.zeros(len(ranges.starts)), firsts=ranges.starts + 1, out=out,
    )  # fmt: skip
    totals = row_sums(launcher, positions.doc_positions, out)
    totals[dead_documents(xp, of, positions, ranges, found.has_path)] = 0.0
    return totals


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
    with np.errstate(divide="ignore"):
        return xp.log(weights)


def fixed_log_of(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logs on the host, the same to the last bit on every machine, -inf for 0."""
    is_some = weights > 0
    return np.where(is_some, fixed_log(np.where(is_some, weights, 1.0)), -np.inf)


def _logs(xp: Any, mantissas: Any, exponents: Any) -> Any:
    return log_of(xp, mantissas) + exponents * LN_2
