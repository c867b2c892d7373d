"""Lattices on the CPU: ranges of documents by several threads, each of which looks up a range between cuts once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from gpu_lattice.backends import Distinct, LatticeArrays, Positions, Ranges
from gpu_lattice.kernels.compiled import readonly
from gpu_lattice.kernels.cpu.bulk.flow import list_segments
from gpu_lattice.kernels.cpu.bulk.group import Batch
from gpu_lattice.kernels.cpu.lattice.build import enter_ranges, place_entries
from gpu_lattice.runtime.threads import byte_ranges, map_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from gpu_lattice.backends.tables import Tables

# Of the table of texts of a range of documents.
MOST_SLOTS = 1 << 16
# Bytes of a lattice, for each byte of text and for each arc.
TEXT_COST, ARC_COST = 20, 8

S = TypeVar("S", bound=np.generic)


class Part(NamedTuple):
    """A range of documents (kernels/cpu/lattice/build.py): the entries of its ranges, and what these are."""

    entries: NDArray[np.int64]
    bounds: NDArray[np.int64]
    arc_offsets: NDArray[np.int64]
    arcs: NDArray[np.int32]
    lengths: NDArray[np.int32]


def find_arcs(tables: Tables, threads: int, batch: Batch, fits: Callable[[int], None]) -> tuple[Positions, Distinct]:
    """As in Backend."""
    values, offsets, *_ = batch
    fits(len(values) * TEXT_COST)
    batch = Batch(*map(readonly, batch))
    doc_positions = offsets + np.arange(len(offsets))
    marks = np.zeros(int(doc_positions[-1]), np.uint8)
    parts = map_ranges(
        lambda first, last: _part(tables, batch, first, last, marks), byte_ranges(offsets, threads), threads
    )
    distinct = _distinct(parts)
    fits(len(values) * TEXT_COST + int(distinct.num_arcs[distinct.of_range].sum()) * ARC_COST)
    return Positions(doc_positions, marks, values), distinct


def _part(tables: Tables, batch: Batch, first: int, last: int, marks: NDArray[np.uint8]) -> Part:
    """Documents first..last; writes their marks."""
    pieces, arcs = tables.pieces, tables.best_arcs
    n = int(batch.offsets[last] - batch.offsets[first])
    slots = np.zeros(min(MOST_SLOTS, 2 << n.bit_length()), np.int64)
    text, bounds, token_ids = np.empty(n, np.uint8), np.empty(n + 1, np.int64), np.empty(n, np.int32)
    entries = np.empty(n, np.int64)
    n_ranges, n_entries = enter_ranges(
        first, last, *batch, pieces.pairs, pieces.keys, pieces.pages, pieces.characters, pieces.joined, pieces.is_bytes,
        slots, text, bounds, token_ids, marks, entries,
    )  # fmt: skip
    bounds = bounds[: n_entries + 1].copy()
    n = int(bounds[-1])
    found, arc_offsets = np.empty(n, np.int32), np.empty(n + 2, np.int64)
    most = list_segments(text, bounds, arcs, pieces.is_bytes, found)
    ids, lengths = np.empty(most, np.int32), np.empty(most, np.int32)
    n_arcs = place_entries(
        text, bounds, token_ids, found, arcs.words, arcs.count_bits, tables.vocabulary.has_unknown_arcs,
        pieces.is_bytes, arc_offsets, ids, lengths,
    )  # fmt: skip
    return Part(entries[:n_ranges].copy(), bounds, arc_offsets, ids[:n_arcs], lengths[:n_arcs])


def _distinct(parts: list[Part]) -> Distinct:
    """The entries of all parts, one part after another."""
    n_entries = np.cumsum([0, *(len(part.bounds) - 1 for part in parts)])
    n_bytes = np.cumsum([0, *(part.bounds[-1] for part in parts)])
    n_arcs = np.cumsum([0, *(len(part.arcs) for part in parts)])
    bounds = (part.bounds[1:] + n for part, n in zip(parts, n_bytes, strict=False))
    arc_offsets = (part.arc_offsets[2:] + n for part, n in zip(parts, n_arcs, strict=False))
    positions, ranges = one_document(_joined(np.int64, [np.zeros(1, np.int64), *bounds]))
    arrays = LatticeArrays(
        positions.doc_positions,
        _joined(np.int64, [np.zeros(2, np.int64), *arc_offsets]),
        _joined(np.int32, (part.arcs for part in parts)),
        _joined(np.int32, (part.lengths for part in parts)),
        positions.marks,
        positions.text,
    )
    of_range = _joined(np.int64, (part.entries + n for part, n in zip(parts, n_entries, strict=False)))
    return Distinct(arrays, ranges, of_range)


def one_document(bounds: NDArray[np.int64]) -> tuple[Positions, Ranges]:
    """What a document of ranges from each of the bounds to the next is, but for its marks and text."""
    n_positions, n_ranges = int(bounds[-1]) + 1, len(bounds) - 1
    positions = Positions(np.array([0, n_positions]), np.zeros(n_positions, np.uint8), np.empty(0, np.uint8))
    return positions, Ranges(bounds[:-1], bounds[1:], np.zeros(n_ranges, np.int64), np.array([0, n_ranges]))


def _joined(kind: type[S], arrays: Iterable[NDArray[S]]) -> NDArray[S]:
    return np.concatenate([np.empty(0, kind), *arrays])
