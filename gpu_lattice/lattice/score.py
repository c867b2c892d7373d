"""Given segmentations: a caller's rows of ids, and the weight of the paths that read as each of them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.backends import LatticeArrays
from gpu_lattice.lattice.arrays import Reading
from gpu_lattice.lattice.inputs import as_array
from gpu_lattice.runtime.arguments import id_rows
from gpu_lattice.runtime.ragged import offsets_of
from gpu_lattice.token_batch import TokenBatch, check_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends import Launcher

INT32 = np.iinfo(np.int32)

# States that may wait for a row at first; if these are too few, the row is read again with more.
CAPACITY = 8
GROWTH = 16
STATE_BYTES = 32
# Rows are read in parts whose states take no more than this, or one by one.
STATES_BYTES = 1 << 28


class IdRows(NamedTuple):
    """R rows of ids to be read, on the device: ids int32; docs, firsts, stops int64 [R].

    Row i is ids[firsts[i]:stops[i]], without what the tool puts around it; firsts[i] > stops[i] if that is missing.
    """

    ids: Any
    docs: Any
    firsts: Any
    stops: Any


def checked_rows(
    launcher: Launcher, given: Any, arrays: LatticeArrays, reading: Reading, valid: NDArray[np.bool_] | None
) -> IdRows:
    """TypeError unless they are rows of ids, ValueError unless there are one or K for each document."""
    xp, n_docs = launcher.xp, len(arrays.doc_positions) - 1
    ids, offsets = _ragged(xp, given)
    n_rows = len(offsets) - 1
    num_samples, rest = divmod(n_rows, max(1, n_docs))
    if rest or (n_rows > 0) != (n_docs > 0):
        raise ValueError(f"ids has {n_rows} rows; give one for each of the {n_docs} texts, or K for each (doc-major)")
    docs = xp.arange(n_rows) // max(1, num_samples)
    firsts, stops = offsets[:-1].copy(), offsets[1:].copy()
    has_around = xp.ones(n_rows, bool) if valid is None else launcher.upload(valid)[docs]
    around = len(reading.before) + len(reading.after)
    is_missing = has_around & (stops - firsts < around)
    filled = xp.flatnonzero(has_around & ~is_missing)
    for i, before in enumerate(reading.before):
        is_missing[filled] |= ids[firsts[filled] + i] != before
    for i, after in enumerate(reversed(reading.after)):
        is_missing[filled] |= ids[stops[filled] - 1 - i] != after
    firsts[filled] += len(reading.before)
    stops[filled] -= len(reading.after)
    return IdRows(ids, docs, xp.where(is_missing, 1, firsts), xp.where(is_missing, 0, stops))


def _ragged(xp: Any, given: Any) -> tuple[Any, Any]:
    """(ids int32, offsets int64); what int32 cannot hold becomes its nearest, which no piece has."""
    if isinstance(given, TokenBatch):
        return _from_arrays(xp, as_array(xp, given.ids, "ids"), as_array(xp, given.offsets, "offsets"))
    rows = [[min(max(i, INT32.min), INT32.max) for i in row or []] for row in id_rows("ids", given)]
    ids = np.fromiter(chain.from_iterable(rows), np.int32, sum(map(len, rows)))
    return xp.asarray(ids), offsets_of(xp, xp.asarray(np.fromiter(map(len, rows), np.int64, len(rows))))


def _from_arrays(xp: Any, ids: Any, offsets: Any) -> tuple[Any, Any]:
    check_rows(ids, offsets)
    bounds = np.iinfo(ids.dtype)
    ids = xp.clip(ids, max(bounds.min, INT32.min), min(bounds.max, INT32.max)).astype(np.int32)
    return ids, offsets.astype(np.int64)


def reading_sums(
    launcher: Launcher, arrays: LatticeArrays, reading: Reading, rows: IdRows, weights: Any, fits: Any
) -> tuple[Any, Any]:
    """(mantissas float64 [R], exponents int64 [R]): the summed weights of the paths that read as each row.

    weights float64 [A]; fits(number of bytes) raises if that is too much.
    """
    xp, n_rows = launcher.xp, len(rows.docs)
    longest = int(xp.diff(reading.sorted_offsets).max()) if len(reading.sorted_ids) else 0
    length_bits = (longest + 1).bit_length() if reading.look_up else 0
    mantissas, exponents = xp.zeros(n_rows), xp.zeros(n_rows, xp.int64)
    is_full = xp.ones(n_rows, xp.uint8)
    capacity = CAPACITY
    while len(left := xp.flatnonzero(is_full)):
        at_once = max(1, STATES_BYTES // (STATE_BYTES * capacity))
        fits(STATE_BYTES * capacity * min(at_once, len(left)))
        for i in range(0, len(left), at_once):
            part = left[i : i + at_once]
            launcher.run(
                "reading_sums", len(part),
                rows=part, row_doc=rows.docs, id_firsts=rows.firsts, id_stops=rows.stops, ids=rows.ids,
                doc_positions=arrays.doc_positions, arc_offsets=arrays.arc_offsets,
                lengths=arrays.lengths, weights=weights, marks=arrays.marks, text=arrays.text,
                sorted_values=reading.sorted_values, sorted_offsets=reading.sorted_offsets,
                sorted_ids=reading.sorted_ids, n_sorted=len(reading.sorted_ids), longest=longest,
                byte_ids=reading.byte_ids, look_up=reading.look_up, length_bits=length_bits,
                capacity=capacity, heap_keys=xp.empty((len(part) * capacity, 3), xp.int64),
                heap_mantissas=xp.empty(len(part) * capacity), totals=mantissas, exponents=exponents, is_full=is_full,
                **reading.arcs(xp, arrays.arcs),
            )  # fmt: skip
        capacity *= GROWTH
    return mantissas, exponents
