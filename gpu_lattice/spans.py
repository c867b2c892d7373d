"""Where in the original texts the ids of rows are, as the model's own tool says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from gpu_lattice.backends.cpu import NO_CHUNK_IDS
from gpu_lattice.kernels.compiled import Bound, as_written, readonly
from gpu_lattice.kernels.cpu.bulk.group import Batch
from gpu_lattice.kernels.cpu.bulk.spans import Alignment, Habits, find_spans
from gpu_lattice.kernels.cpu.passing import Held
from gpu_lattice.kernels.cpu.utf8 import bytes_of_character
from gpu_lattice.normalizers import AS_THEY_ARE
from gpu_lattice.normalizers.byte_level import bytes_of
from gpu_lattice.runtime.arguments import check_lengths, read_only, shown
from gpu_lattice.runtime.on_host import on_host
from gpu_lattice.runtime.threads import byte_ranges, map_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends import Rows
    from gpu_lattice.kernels.cpu.bulk.verify import Spelling
    from gpu_lattice.models import Model
    from gpu_lattice.models.parts import Parts
    from gpu_lattice.normalizers import NormalizedBatch
    from gpu_lattice.text_batch import TextBatch
    from gpu_lattice.token_batch import TokenBatch
    from gpu_lattice.vocabulary import Vocabulary

Unit = Literal["bytes", "characters"]

# Of as much text as is normalized, segmented and aligned together: less takes more calls, more leaves the cache.
RANGE_BYTES = 1 << 18
LARGEST_DOCUMENT = 2**32 - 1
# Unicode's White_Space, and what a byte-level vocabulary prints for a space.
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
SPACES += "\u2028\u2029\u202f\u205f\u3000Ġ"


def checked_unit(unit: Any) -> Unit | None:
    """ValueError unless it is "bytes", "characters" or None."""
    if unit is None:
        return None
    if unit not in ("bytes", "characters"):
        raise ValueError(f"return_offsets is {shown(unit)}; give 'bytes' or 'characters'")
    return "bytes" if unit == "bytes" else "characters"


class _Rows(NamedTuple):
    """Rows to be looked for, and of how many of their ids each id of the rows that were asked about is made: None if
    they are those.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64] | None

    def joined(self, spans: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.lengths is None:
            return spans
        last = np.cumsum(self.lengths) - 1
        return np.stack([spans[last - self.lengths + 1, 0], spans[last, 1]], axis=1)


class SpanFinder:
    """Where the ids of one model are."""

    def __init__(self, model: Model, spelling: Spelling, parts: Parts | None) -> None:
        self._parts, self._tables = parts, Held((spelling, habits_of(model, spelling)))
        self._normalizer, self._around = model.normalizer, (len(model.prefix_ids), len(model.suffix_ids))
        self._find_spans = Bound(find_spans)

    def ranges(self, texts: TextBatch, threads: int) -> list[tuple[int, int]]:
        """Documents that are best aligned together. Raises ValueError for one whose bytes a uint32 cannot number."""
        if texts.num_bytes > LARGEST_DOCUMENT:
            check_lengths(texts.offsets, LARGEST_DOCUMENT, "bytes; for offsets,")
        return byte_ranges(texts.offsets, max(threads, texts.num_bytes // RANGE_BYTES)) or [(0, 0)]

    def __call__(self, texts: TextBatch, out: TokenBatch, unit: Unit, threads: int) -> NDArray[np.int64]:
        """int64 [ids, 2]: start and stop of each id in its text; out: rows as the backend makes them of the texts."""
        texts = texts.on_host()
        rows = self._rows(read_only(on_host(out.ids), np.int32), read_only(on_host(out.offsets), np.int64))
        spans = np.empty((len(rows.ids), 2), np.int64)
        num_samples = len(out) // max(1, len(texts))

        def work(start: int, stop: int) -> None:
            part = texts.slice(start, stop)
            offsets = readonly(rows.offsets[start * num_samples : stop * num_samples + 1])
            self._fill(part, *self._normalizer.aligned(part), rows.ids, offsets, unit, spans)

        map_ranges(work, self.ranges(texts, threads), threads)
        return rows.joined(spans)

    def of_aligned(
        self, texts: TextBatch, normalized: NormalizedBatch, alignment: Alignment, out: Rows, unit: Unit
    ) -> NDArray[np.int64]:
        """The same, of texts that are aligned already."""
        rows = self._rows(readonly(out.ids), readonly(out.offsets))
        spans = np.empty((len(rows.ids), 2), np.int64)
        self._fill(texts, normalized, alignment, rows.ids, rows.offsets, unit, spans)
        return rows.joined(spans)

    def _rows(self, ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> _Rows:
        if self._parts is None:
            return _Rows(ids, offsets, None)
        in_parts, starts, lengths = self._parts.of_rows(ids, offsets, *self._around)
        return _Rows(readonly(in_parts), readonly(starts), lengths)

    def _fill(
        self, texts: TextBatch, normalized: NormalizedBatch, alignment: Alignment, ids: NDArray[np.int32],
        offsets: NDArray[np.int64], unit: Unit, spans: NDArray[np.int64],
    ) -> None:  # fmt: skip
        num_samples = (len(offsets) - 1) // max(1, len(texts))
        self._find_spans(
            _batch_of(normalized), alignment, readonly(texts.values), readonly(texts.offsets), ids, offsets,
            num_samples, *self._around, texts.is_null, self._tables, unit == "characters", spans,
        )  # fmt: skip


def unknown_surfaces(
    model: Model, spelling: Spelling, texts: TextBatch, ids: NDArray[np.int32], offsets: NDArray[np.int64]
) -> list[list[str]]:
    """The normalized text that each unknown id of each row stands for; ids, offsets: as the backend makes them."""
    ids, offsets = read_only(on_host(ids), np.int32), read_only(on_host(offsets), np.int64)
    n_rows = len(offsets) - 1
    spans = np.zeros((len(ids), 2), np.int64)
    normalized = model.normalizer(texts.on_host())
    num_samples = n_rows // max(1, len(texts))
    find_spans(
        _batch_of(normalized), AS_THEY_ARE, readonly(normalized.values), readonly(normalized.offsets), ids, offsets,
        num_samples, len(model.prefix_ids), len(model.suffix_ids), texts.is_null,
        Held((spelling, habits_of(replace(model, trims=()), spelling))), False, spans,
    )  # fmt: skip
    surfaces: list[list[str]] = [[] for _ in range(n_rows)]
    at = np.flatnonzero(ids == model.vocabulary.unk_id)
    for k, row in zip(at.tolist(), (np.searchsorted(offsets, at, side="right") - 1).tolist(), strict=True):
        start, stop = (normalized.offsets[row // num_samples] + spans[k]).tolist()
        if start < stop:
            surfaces[row].append(normalized.values[start:stop].tobytes().decode(errors="backslashreplace"))
    return surfaces


def _batch_of(batch: NormalizedBatch) -> Batch:
    """The batch as `find_spans` reads it."""
    chunk_ids = NO_CHUNK_IDS if batch.chunk_ids is None else readonly(batch.chunk_ids)
    return Batch(readonly(batch.values), readonly(batch.offsets), readonly(batch.chunk_bounds), chunk_ids)


def _are_sure(vocabulary: Vocabulary, spelling: Spelling) -> NDArray[np.bool_]:
    """Of each piece, whether its first symbol is a piece too."""
    values, starts, lengths = np.append(spelling.surfaces, [0] * 4), spelling.offsets[:-1], np.diff(spelling.offsets)
    by_bytes = vocabulary.symbols == "bytes"
    sizes = np.ones(len(starts), np.int64) if by_bytes else as_written(bytes_of_character)(values[starts])
    codes = np.zeros(len(starts), np.int64)
    for k in range(4):
        codes += np.where(k < sizes, values[starts + k].astype(np.int64) << 8 * k, 0)
    is_symbol = vocabulary.in_lattice & (lengths == sizes)
    return (lengths >= sizes) & np.isin(codes, codes[is_symbol])


def habits_of(model: Model, spelling: Spelling) -> Habits:
    """How the model's tool reads ids."""
    vocabulary, merges, unk_id = model.vocabulary, model.merges, model.vocabulary.unk_id
    is_bytes = vocabulary.symbols == "bytes"
    is_whole = merges is None or (is_bytes and len(merges.symbols) == 256) or bool((merges.byte_ids >= 0).all())
    drops, joins = not is_whole and unk_id is None, vocabulary.unknown_runs == "lookup"
    lengths = np.minimum(np.diff(spelling.offsets), np.iinfo(np.int32).max).astype(np.int32)
    # A piece of one byte is that byte, by itself or in place of an unknown character.
    lengths[drops | ((spelling.byte_of >= 0) & (joins | (lengths != 1)))] = -1
    if unk_id is not None:
        lengths[unk_id] = -1
    made_unk = b""
    if merges is not None and unk_id is not None and np.any(merges.pairs[:, 3] == unk_id):
        piece = vocabulary.names[unk_id]
        made_unk = (bytes_of(piece) if is_bytes else piece.encode()) or b""
    names = vocabulary.names if model.trims else []
    return Habits(
        is_bytes=is_bytes,
        fuses=merges is None or merges.fuse_unk,
        drops=drops,
        joins=joins,
        lengths=lengths,
        is_sure=_are_sure(vocabulary, spelling) & (merges is None or (merges.fuse_unk and not made_unk)),
        made_unk=np.frombuffer(made_unk, np.uint8),
        trims=np.array(model.trims, np.bool_),
        leading=np.array([len(name) - len(name.lstrip(SPACES)) for name in names], np.int32),
        trailing=np.array([len(name) - len(name.rstrip(SPACES)) for name in names], np.int32),
    )
