"""Where prompts can be resumed: boundaries from which the rest of a text is the beginning of some piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpu_lattice.backends import LatticeArrays, Ranges
from gpu_lattice.kernels.cpu.lattice.build import CHUNK, TOKEN
from gpu_lattice.lattice import paths
from gpu_lattice.lattice.arrays import Reading, text_offsets
from gpu_lattice.lattice.sums import running
from gpu_lattice.runtime.ragged import offsets_of, row_of
from gpu_lattice.token_batch import TokenBatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gpu_lattice.backends import Launcher


@dataclass(frozen=True, eq=False)
class Continuations:
    """The boundaries of each text, one per row, shortest rollback first; arrays are on the tokenizer's device.

    doc_offsets  int64 [num_docs + 1]: the rows of text i are doc_offsets[i] to doc_offsets[i + 1]
    rollback     int64 [num_rows], bytes of the normalized text that are taken back; 0 keeps all of it
    tokens       the ids of what is kept, the best path to the boundary, after the ids that begin every row
    scores       float64 [num_rows], the sum of that path's scores (natural logarithms)
    ranges       int64 [num_rows, 2], low and high: the pieces allowed next are order[low:high]
    order        int32 [num_pieces], the ids of the lattice's pieces, sorted by the pieces' bytes
    place        int32 [vocab_size], the index of an id in `order`, -1 for ids that are not pieces of the lattice

    Example:
        >>> out = Tokenizer.from_pieces({"http": -3.0, ":": -2.0, "://": -4.0, "s": -4.0}).continuations("http:")
        >>> out
        Continuations(1 texts, 2 boundaries)
        >>> out.rollback.tolist(), out.tokens.tolist(), out.scores.tolist()
        ([0, 1], [[0, 1], [0]], [-5.0, -3.0])
        >>> out.ids(0).tolist(), out.ids(1).tolist()
        ([1, 2, 0, 3], [2])
        >>> out.mask()[1].tolist()
        [False, False, True, False]
    """

    doc_offsets: NDArray[np.int64]
    rollback: NDArray[np.int64]
    tokens: TokenBatch
    scores: NDArray[np.float64]
    ranges: NDArray[np.int64]
    order: NDArray[np.int32]
    place: NDArray[np.int32]

    def __len__(self) -> int:
        """The number of texts."""
        return len(self.doc_offsets) - 1

    def __repr__(self) -> str:
        return f"Continuations({len(self)} texts, {len(self.rollback)} boundaries)"

    def ids(self, row: int) -> NDArray[np.int32]:
        """The pieces allowed next at a boundary, int32, sorted by their bytes; a view."""
        n_rows = len(self.rollback)
        if not -n_rows <= row < n_rows:
            raise IndexError(f"row {row} of Continuations of {n_rows} boundaries")
        low, high = self.ranges[row].tolist()
        return self.order[low:high]

    def mask(self) -> NDArray[np.bool_]:
        """bool [num_rows, vocab_size], True for the pieces allowed next."""
        mask: NDArray[np.bool_] = (self.place >= self.ranges[:, :1]) & (self.place < self.ranges[:, 1:])
        return mask


def continuations(
    launcher: Launcher,
    arrays: LatticeArrays,
    ranges: Ranges,
    reading: Reading,
    scores: Any,
    n_ids: int,
    valid: NDArray[np.bool_] | None,
    max_rollback: int | None,
    fits: Any,
) -> Continuations:
    """The boundaries of every valid document; a ValueError names the first document without any.

    scores float64 [A]; valid bool [B] on the host, or None; fits(number of bytes) raises if that is too much.
    """
    xp = launcher.xp
    best_to, back = paths.best_arcs(launcher, arrays, ranges, scores)
    docs, positions = _candidates(launcher, arrays, reading, valid, max_rollback)
    totals = _scores_at(launcher, arrays, ranges, best_to, docs, positions)
    kept = xp.flatnonzero(totals > -xp.inf)
    docs, positions, totals = docs[kept], positions[kept], totals[kept]
    lows, highs = _allowed(launcher, arrays, reading, docs, positions)
    kept = xp.flatnonzero(lows < highs)
    docs, positions, totals = docs[kept], positions[kept], totals[kept]
    doc_offsets = xp.searchsorted(docs, xp.arange(len(arrays.doc_positions)))
    _raise_if_none(launcher, xp.diff(doc_offsets), valid, max_rollback)
    place = xp.full(n_ids, -1, xp.int32)
    place[reading.sorted_ids] = xp.arange(len(reading.sorted_ids), dtype=xp.int32)
    return Continuations(
        doc_offsets,
        arrays.doc_positions[docs + 1] - 1 - positions,
        _kept_tokens(launcher, arrays, reading, back, docs, positions, fits),
        totals,
        xp.stack([lows[kept], highs[kept]], axis=1),
        reading.sorted_ids.copy(),
        place,
    )


def _candidates(
    launcher: Launcher,
    arrays: LatticeArrays,
    reading: Reading,
    valid: NDArray[np.bool_] | None,
    max_rollback: int | None,
) -> tuple[Any, Any]:
    """(docs, positions) int64: the ends of documents and the positions before them within reach of a piece.

    No piece crosses the start of a chunk or reaches into a chunk that is a token.
    """
    xp = launcher.xp
    stops = arrays.doc_positions[1:] - 1
    longest = int(xp.diff(reading.sorted_offsets).max()) if len(reading.sorted_ids) else 0
    most = max(0, longest - 1) if max_rollback is None else min(max(0, longest - 1), max_rollback)
    counts = xp.minimum(stops - arrays.doc_positions[:-1], most) + 1
    if valid is not None:
        counts = xp.where(launcher.upload(valid), counts, 0)
    offsets = offsets_of(xp, counts)
    docs = row_of(xp, offsets)
    positions = stops[docs] - (xp.arange(len(docs)) - offsets[docs])
    chunks = xp.flatnonzero(arrays.marks & CHUNK)
    last_chunk = chunks[xp.maximum(xp.searchsorted(chunks, stops, side="left") - 1, 0)] if len(chunks) else stops
    is_plain = (positions >= last_chunk[docs]) & ((arrays.marks[positions] & TOKEN) == 0)
    kept = xp.flatnonzero(is_plain | (positions == stops[docs]))
    return docs[kept], positions[kept]


def _scores_at(
    launcher: Launcher, arrays: LatticeArrays, ranges: Ranges, best_to: Any, docs: Any, positions: Any
) -> Any:
    """float64: the score of the best path from a document's start to each position, -inf if there is none."""
    xp = launcher.xp
    before, _, _ = running(launcher, ranges.offsets, best_to[ranges.stops])
    before = xp.append(before, 0.0)
    i_range = xp.searchsorted(ranges.stops, positions, side="left")
    return xp.where(positions == arrays.doc_positions[docs], 0.0, before[i_range] + best_to[positions])


