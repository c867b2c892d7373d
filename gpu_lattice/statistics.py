"""Sums over the segmentations of a corpus: each distinct segment is worked out once, whatever text it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpu_lattice.backends.cpu import batch_of
from gpu_lattice.kernels.cpu.bulk.distinct import Distinct, Members, add_by_document, enter_listed, enter_segments
from gpu_lattice.kernels.cpu.bulk.flow import add_counts, add_tokens, arc_flow, list_segments
from gpu_lattice.kernels.cpu.lattice.sums import other_sums, row_sums
from gpu_lattice.kernels.fixed import fixed_log
from gpu_lattice.runtime.threads import byte_ranges, map_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends.tables import Tables
    from gpu_lattice.kernels.cpu.bulk.group import SampleModel
    from gpu_lattice.normalizers import NormalizedBatch
    from gpu_lattice.text_batch import TextBatch

LN_2 = float(np.log(2.0))
# A table that has more segments after a range of texts is summed up and emptied.
MOST_SEGMENTS = 1 << 21
FIRST_SEGMENTS, FIRST_BYTES = 1 << 13, 1 << 16
MEMBERS = 1 << 16
# Bytes of segments that are worked out at once, and how many such blocks, or ranges of texts, wait for each thread.
BLOCK_BYTES = 1 << 15
WAITING = 4

Normalize = Callable[["TextBatch", int], "NormalizedBatch"]


class SegmentTable:
    """The distinct segments of texts, in the order of their first meeting, with the summed weights of their documents.

    What it holds depends on the texts, their order and their ranges alone. n: how many there are.
    """

    def __init__(self) -> None:
        self.n = 0
        self.arrays = _room(FIRST_SEGMENTS, FIRST_BYTES)

    @property
    def offsets(self) -> NDArray[np.int64]:
        return self.arrays.offsets[: self.n + 1]

    @property
    def weights(self) -> NDArray[np.float64]:
        return self.arrays.weights[: self.n]

    def text(self, i: int) -> bytes:
        return self.arrays.text[self.arrays.offsets[i] : self.arrays.offsets[i + 1]].tobytes()

    def enter(self, batch: NormalizedBatch, tables: Tables, doc_weights: NDArray[np.float64], first_doc: int) -> None:
        """Add the segments of some documents; first_doc: the number of the first."""
        for _ in self.enter_members(batch, tables, doc_weights, first_doc, 0):
            pass

    def enter_members(
        self, batch: NormalizedBatch, tables: Tables, doc_weights: NDArray[np.float64], first_doc: int, room: int
    ) -> Iterator[tuple[Members, int]]:
        """Add the segments of some documents; yields these, by their numbers here, `room` at a time."""
        texts, p, stop = batch_of(batch), int(batch.offsets[0]), int(batch.offsets[-1])
        members = Members(np.empty(room, np.int32), np.empty(room, np.int64))
        while p < stop:
            reached, self.n, n_members = enter_segments(
                texts, p, stop, tables.pieces, doc_weights, first_doc, self.arrays, self.n, members, 0
            )
            yield members, n_members
            if reached == p or (room == 0 and reached < stop):
                self._grow()
            p = reached

    def merge(self, other: SegmentTable) -> None:
        """Add those of texts that come after."""
        self._enter(other.arrays, np.arange(other.n))

    def keep(self, listed: NDArray[np.int64]) -> None:
        """Only those listed, in ascending order."""
        arrays, self.arrays, self.n = self.arrays, _room(FIRST_SEGMENTS, FIRST_BYTES), 0
        self._enter(arrays, listed)

    def _enter(self, other: Distinct, listed: NDArray[np.int64]) -> None:
        k, self.n = enter_listed(other, listed, 0, self.arrays, self.n)
        while k < len(listed):
            self._grow()
            k, self.n = enter_listed(other, listed, k, self.arrays, self.n)

    def _grow(self) -> None:
        old, n = self.arrays, self.n
        self.arrays = _room(2 * len(old.weights), 2 * len(old.text))
        _, self.n = enter_listed(old, np.arange(n), 0, self.arrays, 0)


def _room(n_segments: int, n_bytes: int) -> Distinct:
    offsets = np.empty(n_segments + 1, np.int64)
    offsets[0] = 0
    return Distinct(
        np.zeros(4 * n_segments, np.int64),
        np.empty(n_bytes, np.uint8),
        offsets,
        np.empty(n_segments),
        np.empty(n_segments, np.int64),
    )


class Flow(NamedTuple):
    """The arcs of some segments with their probabilities (kernels/cpu/bulk/flow.py).

    offsets int64 [S + 1] of the segments' text; arc_offsets int64 [B + 1], pieces, lengths int32, posteriors float64;
    log_z float64 [S], -inf where there is no path
    """

    offsets: NDArray[np.int64]
    arc_offsets: NDArray[np.int64]
    pieces: NDArray[np.int32]
    lengths: NDArray[np.int32]
    posteriors: NDArray[np.float64]
    log_z: NDArray[np.float64]


def flow_of(table: SegmentTable, first: int, last: int, model: SampleModel) -> Flow:
    """Of segments first to last of a table."""
    text, offsets, is_bytes = table.arrays.text, table.arrays.offsets[first : last + 1], model.pieces.is_bytes
    n_bytes = int(offsets[-1] - offsets[0])
    found = np.empty(n_bytes, np.int32)
    n_arcs = list_segments(text, offsets, model.arcs, is_bytes, found)
    lengths = np.diff(offsets)
    flow = Flow(
        offsets,
        np.empty(n_bytes + 1, np.int64),
        np.empty(n_arcs, np.int32),
        np.empty(n_arcs, np.int32),
        np.empty(n_arcs),
        np.empty(last - first),
    )
    exponents = np.empty(last - first, np.int64)
    z = np.empty(2 * int(lengths.max(initial=0)) + 2)
    arc_flow(text, offsets, model.arcs, model.unk_weights, is_bytes, found, z, *flow[1:], exponents)
    has_path = flow.log_z > 0
    logs = fixed_log(np.where(has_path, flow.log_z, 1.0)) + (exponents - model.power * lengths) * LN_2
    flow.log_z[:] = np.where(has_path, logs, -np.inf)
    return flow


def entropies(flow: Flow) -> NDArray[np.float64]:
    """float64 [S], nats: the sum over arcs of the posterior times -log of its share of those into the same position.

    share = posterior / (posterior + rest), so -log(share) = log1p(rest / posterior), exact however small the rest is.
    """
    arc_offsets, n_arcs = flow.arc_offsets, int(flow.arc_offsets[-1])
    posteriors, n = flow.posteriors[:n_arcs], len(arc_offsets) - 1
    others = np.empty(n_arcs)
    other_sums(0, n, arc_offsets, posteriors, others)
    is_taken = posteriors > 0
    rest = others / np.where(is_taken, posteriors, 1.0)
    terms = np.where(is_taken, posteriors * np.log1p(rest), 0.0)
    out = np.empty(len(flow.offsets) - 1)
    row_sums(0, len(out), arc_offsets[flow.offsets - flow.offsets[0]], terms, out)
    return out


@dataclass(frozen=True, eq=False)
class TokenStatistics:
    """What a sample of each text is expected to be; float64 [B], B the number of texts.

    num_tokens     the expected number of tokens, without those that the model's tool puts around a row; a symbol
                   without a piece is one, or its bytes where byte pieces spell it
    entropy        nats, of the distribution over segmentations
    log_partition  the natural log of the summed weights of all segmentations
    num_bytes      int64 [B], of the text as it was given

    Example:
        >>> from gpu_lattice import Tokenizer
        >>> out = Tokenizer.from_pieces(["a", "b", "ab"]).token_statistics(["ab", "b"], alpha=0)
        >>> out.num_tokens.tolist(), out.bytes_per_token
        ([1.5, 1.0], 1.2)
    """

    num_tokens: NDArray[np.float64]
    entropy: NDArray[np.float64]
    log_partition: NDArray[np.float64]
    num_bytes: NDArray[np.int64]

    @property
    def bytes_per_token(self) -> float:
        """Bytes of all texts by the expected number of their tokens; 0 without tokens."""
        total = float(self.num_tokens.sum())
        return float(self.num_bytes.sum()) / total if total else 0.0


def token_statistics(
    tables: Tables, model: SampleModel, penalty: float, normalize: Normalize, texts: TextBatch, threads: int
) -> TokenStatistics:
    """Of every text; sums go over its segments in their order. penalty: the model's, for chunks that are a token."""

    def work(start: int, stop: int) -> list[NDArray[np.float64]]:
        return _of_documents(tables, model, penalty, normalize(texts.slice(start, stop), start), start)

    done = map_ranges(work, byte_ranges(texts.offsets, threads), threads)
    num_tokens, entropy, log_z = (np.concatenate([np.empty(0), *(part[k] for part in done)]) for k in range(3))
    has_path = log_z > -np.inf
    return TokenStatistics(
        np.where(has_path, num_tokens, 0.0), np.where(has_path, entropy, 0.0), log_z, np.diff(texts.offsets)
    )


