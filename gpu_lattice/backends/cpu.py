"""The CPU backend: the two operations of the bulk path on normalized text, over all threads."""

from __future__ import annotations

from functools import cached_property, lru_cache
from threading import get_ident
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from gpu_lattice.backends import Distinct, NoPathError, Positions, Rows
from gpu_lattice.backends.tables import Tables
from gpu_lattice.kernels.compiled import Bound, readonly
from gpu_lattice.kernels.cpu.bulk.assemble import log_probs, place_around, place_runs, plan_rows
from gpu_lattice.kernels.cpu.bulk.group import Batch
from gpu_lattice.kernels.cpu.bulk.memo import forget, new_memo
from gpu_lattice.kernels.cpu.bulk.parts import PART_BYTES, plan_parts
from gpu_lattice.kernels.cpu.bulk.rows import encode_rows, merge_rows, sample_rows
from gpu_lattice.kernels.cpu.passing import Held
from gpu_lattice.runtime.threads import LEAST_RANGE_BYTES, byte_ranges, default_threads, map_ranges, num_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    from gpu_lattice.backends.cpu_launcher import CpuLauncher
    from gpu_lattice.kernels.cpu.bulk.words import Words
    from gpu_lattice.models import Model
    from gpu_lattice.normalizers import NormalizedBatch, PendingBatch
    from gpu_lattice.text_batch import TextBatch

    # What is in a Batch; part_offsets and part_docs (kernels/cpu/bulk/rows.py).
    Texts: TypeAlias = tuple[NDArray[Any], ...]
    Parts: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


T = TypeVar("T")

# What is worked out where a whole batch is one range of work.
NOT_PLANNED = np.empty(0, np.int64), np.empty(0, np.int64)
NO_OFFSETS, NO_CHUNK_IDS = readonly(np.empty(0, np.int64)), readonly(np.empty(0, np.int32))


class Memos(Generic[T]):
    """Memos for exclusive use, by the thread that used one last; the dict operations here are atomic."""

    def __init__(self) -> None:
        self._idle: dict[int, T] = {}

    def take(self) -> T | None:
        """The memo that this thread used last, since it is in its processor's cache, or else any."""
        memo = self._idle.pop(get_ident(), None)
        if memo is not None:
            return memo
        try:
            return self._idle.popitem()[1]
        except KeyError:
            return None

    def put(self, memo: T) -> None:
        self._idle[get_ident()] = memo

    def clear(self) -> None:
        self._idle.clear()


