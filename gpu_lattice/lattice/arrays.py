"""The ragged arrays that make up a lattice, on any device, and its independent ranges of positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from gpu_lattice.backends import Distinct, LatticeArrays, Positions, Ranges
from gpu_lattice.backends.cpu_lattice import one_document
from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.cpu.lattice.build import CUT
from gpu_lattice.runtime.ragged import offsets_of, row_of, rows_to_values
from gpu_lattice.text_batch import to_ragged

if TYPE_CHECKING:
    from gpu_lattice.backends import Backend, Launcher
    from gpu_lattice.models import Model

# The public id of an unknown arc if the model has no unknown id.
NO_ID = -2


_readings: WeakKeyDictionary[Backend, Reading] = WeakKeyDictionary()


class Reading(NamedTuple):
    """How a path reads as ids.

    sorted_values, sorted_offsets, sorted_ids  the pieces in the order of their bytes, ragged, and their ids int32
    byte_ids       int32 [256], -1 if missing; unk_id, -1 if none; look_up: whether unknown text may be a piece
    apart          whether each unknown arc is an unknown id
    before, after  ids put around every row
    """

    sorted_values: Any
    sorted_offsets: Any
    sorted_ids: Any
    byte_ids: Any
    unk_id: int
    look_up: bool
    apart: bool = False
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def arcs(self, xp: Any, arcs: Any) -> dict[str, Any]:
        """The arcs int32 [A], and the unknown id, as kernels take them: where unknown arcs are apart, none is unknown,
        but each reads as the unknown id.
        """
        if not self.apart:
            return {"arcs": arcs, "unk_id": self.unk_id}
        return {"arcs": xp.where(arcs == UNKNOWN, np.int32(TOKEN_ARC - self.unk_id), arcs), "unk_id": -1}


def reading_of(backend: Backend, model: Model) -> Reading:
    """How paths read as ids of the backend's model; kept for its later lattices, whatever is put around rows."""
    if backend not in _readings:
        _readings[backend] = _make_reading(backend.launcher, model)
    return _readings[backend]._replace(before=model.prefix_ids, after=model.suffix_ids)


def _make_reading(launcher: Launcher, model: Model) -> Reading:
    vocabulary = model.vocabulary
    ids = np.flatnonzero(vocabulary.in_lattice)
    ids = ids[sorted(range(len(ids)), key=lambda i: vocabulary.surfaces[ids[i]])].astype(np.int32)
    values, offsets = to_ragged([vocabulary.surfaces[i] for i in ids])
    byte_ids = np.full(256, -1, np.int32) if vocabulary.byte_ids is None else vocabulary.byte_ids
    return Reading(
        launcher.upload(values),
        launcher.upload(offsets),
        launcher.upload(ids),
        launcher.upload(byte_ids),
        unk_id=-1 if vocabulary.unk_id is None else vocabulary.unk_id,
        look_up=vocabulary.unknown_runs == "lookup",
        apart=vocabulary.unknown_runs == "apart",
    )


def segments(xp: Any, positions: Positions) -> Ranges:
    """The ranges between cuts: small, many, and independent of each other."""
    is_cut = (positions.marks & CUT).astype(bool)
    begins, ends = is_cut.copy(), is_cut.copy()
    begins[positions.doc_positions[1:] - 1] = False
    ends[positions.doc_positions[:-1]] = False
    return _ranges(xp, positions, xp.flatnonzero(begins), xp.flatnonzero(ends))


def documents(xp: Any, arrays: LatticeArrays) -> Ranges:
    """Every document that is not empty as one range."""
    starts, stops = arrays.doc_positions[:-1], arrays.doc_positions[1:] - 1
    filled = stops > starts
    return _ranges(xp, arrays.positions, starts[filled], stops[filled])


def _ranges(xp: Any, positions: Positions, starts: Any, stops: Any) -> Ranges:
    offsets = xp.searchsorted(starts, positions.doc_positions)
    return Ranges(starts, stops, row_of(xp, offsets), offsets)