def _allowed(launcher: Launcher, arrays: LatticeArrays, reading: Reading, docs: Any, positions: Any) -> tuple[Any, Any]:
    """(lows, highs) int64: which of the sorted pieces begin with the text from each position on and are longer."""
    xp, n_rows = launcher.xp, len(docs)
    lows, highs = xp.empty(n_rows, xp.int64), xp.empty(n_rows, xp.int64)
    starts, stops = positions - docs, text_offsets(xp, arrays.doc_positions)[docs + 1]
    launcher.run(
        "find_longer", n_rows,
        starts=starts, stops=stops, text=arrays.text, sorted_values=reading.sorted_values,
        sorted_offsets=reading.sorted_offsets, n_sorted=len(reading.sorted_ids), firsts=lows, lasts=highs,
    )  # fmt: skip
    return lows, highs


def _raise_if_none(launcher: Launcher, counts: Any, valid: NDArray[np.bool_] | None, max_rollback: int | None) -> None:
    is_missing = counts == 0
    if valid is not None:
        is_missing &= launcher.upload(valid)
    if bool(is_missing.any()):
        i_doc = int(launcher.xp.flatnonzero(is_missing)[0])
        within = "" if max_rollback is None else f" within the last {max_rollback} bytes"
        raise ValueError(
            f"document {i_doc} cannot be continued: no path reaches a position{within} from which the rest is the "
            "beginning of a piece; add the missing pieces, or an unknown piece"
        )


def _kept_tokens(
    launcher: Launcher, arrays: LatticeArrays, reading: Reading, back: Any, docs: Any, positions: Any, fits: Any
) -> TokenBatch:
    """The best path to each position as ids."""
    xp, n_rows = launcher.xp, len(docs)
    starts = arrays.doc_positions[docs]
    firsts = offsets_of(xp, arrays.doc_positions[docs + 1] - starts)
    fits(4 * int(firsts[-1]))
    path = xp.full(int(firsts[-1]), -1, xp.int32)
    launcher.run(
        "mark_back", n_rows,
        starts=starts, ends=positions, arc_offsets=arrays.arc_offsets, lengths=arrays.lengths, back=back,
        firsts=firsts, path=path,
    )  # fmt: skip
    ids, offsets = paths.emit(launcher, arrays, reading._replace(after=()), path, docs, firsts[:-1], None)
    return TokenBatch(ids, offsets)