class CpuBackend:
    """Numba kernels over one model. Threads share read-only tables; every range of work owns its output."""

    device = "cpu"
    memory_limit: int | None = None

    def __init__(self, model: Model, threads: int | None, tables: Tables | None = None) -> None:
        """threads: `default_threads()` at each call for None. tables: the model's, if they exist already."""
        self._given_threads = threads
        self.tables = tables or Tables(model)
        self._best_memos = Memos[Held]()
        self._sample_memos = Memos[tuple[tuple[float, float], Held]]()
        self._around = self.tables.before, self.tables.after
        self._sample_rows = Bound(sample_rows, only_reads=True)
        self._sample_tables = lru_cache(maxsize=8)(self._build_sample_tables)

    @property
    def threads(self) -> int:
        """On how many a call works now."""
        return self._given_threads or default_threads()

    @cached_property
    def launcher(self) -> CpuLauncher:
        """Runs the lattice kernels, which are loaded on first use."""
        from gpu_lattice.backends.cpu_launcher import CpuLauncher

        return CpuLauncher(self.threads)

    def rescored(self, model: Model) -> CpuBackend:
        """One for the same model with other scores."""
        return CpuBackend(model, self._given_threads, self.tables.rescored(model))

    def ranges(self, offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
        """The ranges of documents for the calls of `encode` or `sample`: small, so that every thread has some, and
        normalized text is still in its cache.
        """
        return [(0, 1)] if len(offsets) == 2 else byte_ranges(offsets, self.threads) or [(0, 0)]

    def takes(self, texts: TextBatch) -> bool:
        """No: it has no GPU."""
        return False

    def encode(
        self, batch: NormalizedBatch | PendingBatch, is_null: NDArray[np.bool_], words: Words | None = None
    ) -> Rows:
        """Best segmentation of every document; is_null bool [D] marks rows without ids.

        words: the batch's; if given, rows are those of words, with nothing around them.
        """
        batch = batch.whole()
        if self._is_one_range(batch, words):
            return _whole(self._best_rows(unplanned(batch), NOT_PLANNED, is_null))
        if self.tables.merges is not None:
            return self._encode_merges(batch, is_null, words)
        texts = batch_of(batch)
        part_offsets, part_row, _ = self._parts(texts, words)
        part_doc = part_row if words is None else words.docs[part_row]

        def work_on(start: int, stop: int) -> Any:
            # A document's sums go from part to part, so it is not divided among threads.
            is_all = stop - start == len(batch)
            first, last = (0, len(part_doc)) if is_all else np.searchsorted(part_doc, [start, stop])
            return self._best_rows(tuple(texts), (part_offsets[first : last + 1], part_doc[first:last]), is_null)

        done = map_ranges(work_on, byte_ranges(batch.offsets), self.threads)
        raise_if_no_path([r[-1] for r in done])
        return self._rows(done, part_row, is_null, 1, words)

    def _is_one_range(self, batch: NormalizedBatch, words: Words | None) -> bool:
        """Whether a batch is worked on by one thread, from its text to its rows."""
        n_bytes = len(batch.values)
        return words is None and (n_bytes < LEAST_RANGE_BYTES or num_ranges(n_bytes, self.threads) == 1)

    def _best_rows(self, texts: Texts, parts: Parts, is_null: NDArray[np.bool_]) -> Any:
        run, tables = self._best
        memo = self._best_memos.take() or Held(new_memo())
        try:
            return run(texts, parts, PART_BYTES, is_null, tables, memo)
        finally:
            self._best_memos.put(memo)

    @cached_property
    def _best(self) -> tuple[Bound, Held]:
        """What finds best segmentations, and what it reads."""
        tables = self.tables
        if tables.merges is None:
            return Bound(encode_rows, only_reads=True), Held((self._around, tables.best, tables.best_arcs))
        return Bound(merge_rows, only_reads=True), Held((self._around, tables.merges))

    def _build_sample_tables(self, alpha: float, token_penalty: float) -> Held:
        return Held((self._around, self.tables.sample_model(alpha, token_penalty)))

    def _parts(
        self, texts: Batch, words: Words | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """part_offsets, part_row, firsts, as of plan_parts; a row is a document, or a word where words are given."""
        if words is not None:
            texts = texts._replace(offsets=readonly(words.offsets))
        return plan_parts(texts, self.tables.pieces, PART_BYTES)  # type: ignore[no-any-return]

    def find_words(self, batch: NormalizedBatch) -> Words:
        """The words of a batch."""
        return self.tables.find_words(batch_of(batch))

    def find_unspellable(self, batch: NormalizedBatch, words: Words) -> NDArray[np.bool_]:
        """bool [W]: which words no path spells."""
        return self.tables.find_unspellable(batch_of(batch), words)

    def _encode_merges(self, batch: NormalizedBatch, is_null: NDArray[np.bool_], words: Words | None) -> Rows:
        texts = batch_of(batch)
        if words is not None:
            # No merge crosses the end of a word.
            offsets = readonly(words.offsets)
            texts = texts._replace(offsets=offsets, chunk_offsets=offsets, chunk_ids=readonly(words.chunk_ids))
        assert self.tables.merges is not None
        part_offsets, part_row, firsts = plan_parts(texts, self.tables.merges.pieces, PART_BYTES)
        part_offsets, part_row = part_offsets[firsts], part_row[firsts[:-1]]

        def work_on(start: int, stop: int) -> Any:
            return self._best_rows(tuple(texts), (part_offsets[start : stop + 1], part_row[start:stop]), is_null)

        done = map_ranges(work_on, byte_ranges(part_offsets), self.threads)
        raise_if_no_path([r[-1] for r in done])
        return self._rows(done, part_row, is_null, 1, words)

    def sample(
        self,
        batch: NormalizedBatch | PendingBatch,
        is_null: NDArray[np.bool_],
        alpha: float,
        num_samples: int,
        seed: int,
        doc_ids: NDArray[np.uint64],
        return_log_prob: bool,
        token_penalty: float = 0.0,
        words: Words | None = None,
    ) -> Rows:
        """num_samples perfect samples of every document; doc_ids uint64 [D], a 64-bit seed; words: as for `encode`."""
        batch = batch.whole()
        tilt, seed_word = (alpha, token_penalty), np.uint64(seed)
        tables = self._sample_tables(*tilt)

        def work(texts: Texts, parts: Parts) -> Any:
            made_for, memo = self._sample_memos.take() or (tilt, Held(new_memo(len(self.tables.vocabulary))))
            if made_for != tilt:
                forget(memo.content)
            try:
                return self._sample_rows(
                    texts, parts, PART_BYTES, is_null, doc_ids, seed_word, num_samples, tables, memo, return_log_prob
                )
            finally:
                self._sample_memos.put((tilt, memo))

        if not return_log_prob and self._is_one_range(batch, words):
            return _whole(work(unplanned(batch), NOT_PLANNED))
        texts = batch_of(batch)
        part_offsets, part_row, firsts = self._parts(texts, words)
        part_doc = part_row if words is None else words.docs[part_row]

        def work_on(start: int, stop: int) -> Any:
            first, last = firsts[start], firsts[stop]
            return work(tuple(texts), (part_offsets[first : last + 1], part_doc[first:last]))

        done = map_ranges(work_on, byte_ranges(part_offsets[firsts]), self.threads)
        raise_if_no_path([r[-1] for r in done])
        rows = self._rows(done, part_row, is_null, num_samples, words)
        if not return_log_prob:
            return rows
        log_weights, log_z = [], []
        for _, _, scores, _ in done:
            n = len(scores) // (num_samples + 2)
            z, exponents = scores[n * num_samples :].reshape(2, n)
            log_weights.append(scores[: n * num_samples].reshape(n, num_samples))
            log_z.append(np.log(z) + exponents * np.log(2.0))
        sums = _joined(log_weights, (0, num_samples), np.float64), _joined(log_z, (0,), np.float64)
        return rows._replace(log_prob=log_probs(*sums, part_doc, len(batch)))

    def find_arcs(
        self,
        values: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        chunk_offsets: NDArray[np.int64],
        chunk_ids: NDArray[np.int32],
        fits: Callable[[int], None],
    ) -> tuple[Positions, Distinct]:
        """What the lattice of normalized text is copied from."""
        from gpu_lattice.backends.cpu_lattice import find_arcs

        return find_arcs(self.tables, self.threads, Batch(values, offsets, chunk_offsets, chunk_ids), fits)

    def forget(self) -> None:
        """Drop the memos of earlier texts, which only save time."""
        self._best_memos.clear()
        self._sample_memos.clear()

    def _rows(
        self,
        done: Sequence[Any],
        part_row: NDArray[np.int64],
        is_null: NDArray[np.bool_],
        num_samples: int,
        words: Words | None,
    ) -> Rows:
        """Join the runs of all ranges of work into rows, with the ids that belong around them unless rows are words.

        done: for each range, (ids, run starts and lengths [2, parts, samples] as one, ...).
        """
        before, after = self.tables.before, self.tables.after
        if words is not None:
            before = after = np.empty(0, np.int32)
            is_null = np.zeros(len(words.docs), np.bool_)
        n_around = len(before) + len(after)
        runs = [(r[0], *r[1].reshape(2, -1, num_samples)) for r in done]
        lengths = _joined([r[2] for r in runs], (0, num_samples), np.int64)
        offsets, starts = plan_rows(lengths, part_row, len(is_null), n_around, is_null)
        if len(runs) == 1 and np.array_equal(starts, runs[0][1]) and not n_around:
            return Rows(runs[0][0], offsets, None)
        out = np.empty(int(offsets[-1]), np.int32)
        bounds = np.concatenate([[0], np.cumsum([len(r[2]) for r in runs])]).astype(np.int64)

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                ids, run_starts, run_lengths = runs[i]
                place_runs(ids, run_starts, run_lengths, starts[bounds[i] : bounds[i + 1]], len(before), out)

        map_ranges(work, [(i, i + 1) for i in range(len(runs))], self.threads)
        if n_around:
            place_around(offsets, before, after, out)
        return Rows(out, offsets, None)


def _joined(arrays: list[NDArray[Any]], shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    """The arrays one after another; if there are none, an array of this shape and type."""
    return arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(shape, dtype), *arrays])


def batch_of(batch: NormalizedBatch) -> Batch:
    """The batch as kernels read it."""
    return Batch(*[readonly(array) for array in (batch.values, batch.offsets, *batch.chunks)])


def unplanned(batch: NormalizedBatch) -> Texts:
    """What is in it, where kernels make the chunks that the normalizer leaves out."""
    offsets, ids = batch.chunk_offsets, batch.chunk_ids
    return (
        batch.values, batch.offsets, NO_OFFSETS if offsets is None else offsets, NO_CHUNK_IDS if ids is None else ids
    )  # fmt: skip


def _whole(done: Any) -> Rows:
    """The rows of a batch that was worked on as one range."""
    ids, offsets, *_, bad = done
    if bad >= 0:
        raise NoPathError(bad)
    return Rows(ids, offsets, None)


def raise_if_no_path(positions: Sequence[int]) -> None:
    bad = [int(position) for position in positions if position >= 0]
    if bad:
        raise NoPathError(min(bad))