def _of_documents(
    tables: Tables, model: SampleModel, penalty: float, batch: NormalizedBatch, first_doc: int
) -> list[NDArray[np.float64]]:
    """[num_tokens, entropy, log_z], float64 [D] each."""
    n_tokens = _chunk_tokens(batch, np.ones(len(batch))).by_document
    totals = [n_tokens, np.zeros(len(batch)), -penalty * n_tokens]
    values: list[NDArray[np.float64]] = [np.empty(0), np.empty(0), np.empty(0)]
    table = SegmentTable()
    for members, n_members in table.enter_members(batch, tables, np.ones(len(batch)), first_doc, MEMBERS):
        new = [_values(table, first, last, model) for first, last in _blocks(table, len(values[0]))]
        values = [np.concatenate([old, *(part[k] for part in new)]) for k, old in enumerate(values)]
        for total, value in zip(totals, values, strict=True):
            add_by_document(members.entries, members.docs, n_members, value, total)
        if table.n > MOST_SEGMENTS:
            table.keep(np.empty(0, np.int64))
            values = [np.empty(0), np.empty(0), np.empty(0)]
    return totals


def _values(table: SegmentTable, first: int, last: int, model: SampleModel) -> list[NDArray[np.float64]]:
    flow = flow_of(table, first, last, model)
    tokens = np.empty(last - first)
    add_tokens(flow.offsets, flow.arc_offsets, flow.pieces, flow.lengths, flow.posteriors, model.pieces.spells, tokens)
    return [tokens, entropies(flow), flow.log_z]


