"""The ragged arrays that make up a lattice, on any device, and its independent ranges of positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from gpu_lattice.kernels.arcs import TOKEN_ARC, UNKNOWN
from gpu_lattice.kernels.cpu.lattice.build import CUT
from gpu_lattice.lattice.ragged import offsets_of, row_of, rows_to_values
from gpu_lattice.text_batch import to_ragged

if TYPE_CHECKING:
    from gpu_lattice.backends import Backend, Launcher
    from gpu_lattice.models import Model

# The public id of an unknown arc if the model has no unknown id.
NO_ID = -2


_readings: WeakKeyDictionary[Backend, Reading] = WeakKeyDictionary()


class LatticeArrays(NamedTuple):
    """B documents of n bytes have n + 1 positions each, P in all, and A arcs.

    doc_positions  int64 [B + 1], the first position of each document
    arc_offsets    int64 [P + 1]: the arcs into position p are arc_offsets[p] to arc_offsets[p + 1], shortest first
    arcs           int32 [A]: a piece id, UNKNOWN, or TOKEN_ARC - id
    lengths        int32 [A], bytes
    marks          uint8 [P], kernels.cpu.lattice.build
    text           uint8 [N], the normalized bytes
    """

    doc_positions: Any
    arc_offsets: Any
    arcs: Any
    lengths: Any
    marks: Any
    text: Any

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self)


class Ranges(NamedTuple):
    """Ranges of positions whose ends no arc spans; int64 each.

    starts, stops  [S], neighbours share a position; docs [S], the document of each
    offsets        [B + 1], the first range of each document
    """

    starts: Any
    stops: Any
    docs: Any
    offsets: Any


class Reading(NamedTuple):
    """How a path reads as ids.

    sorted_values, sorted_offsets, sorted_ids  the pieces in the order of their bytes, ragged, and their ids int32
    byte_ids       int32 [256], -1 if missing; unk_id, -1 if none; look_up: whether unknown text may be a piece
    before, after  ids put around every row
    """

    sorted_values: Any
    sorted_offsets: Any
    sorted_ids: Any
    byte_ids: Any
    unk_id: int
    look_up: bool
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


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
    )


def segments(xp: Any, arrays: LatticeArrays) -> Ranges:
    """The ranges between cuts: small, many, and independent of each other."""
    is_cut = (arrays.marks & CUT).astype(bool)
    begins, ends = is_cut.copy(), is_cut.copy()
    begins[arrays.doc_positions[1:] - 1] = False
    ends[arrays.doc_positions[:-1]] = False
    return _ranges(xp, arrays, xp.flatnonzero(begins), xp.flatnonzero(ends))


def documents(xp: Any, arrays: LatticeArrays) -> Ranges:
    """Every document that is not empty as one range."""
    starts, stops = arrays.doc_positions[:-1], arrays.doc_positions[1:] - 1
    filled = stops > starts
    return _ranges(xp, arrays, starts[filled], stops[filled])


def _ranges(xp: Any, arrays: LatticeArrays, starts: Any, stops: Any) -> Ranges:
    docs = row_of(xp, arrays.doc_positions)[starts]
    return Ranges(starts, stops, docs, xp.searchsorted(starts, arrays.doc_positions))


def public_ids(xp: Any, arrays: LatticeArrays, unk_id: int) -> Any:
    """int32 [A]: the id by which each arc is known: its own, the unknown id or NO_ID."""
    arcs = arrays.arcs
    ids = xp.where(arcs == UNKNOWN, unk_id if unk_id >= 0 else NO_ID, arcs)
    return xp.where(arcs <= TOKEN_ARC, TOKEN_ARC - arcs, ids).astype(xp.int32)


def places(xp: Any, arrays: LatticeArrays, shape: tuple[int, int, int]) -> Any:
    """int64 [A]: where each arc is in a flat tensor of this shape, [B, L + 1, K]."""
    _, n_positions, n_arcs = shape
    position = row_of(xp, arrays.arc_offsets)
    doc = row_of(xp, arrays.doc_positions)[position]
    row = doc * n_positions + position - arrays.doc_positions[doc]
    return row * n_arcs + xp.arange(len(position)) - arrays.arc_offsets[position]


def take(xp: Any, arrays: LatticeArrays, i_docs: Any) -> LatticeArrays:
    """Some documents, in the order given."""
    positions, doc_positions = rows_to_values(xp, arrays.doc_positions, i_docs)
    arcs, arc_offsets = rows_to_values(xp, arrays.arc_offsets, positions)
    bytes_, _ = rows_to_values(xp, text_offsets(xp, arrays.doc_positions), i_docs)
    return LatticeArrays(
        doc_positions,
        arc_offsets,
        arrays.arcs[arcs],
        arrays.lengths[arcs],
        arrays.marks[positions],
        arrays.text[bytes_],
    )


def text_offsets(xp: Any, doc_positions: Any) -> Any:
    """int64 [B + 1], the first byte of each document."""
    return doc_positions - xp.arange(len(doc_positions))


def find_arcs(
    backend: Backend, values: Any, offsets: Any, chunk_offsets: Any, chunk_ids: Any, fits: Any
) -> LatticeArrays:
    """The lattice of normalized text: counted, checked against the memory available, then written.

    values uint8 [N], offsets int64 [B + 1] from 0, chunk_offsets int64 [C + 1] from 0 and chunk_ids int32 [C] on the
    host. fits(number of bytes) raises if that is too much.
    """
    launcher, trie = backend.launcher, backend.trie_tables._asdict()
    xp = launcher.xp
    n, n_docs = len(values), len(offsets) - 1
    fits(n * (1 + 1 + 4 + 8 + 8 + 1))
    values, offsets, chunk_offsets, chunk_ids = map(launcher.upload, (values, offsets, chunk_offsets, chunk_ids))
    marks = backend.mark_cuts(values, chunk_offsets, chunk_ids)
    counts = xp.zeros(n, xp.int32)
    launcher.run("count_arcs", n, values=values, marks=marks, **trie, counts=counts)
    total = int(counts.sum(dtype=xp.int64))
    fits(n * (1 + 1 + 4 + 8 + 8 + 1) + total * 8)
    firsts = offsets_of(xp, counts)[:-1]
    arcs, lengths = xp.empty(total, xp.int32), xp.empty(total, xp.int32)
    launcher.run(
        "place_arcs", n,
        values=values, marks=marks, chunk_offsets=chunk_offsets, chunk_ids=chunk_ids, n_chunks=len(chunk_ids), **trie,
        firsts=firsts, arcs=arcs, lengths=lengths,
    )  # fmt: skip
    doc_positions = offsets + xp.arange(n_docs + 1)
    n_positions = n + n_docs
    doc = row_of(xp, doc_positions)
    into = xp.zeros(n_positions, xp.int32)
    into[xp.arange(n) + row_of(xp, offsets) + 1] = counts
    return LatticeArrays(
        doc_positions, offsets_of(xp, into), arcs, lengths, marks[xp.arange(n_positions) - doc], values
    )
