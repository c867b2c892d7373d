"""Paths: the best one, perfect samples, and from marked positions to rows of ids."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.backends import LatticeArrays, Ranges
from gpu_lattice.lattice.arrays import Reading
from gpu_lattice.lattice.sums import Sums, row_sums
from gpu_lattice.runtime.arguments import checked_doc_ids, checked_integer
from gpu_lattice.runtime.ragged import offsets_of
from gpu_lattice.weights import inverse_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends import Launcher


class BrokenLatticeError(ValueError):
    """No path spells a document; position: the byte of it before which its lattice is broken."""

    def __init__(self, i_doc: int, position: int) -> None:
        super().__init__(
            f"document {i_doc} has no segmentation: no path reaches byte {position} of it; "
            "add the missing pieces, or weights that are not 0"
        )
        self.i_doc = i_doc
        self.position = position


class SampleOptions(NamedTuple):
    """What samples depend on besides the lattice and its weights; doc_ids uint64 [B]."""

    num_samples: int
    seed: int
    doc_ids: NDArray[np.uint64]

    @staticmethod
    def checked(num_samples: Any, seed: Any, doc_ids: Any, n_docs: int) -> SampleOptions:
        """ValueError or TypeError for options out of range."""
        return SampleOptions(
            checked_integer("num_samples", num_samples, 1, 2**32 - 1),
            checked_integer("seed", seed, 0, 2**64 - 1),
            checked_doc_ids(doc_ids, n_docs),
        )


def best(launcher: Launcher, arrays: LatticeArrays, ranges: Ranges, scores: Any) -> tuple[Any, Any]:
    """(marks int32 [P] of the best path of every document, its score float64 [B])."""
    best_to, back = best_arcs(launcher, arrays, ranges, scores)
    raise_if_broken(launcher, arrays, ranges, back[ranges.stops] >= 0)
    path = launcher.xp.full(len(arrays.marks), -1, launcher.xp.int32)
    launcher.run(
        "follow_back", len(ranges.starts),
        starts=ranges.starts, stops=ranges.stops, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths, back=back,
        path=path,
    )  # fmt: skip
    return path, row_sums(launcher, ranges.offsets, best_to[ranges.stops])


def best_arcs(launcher: Launcher, arrays: LatticeArrays, ranges: Ranges, scores: Any) -> tuple[Any, Any]:
    """(float64 [P], score of the best path from its range's start to each position; int32 [P], its last arc)."""
    xp, n_positions = launcher.xp, len(arrays.marks)
    best_to, back = xp.zeros(n_positions), xp.full(n_positions, -1, xp.int32)
    launcher.run(
        "best_paths", len(ranges.starts),
        starts=ranges.starts, stops=ranges.stops, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths, scores=scores,
        best=best_to, back=back,
    )  # fmt: skip
    return best_to, back


def draw(
    launcher: Launcher, arrays: LatticeArrays, ranges: Ranges, weights: Any, z: Sums, options: SampleOptions
) -> Any:
    """Marks int32 [num_samples, P] of perfect samples."""
    xp = launcher.xp
    raise_if_broken(launcher, arrays, ranges, z.mantissas[ranges.stops] > 0)
    path = xp.full((options.num_samples, len(arrays.marks)), -1, xp.int32)
    launcher.run(
        "draw_paths", len(ranges.starts) * options.num_samples,
        starts=ranges.starts, stops=ranges.stops, n_ranges=len(ranges.starts), range_doc=ranges.docs,
        doc_positions=arrays.doc_positions, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths, weights=weights,
        inverses=inverse_of(weights), z=z.mantissas, z_exponents=z.exponents, seed=np.uint64(options.seed),
        doc_ids=launcher.upload(options.doc_ids), n_positions=len(arrays.marks), path=path.reshape(-1),
    )  # fmt: skip
    return path


def raise_if_broken(launcher: Launcher, arrays: LatticeArrays, ranges: Ranges, has_path: Any) -> None:
    """BrokenLatticeError for the first document with a range that no path crosses; has_path bool [S]."""
    if bool(has_path.all()):
        return
    i_range = launcher.xp.flatnonzero(~has_path)[0]
    i_doc = int(ranges.docs[i_range])
    stop = int(ranges.stops[i_range]) - int(arrays.doc_positions[i_doc])
    raise BrokenLatticeError(i_doc, stop)


def emit(
    launcher: Launcher, arrays: LatticeArrays, reading: Reading, path: Any, rows: Any, firsts: Any, valid: Any
) -> tuple[Any, Any]:
    """(ids int32, offsets int64 [R + 1]) of R rows: the path marked from path[firsts[i]] on through document rows[i].

    valid: bool [B] on the host, False for documents without ids, or None.
    """
    xp, n_rows = launcher.xp, len(rows)
    counts = xp.empty(n_rows, xp.int64)
    emit_rows = partial(
        launcher.run, "emit_rows", n_rows,
        row_doc=rows, path_firsts=firsts, path=path.reshape(-1), doc_positions=arrays.doc_positions,
        arc_offsets=arrays.arc_offsets, marks=arrays.marks, text=arrays.text,
        sorted_values=reading.sorted_values, sorted_offsets=reading.sorted_offsets, sorted_ids=reading.sorted_ids,
        n_sorted=len(reading.sorted_ids), byte_ids=reading.byte_ids, look_up=reading.look_up, counts=counts,
        **reading.arcs(xp, arrays.arcs),
    )  # fmt: skip
    emit_rows(id_firsts=counts, writes=False, ids=xp.empty(0, xp.int32))
    around = xp.full(n_rows, len(reading.before) + len(reading.after), xp.int64)
    if valid is not None:
        around[~launcher.upload(valid)[rows]] = 0
    offsets = offsets_of(xp, counts + around)
    ids = xp.empty(int(offsets[-1]), xp.int32)
    emit_rows(id_firsts=offsets[:-1] + len(reading.before), writes=True, ids=ids)
    filled = xp.flatnonzero(around)
    for i, before in enumerate(reading.before):
        ids[offsets[filled] + i] = before
    for i, after in enumerate(reversed(reading.after)):
        ids[offsets[filled + 1] - 1 - i] = after
    return ids, offsets


def path_sums(launcher: Launcher, arrays: LatticeArrays, path: Any, rows: Any, firsts: Any, values: Any) -> Any:
    """float64 [R]: the sum of values [A] along the path of each row."""
    totals = launcher.xp.empty(len(rows))
    launcher.run(
        "path_sums", len(rows),
        row_doc=rows, path_firsts=firsts, path=path.reshape(-1), doc_positions=arrays.doc_positions,
        arc_offsets=arrays.arc_offsets, values=values, totals=totals,
    )  # fmt: skip
    return totals