class ChunkTokens(NamedTuple):
    """Chunks that are one token as they stand: how often each id, float64 [V] or shorter, and how many a document."""

    counts: NDArray[np.float64]
    by_document: NDArray[np.float64]


def _chunk_tokens(batch: NormalizedBatch, doc_weights: NDArray[np.float64]) -> ChunkTokens:
    if batch.chunk_ids is None or batch.chunk_offsets is None:
        return ChunkTokens(np.zeros(0), np.zeros(len(batch)))
    is_token = batch.chunk_ids >= 0
    docs = np.searchsorted(batch.offsets, batch.chunk_offsets[:-1][is_token], side="right") - 1
    counts = np.bincount(batch.chunk_ids[is_token], doc_weights[docs])
    return ChunkTokens(counts.astype(np.float64), np.bincount(docs, minlength=len(batch)).astype(np.float64))


def count_segments(
    tables: Tables,
    normalize: Normalize,
    texts: TextBatch,
    doc_weights: NDArray[np.float64],
    threads: int,
    first_doc: int = 0,
) -> Iterator[tuple[SegmentTable, NDArray[np.float64]]]:
    """For each range of the texts its segments, and the weights of chunks that are tokens, by id (or shorter).

    The ranges, and so all sums, do not depend on the number of threads.
    """

    def work(start: int, stop: int) -> tuple[SegmentTable, NDArray[np.float64]]:
        batch, weights = normalize(texts.slice(start, stop), first_doc + start), doc_weights[start:stop]
        table = SegmentTable()
        table.enter(batch, tables, weights, first_doc + start)
        return table, _chunk_tokens(batch, weights).counts

    ranges = byte_ranges(texts.offsets)
    for i in range(0, len(ranges), WAITING * threads):
        yield from map_ranges(work, ranges[i : i + WAITING * threads], threads)


def expected_counts(
    tables: Tables,
    model: SampleModel,
    normalize: Normalize,
    texts: TextBatch,
    doc_weights: NDArray[np.float64],
    threads: int,
) -> NDArray[np.float64]:
    """float64 [V]."""
    n_ids, unk_id = len(tables.vocabulary), tables.pieces.unk_id
    counts, table = np.zeros(n_ids + 1), SegmentTable()
    for part, tokens in count_segments(tables, normalize, texts, doc_weights, threads):
        counts[: len(tokens)] += tokens
        table.merge(part)
        if table.n > MOST_SEGMENTS:
            add_expected(table, model, threads, counts)
            table = SegmentTable()
    add_expected(table, model, threads, counts)
    if unk_id >= 0:
        counts[unk_id] += counts[n_ids]
    return counts[:n_ids]


def add_expected(table: SegmentTable, model: SampleModel, threads: int, counts: NDArray[np.float64]) -> float:
    """Add the expected counts of a table's segments, in their order, to counts float64 [V + 1], the unknown arc's last.

    Returns their weighted log partition. Raises ValueError for a segment that no path spells.
    """
    blocks, total = _blocks(table, 0), 0.0
    for i in range(0, len(blocks), WAITING * threads):
        some = blocks[i : i + WAITING * threads]
        flows = map_ranges(lambda first, last: flow_of(table, first, last, model), some, threads)
        for (first, last), flow in zip(some, flows, strict=True):
            _raise_if_dead(table, first, flow.log_z)
            weights = table.weights[first:last]
            add_counts(flow.offsets, flow.arc_offsets, flow.pieces, flow.posteriors, weights, counts)
            total += float((weights * flow.log_z).sum())
    return total


def _blocks(table: SegmentTable, first: int) -> list[tuple[int, int]]:
    """The segments from `first` on, in blocks of about BLOCK_BYTES."""
    offsets = table.offsets[first:]
    inner = np.searchsorted(offsets, np.arange(offsets[0] + BLOCK_BYTES, offsets[-1], BLOCK_BYTES))
    bounds = np.unique(np.concatenate([[0], inner, [table.n - first]])) + first
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


def _raise_if_dead(table: SegmentTable, first: int, log_z: NDArray[np.float64]) -> None:
    dead = np.flatnonzero(np.isneginf(log_z))
    if len(dead):
        i = first + int(dead[0])
        raise ValueError(
            f"document {table.arrays.docs[i]} cannot be spelled with this model's pieces: none of their sequences is "
            f"{table.text(i)[:60]!r}; add the missing symbols, or an unknown piece"
        )