def each_by_itself(xp: Any, arrays: LatticeArrays, ranges: Ranges) -> Distinct:
    """All ranges of a lattice, as if they were distinct."""
    return Distinct(arrays, ranges, xp.arange(len(ranges.starts)))


def copied(launcher: Launcher, positions: Positions, ranges: Ranges, of: Distinct) -> LatticeArrays:
    """The lattice of these ranges, with its arcs."""
    xp, (doc_positions, marks, text) = launcher.xp, positions
    firsts = offsets_of(xp, of.num_arcs[of.of_range])
    total = int(firsts[-1])
    arc_offsets = xp.empty(len(marks) + 1, xp.int64)
    arc_offsets[-1] = total
    arcs, lengths = xp.empty(total, xp.int32), xp.empty(total, xp.int32)
    launcher.run(
        "copy_arcs", len(doc_positions) - 1,
        doc_positions=doc_positions, range_offsets=ranges.offsets, starts=ranges.starts, rows=of.of_range,
        row_starts=of.ranges.starts, row_stops=of.ranges.stops, row_offsets=of.arrays.arc_offsets,
        row_arcs=of.arrays.arcs, row_lengths=of.arrays.lengths, firsts=firsts, arc_offsets=arc_offsets, arcs=arcs,
        lengths=lengths,
    )  # fmt: skip
    return LatticeArrays(doc_positions, arc_offsets, arcs, lengths, marks, text)


def public_ids(xp: Any, arrays: LatticeArrays, unk_id: int) -> Any:
    """int32 [A]: the id by which each arc is known: its own, the unknown id or NO_ID."""
    unnamed = xp.flatnonzero(arrays.arcs < 0)
    if not len(unnamed):
        return arrays.arcs
    ids = arrays.arcs.copy()
    arcs = ids[unnamed]
    ids[unnamed] = xp.where(arcs == UNKNOWN, unk_id if unk_id >= 0 else NO_ID, TOKEN_ARC - arcs)
    return ids


def places(xp: Any, arrays: LatticeArrays, shape: tuple[int, int, int]) -> Any:
    """int64 [A]: where each arc is in a flat tensor of this shape, [B, L + 1, K]."""
    _, n_positions, n_arcs = shape
    position = row_of(xp, arrays.arc_offsets)
    doc = row_of(xp, arrays.doc_positions)[position]
    row = doc * n_positions + position - arrays.doc_positions[doc]
    return row * n_arcs + xp.arange(len(position)) - arrays.arc_offsets[position]


def take(xp: Any, arrays: LatticeArrays, i_docs: Any) -> LatticeArrays:
    """Some documents, in the order given."""
    doc_positions, marks, text = take_positions(xp, arrays.positions, i_docs)
    positions, _ = rows_to_values(xp, arrays.doc_positions, i_docs)
    arcs, arc_offsets = rows_to_values(xp, arrays.arc_offsets, positions)
    return LatticeArrays(doc_positions, arc_offsets, arrays.arcs[arcs], arrays.lengths[arcs], marks, text)


def take_positions(xp: Any, of: Positions, i_docs: Any) -> Positions:
    """Some documents, in the order given."""
    positions, doc_positions = rows_to_values(xp, of.doc_positions, i_docs)
    bytes_, _ = rows_to_values(xp, text_offsets(xp, of.doc_positions), i_docs)
    return Positions(doc_positions, of.marks[positions], of.text[bytes_])


def take_distinct(launcher: Launcher, of: Distinct, of_range: Any) -> Distinct:
    """Of the distinct ranges those that are among of_range, for a lattice whose ranges are equal to these."""
    is_used = np.zeros(len(of.ranges.starts), np.bool_)
    is_used[of_range] = True
    used = np.flatnonzero(is_used)
    positions, ranges = one_document(offsets_of(np, (of.ranges.stops - of.ranges.starts)[used]))
    arrays = copied(launcher, positions, ranges, of._replace(of_range=used))
    return Distinct(arrays, ranges, (np.cumsum(is_used) - 1)[of_range])


def text_offsets(xp: Any, doc_positions: Any) -> Any:
    """int64 [B + 1], the first byte of each document."""
    return doc_positions - xp.arange(len(doc_positions))
