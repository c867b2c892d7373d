"""The CUDA backend: the operations of the CPU's, by kernels/cuda, batch by batch in two streams."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from functools import cached_property, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpu_lattice.backends import LatticeArrays, NoPathError, Rows
from gpu_lattice.backends.cpu import batch_of
from gpu_lattice.backends.cuda_encode import BestPaths, CanonicalIds
from gpu_lattice.backends.cuda_launcher import THREADS_PER_BLOCK, CudaLauncher
from gpu_lattice.backends.tables import Tables
from gpu_lattice.kernels.arcs import NO_ARC
from gpu_lattice.kernels.cpu.bulk.assemble import log_probs
from gpu_lattice.kernels.cpu.bulk.parts import PART_BYTES, plan_parts
from gpu_lattice.normalizers import NormalizedBatch, PendingBatch
from gpu_lattice.normalizers.identity import IdentityNormalizer
from gpu_lattice.runtime.on_host import is_on_device
from gpu_lattice.runtime.ragged import offsets_of, row_of
from gpu_lattice.text_batch import TextBatch
from gpu_lattice.weights import arc_weights, inverse_of, log_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from gpu_lattice.backends import Device, Stream
    from gpu_lattice.backends.cuda_pre_tokens import PreTokens
    from gpu_lattice.kernels.cpu.bulk.words import Words
    from gpu_lattice.models import Model

# Bytes of text per thread, and the longest segment (or chunk) that a thread does.
STRETCH = 256
LONGEST = 512
# Constants of the .cu and .cuh files.
LANES = 32
GROUP = 32
POSITIONS = 8
TO_BYTES, TO_UNKNOWN = -1, 0
NODE = np.dtype([("base", np.int32), ("check", np.int32), ("value", np.float64)])
ARC_BYTES = 16
SCRATCH_BYTES = 1 << 28

# Text of a batch, unless one document is longer: enough to fill a device, little enough to hide copies behind kernels.
DEVICE_BATCH_BYTES = 1 << 27
# Text that is normalized while the device works on the text before it.
RANGE_BYTES = 1 << 25
# Room for the ids of the text to come, as if it were like the text before it, and how much of it may stay unused.
ROOM, UNUSED = 1.02, 1.25
UNBROKEN = 2**63 - 1
# Device bytes of a lattice, for each byte of text and for each arc.
LATTICE_COST, ARC_COST = 23, 8
FREE_MEMORY_USED = 0.5
# Upper bounds on device bytes, including the slack of growing buffers: per byte of text, per byte and sample, per byte
# and sample if runs need verdicts, per document, per document and sample, per chunk.
TEXT_COST, PATH_COST, RUN_COST, DOC_COST, ROW_COST, CHUNK_COST = 40, 6, 6, 47, 45, 50
# Per byte of text that may be merged.
MERGE_COST = 58


class SampleTables(NamedTuple):
    """A vocabulary at one alpha, on the device."""

    nodes: Any
    unk_weight: float
    inverses: Any
    unk_inverse: float
    z_low: float
    z_high: float
    log_weights: Any
    unk_log_weight: float


class Part(NamedTuple):
    """Documents that are worked on together.

    first   the number of the first of them in the call
    before  by how much a position in the call's normalized text exceeds one in that of the batch
    """

    batch: NormalizedBatch
    first: int
    before: int
    is_pinned: bool


class Output:
    """The rows of a call's parts, one after another, in arrays of the caller's stream."""

    def __init__(self, xp: Any, n_rows: int) -> None:
        self._xp = xp
        self._ids = xp.empty(0, np.int32)
        self._offsets = xp.zeros(n_rows + 1, np.int64)
        self._n_rows = self._n_ids = 0
        self._log_probs: list[NDArray[np.float64]] = []

    def room(self, n_ids: int, share: float) -> Any:
        """Where so many further ids go; share: of the call's text, that which has its ids then."""
        needed = self._n_ids + n_ids
        if needed > len(self._ids):
            try:
                grown = self._xp.empty(int(ROOM * needed / share) if 0 < share < 1 else needed, np.int32)
            except MemoryError:
                grown = self._xp.empty(needed, np.int32)
            grown[: self._n_ids] = self._ids[: self._n_ids]
            self._ids = grown
        return self._ids[self._n_ids : needed]

    def add(self, n_ids: int, ends: Any, log_prob: NDArray[np.float64] | None) -> None:
        """The ids are in their room; ends: where rows end within them."""
        self._xp.add(ends, self._n_ids, out=self._offsets[self._n_rows + 1 : self._n_rows + 1 + len(ends)])
        self._n_rows += len(ends)
        self._n_ids += n_ids
        if log_prob is not None:
            self._log_probs.append(log_prob)

    def rows(self) -> Rows:
        log_prob = self._xp.asarray(np.concatenate(self._log_probs)) if self._log_probs else None
        ids = self._ids[: self._n_ids]
        return Rows(ids.copy() if len(self._ids) > UNUSED * len(ids) else ids, self._offsets, log_prob)


@dataclass
class Job:
    """A part in one stream; arrays are on the device unless marked as host.

    status int64 [3]: the smallest end of a segment without a path, listed segments, ids.
    row_offsets: where rows begin, documents or words; of words, there is nothing around a row.
    """

    stream: Stream
    part: Part
    n_docs: int
    low: int
    n: int
    values: Any
    doc_offsets: Any
    chunk_offsets: Any
    chunk_ids: Any
    status: Any
    marks: Any
    path: Any
    row_offsets: Any
    of_words: bool
    cuts: Any = None
    z: Any = None
    exponents: Any = None
    sums: Any = None
    begun: Any = None
    offsets: Any = None
    first_ids: Any = None
    run_sums: Any = None
    runs: Any = None
    part_doc: Any = None  # host
    parts: Any = None

    @property
    def no_path(self) -> Any:
        return self.status[:1]

    @property
    def n_long(self) -> Any:
        return self.status[1:2]


class CudaBackend:
    """CUDA kernels over one model.

    memory_limit: bytes of device memory that a call may use for its batches, not counting the ids that it returns; by
    default half of what is free at the first call. Calls from several threads take turns.
    """

    def __init__(
        self, model: Model, device: Device, memory_limit: int | None = None, tables: Tables | None = None
    ) -> None:
        """tables: the model's, if they exist already."""
        self.device = device.name
        self._device = device
        self._given_limit = self._memory_limit = memory_limit
        self._process = os.getpid()
        self._model = model
        self._tables = tables = tables or Tables(model)
        self._lock = Lock()
        vocabulary, pieces = model.vocabulary, tables.pieces
        self._before = device.upload(tables.before)
        self._after = device.upload(tables.after)
        self._piece_at = device.upload(pieces.piece_at)
        self._byte_ids = device.upload(pieces.byte_ids)
        lengths = np.array([len(surface) for surface in vocabulary.surfaces], np.int32)
        self._length_of = device.upload(lengths)
        self._pairs = device.upload(tables.cuts.pairs)
        self._keys = device.upload(tables.cuts.keys)
        unk_in_lattice = vocabulary.unk_id is not None and bool(vocabulary.in_lattice[vocabulary.unk_id])
        self._unknown = {"unk_id": pieces.unk_id, "unk_length": int(lengths[pieces.unk_id]) if unk_in_lattice else 0}
        self._spells, self._some_bytes = bool(np.all(pieces.byte_ids >= 0)), bool(np.any(pieces.byte_ids >= 0))
        self._by_run = pieces.look_up or self._some_bytes > self._spells
        self._max_arcs = most_arcs(pieces.slots, pieces.piece_at)
        self._warp_bytes = LANES * self._max_arcs * ARC_BYTES
        scratch = SCRATCH_BYTES if memory_limit is None else min(SCRATCH_BYTES, memory_limit // 8)
        self._n_warps = max(1, min(device.warps, scratch // self._warp_bytes))
        number = "float" if tables.best.scores.dtype == np.float32 else "double"
        self._constants = {
            "IS_BYTES": int(pieces.is_bytes),
            "STRETCH": STRETCH,
            "LONGEST": LONGEST,
            "NUMBER": number,
            "BLOCK": THREADS_PER_BLOCK,
        }
        self.launcher = CudaLauncher(device, self._constants)
        self._best_paths = BestPaths(device, tables, STRETCH)
        self._threads = self.launcher.threads
        self._best_nodes = lru_cache(maxsize=1)(self._build_best_nodes)
        self._sample_tables = lru_cache(maxsize=8)(self._build_sample_tables)
        self._streams = [device.new_stream(), device.new_stream()]
        self._pinned = deque([np.empty(0, np.uint8)] * 2)

    def rescored(self, model: Model) -> CudaBackend:
        """One for the same model with other scores, on the same device."""
        return CudaBackend(model, self._device, self._given_limit, self._tables.rescored(model))

    def ranges(self, offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
        """The ranges of documents for the calls of `encode` or `sample`: one, since each call waits for the device."""
        return [(0, len(offsets) - 1)]

    def takes(self, texts: TextBatch) -> bool:
        """Whether texts on the device are segmented as they are there."""
        self._check_process()
        if isinstance(self._model.normalizer, IdentityNormalizer):
            return True
        return self._pre_tokens is not None and self._pre_tokens.take(texts)

    @cached_property
    def _pre_tokens(self) -> PreTokens | None:
        """What divides text on the device; None where more is done to it, or where chunks are more than marks."""
        from gpu_lattice.backends.cuda_pre_tokens import PreTokens
        from gpu_lattice.normalizers.hf_tokenizers import CompiledNormalizer

        normalizer = self._model.normalizer
        if self._model.merges is None or not isinstance(normalizer, CompiledNormalizer):
            return None
        return PreTokens(self.launcher, normalizer.rules, STRETCH) if normalizer.rules.only_divide else None

    def encode(
        self, batch: NormalizedBatch | PendingBatch, is_null: NDArray[np.bool_], words: Words | None = None
    ) -> Rows:
        """Best segmentation of every document; is_null bool [D] marks rows without ids.

        words: the batch's; if given, rows are those of words, with nothing around them.
        """
        if self._model.merges is not None:
            if words is not None:
                # No merge crosses the end of a word; and what has its words is normalized.
                assert isinstance(batch, NormalizedBatch)
                batch = NormalizedBatch(batch.values, batch.offsets, words.offsets, words.chunk_ids)
            return self._run(batch, is_null, 1, self._find_merges, words=words)
        return self._run(batch, is_null, 1, self._find_best, words=words)

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
        tables = self._sample_tables(alpha, token_penalty)

        def find(job: Job) -> None:
            first = job.part.first
            self._find_samples(job, tables, num_samples, seed, doc_ids[first : first + job.n_docs])
            if return_log_prob:
                self._weigh(job, tables, num_samples)

        return self._run(batch, is_null, num_samples, find, return_log_prob, words)

    def find_words(self, batch: NormalizedBatch) -> Words:
        """The words of a batch, on the host."""
        return self._tables.find_words(batch_of(batch))

    def find_unspellable(self, batch: NormalizedBatch, words: Words) -> NDArray[np.bool_]:
        """bool [W], on the host: which words no path spells."""
        return self._tables.find_unspellable(batch_of(batch), words)

    @property
    def tables(self) -> Tables:
        """The model's tables, on the host."""
        return self._tables

    def find_arcs(
        self, values: Any, offsets: Any, chunk_offsets: Any, chunk_ids: Any, fits: Callable[[int], None]
    ) -> LatticeArrays:
        """The lattice of normalized text: counted, checked against the memory available, then written."""
        launcher, xp, tables = self.launcher, self._device.xp, self._tables
        n, n_docs = len(values), len(offsets) - 1
        fits(n * LATTICE_COST)
        values, offsets, chunk_offsets, chunk_ids = map(launcher.upload, (values, offsets, chunk_offsets, chunk_ids))
        marks = self._mark_cuts(values, chunk_offsets, chunk_ids)
        trie: dict[str, Any] = {
            "slots": self._best_nodes(),
            "piece_at": self._piece_at,
            "has_unknown": tables.vocabulary.has_unknown_arcs,
            "is_bytes": tables.pieces.is_bytes,
        }
        counts = xp.zeros(n, xp.int32)
        launcher.run("count_arcs", n, values=values, marks=marks, **trie, counts=counts)
        total = int(counts.sum(dtype=xp.int64))
        fits(n * LATTICE_COST + total * ARC_COST)
        firsts = offsets_of(xp, counts)[:-1]
        arcs, lengths = xp.empty(total, xp.int32), xp.empty(total, xp.int32)
        launcher.run(
            "place_arcs", n,
            values=values, marks=marks, chunk_offsets=chunk_offsets, chunk_ids=chunk_ids, n_chunks=len(chunk_ids),
            **trie, firsts=firsts, arcs=arcs, lengths=lengths,
        )  # fmt: skip
        doc_positions = offsets + xp.arange(n_docs + 1)
        n_positions = n + n_docs
        doc = row_of(xp, doc_positions)
        into = xp.zeros(n_positions, xp.int32)
        into[xp.arange(n) + row_of(xp, offsets) + 1] = counts
        by_position = marks[xp.arange(n_positions) - doc]
        return LatticeArrays(doc_positions, offsets_of(xp, into), arcs, lengths, by_position, values)

    def _mark_cuts(self, values: Any, chunk_offsets: Any, chunk_ids: Any) -> Any:
        """u8 [n + 1]: the marks of every position of a batch (text.cuh)."""
        n, n_chunks = len(values), len(chunk_ids)
        marks = self._device.xp.zeros(n + 1, np.uint8)
        cuts = self._device.xp.empty(_whole_words(n + 1), np.uint8)
        chunks = {"chunk_offsets": chunk_offsets, "chunk_ids": chunk_ids, "n_chunks": n_chunks}
        self._threads("mark_chunks", n_chunks + 1, **chunks, marks=marks)
        self._find_cuts(values, marks, cuts)
        return cuts[: n + 1]

    def _find_cuts(self, values: Any, marks: Any, cuts: Any) -> None:
        self._threads(
            "find_cuts", -(-(len(values) + 1) // POSITIONS),
            values=values, marks=marks, n=len(values), pairs=self._pairs, keys=self._keys, n_keys=len(self._keys),
            cuts=cuts,
        )  # fmt: skip

    def forget(self) -> None:
        """Free buffers, which only save time."""
        with self._lock:
            for stream in self._streams:
                stream.clear()
            self._pinned = deque([np.empty(0, np.uint8)] * 2)

    def _run(
        self,
        batch: NormalizedBatch | PendingBatch,
        is_null: NDArray[np.bool_],
        num_samples: int,
        find: Callable[[Job], None],
        weighed: bool = False,
        words: Words | None = None,
    ) -> Rows:
        """find: fills cuts and path of a job. weighed: whether log-probabilities are wanted. words: of rows."""
        self._check_process()

        def begin(stream: Stream, part: Part) -> Job:
            if is_on_device(part.batch.values):
                stream.follow_caller()
            with stream:
                return self._begin(stream, part, is_null, num_samples, find, words)

        def finish(job: Job, output: Output) -> None:
            done = job.part.first + job.n_docs
            size = int(batch.offsets[-1] - batch.offsets[0])
            share = 1.0 if done == len(batch) or size == 0 else int(batch.offsets[done] - batch.offsets[0]) / size
            try:
                self._finish(job, output, share, num_samples, weighed)
            except NoPathError as error:
                raise NoPathError(job.part.before + error.position) from None

        n_rows = (len(batch) if words is None else len(words.docs)) * num_samples
        with self._lock, self._device:
            try:
                return self._run_parts(batch, begin, finish, Output(self._device.xp, n_rows), num_samples, words)
            except BaseException:
                # The next call must not overwrite pinned buffers of a job that nobody awaits.
                for stream in self._streams:
                    stream.synchronize()
                raise

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this tokenizer's memory on {self.device} belongs to the process that this one was forked from; start "
                "workers by spawn and send them the tokenizer, or give them one with device='cpu'"
            )

    def _run_parts(
        self,
        batch: NormalizedBatch | PendingBatch,
        begin: Callable[[Stream, Part], Job],
        finish: Callable[[Job, Output], None],
        output: Output,
        num_samples: int,
        words: Words | None,
    ) -> Rows:
        """While one stream's job is awaited, the other's next one is running; so it is while text is normalized."""
        limit, source = self._batch_limit(), self._parts(batch)
        todo: deque[Part] = deque()
        jobs: deque[Job] = deque()  # of the first of these
        n_begun = 0
        while True:
            if len(jobs) == len(todo):
                for part in source:
                    todo += self._divided(part, num_samples, words, limit)
                    break
            if not todo:
                return output.rows()
            is_refused = False
            try:
                if len(jobs) < len(todo):
                    jobs.append(begin(self._streams[n_begun % len(self._streams)], todo[len(jobs)]))
                    n_begun += 1
                    if len(jobs) < len(self._streams):
                        continue
                finish(jobs[0], output)
                jobs.popleft()
                todo.popleft()
            except MemoryError:
                is_refused = True
            if is_refused:
                # Only now have the failed call's frames released the buffers.
                jobs.clear()
                for stream in self._streams:
                    stream.clear()
                limit //= 2
                todo = deque(one for part in todo for one in self._divided(part, num_samples, words, limit))

    def _parts(self, batch: NormalizedBatch | PendingBatch) -> Iterator[Part]:
        """The documents in parts of their own values, each normalized when it is asked for."""
        first = before = 0
        for part in batch.ranges(RANGE_BYTES, self._next_pinned):
            yield Part(part, first, before, isinstance(batch, PendingBatch))
            first += len(part)
            before += int(part.offsets[-1])

    def _next_pinned(self, n_bytes: int) -> NDArray[np.uint8]:
        """Pinned memory, by turns: what is asked for next does not touch it, what is asked for after that does."""
        self._pinned.rotate()
        if len(self._pinned[0]) < n_bytes:
            self._pinned[0] = self._device.pinned(n_bytes)
        return self._pinned[0][:n_bytes]

    def _divided(self, part: Part, num_samples: int, words: Words | None, limit: int) -> list[Part]:
        """The part in parts that fit in memory."""
        batch, n_docs = part.batch, len(part.batch)
        ranges = [(0, n_docs)]
        before, after = self._costs(batch, num_samples, words, np.array([0, n_docs])).tolist()
        if after - before > limit or batch.offsets[-1] - batch.offsets[0] > DEVICE_BATCH_BYTES:
            ranges = self._ranges(part, self._costs(batch, num_samples, words, np.arange(n_docs + 1)), limit)
        return [part._replace(batch=batch.part(start, stop), first=part.first + start) for start, stop in ranges]

    @property
    def memory_limit(self) -> int | None:
        """Bytes of device memory for a call's batches; None until the first call that sets it."""
        return self._memory_limit

    def _batch_limit(self) -> int:
        if self._memory_limit is None:
            self._memory_limit = int(FREE_MEMORY_USED * self._device.free_bytes())
        return max(0, self._memory_limit // len(self._streams) - self._n_warps * self._warp_bytes)

    def _costs(
        self, batch: NormalizedBatch, num_samples: int, words: Words | None, docs: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """int64 [len(docs)]: bytes of device memory for all documents before each of these."""
        offsets = batch.offsets[docs]
        chunks = np.searchsorted(batch.chunk_bounds, offsets)
        rows = docs if words is None else docs + np.searchsorted(words.offsets, offsets)
        path = PATH_COST + RUN_COST * self._by_run
        text = TEXT_COST if self._model.merges is None else MERGE_COST
        cost: NDArray[np.int64] = (text + path * num_samples) * (offsets - offsets[0])
        return cost + DOC_COST * docs + ROW_COST * num_samples * rows + CHUNK_COST * chunks

    def _ranges(self, part: Part, cost: NDArray[np.int64], limit: int) -> list[tuple[int, int]]:
        """Consecutive ranges of documents within the limit; MemoryError if one document exceeds it."""
        batch = part.batch
        largest = int(np.diff(cost).max(initial=0))
        if largest > limit:
            i_doc = int(np.diff(cost).argmax())
            n_bytes = batch.offsets[i_doc + 1] - batch.offsets[i_doc]
            raise MemoryError(
                f"document {part.first + i_doc} has {n_bytes} normalized bytes, which take "
                f"up to {largest} bytes of memory on {self.device}; a batch may take {limit} (memory_limit is "
                f"{self._memory_limit}): ask for fewer samples at once, raise memory_limit, split the document, or use "
                "device='cpu'"
            )
        n_docs = len(batch)
        ranges: list[tuple[int, int]] = []
        start = 0
        while start < n_docs or not ranges:
            stop = int(np.searchsorted(cost, cost[start] + limit, side="right")) - 1
            within = int(np.searchsorted(batch.offsets, batch.offsets[start] + DEVICE_BATCH_BYTES, side="right")) - 1
            stop = min(stop, max(within, start + 1), n_docs)
            ranges.append((start, stop))
            start = stop
        return ranges

    def _begin(
        self,
        stream: Stream,
        part: Part,
        is_null: NDArray[np.bool_],
        num_samples: int,
        find: Callable[[Job], None],
        words: Words | None,
    ) -> Job:
        """Upload the documents and queue all the work up to the rows' offsets."""
        batch, start, stop = part.batch, part.first, part.first + len(part.batch)
        low, high = int(batch.offsets[0]), int(batch.offsets[-1])
        n, n_docs, n_chunks = high - low, len(batch), len(batch.chunk_bounds) - 1
        doc_offsets = row_offsets = stream.upload("doc_offsets", batch.offsets, minus=low)
        is_null = is_null[start:stop]
        if words is not None:
            begin, end = np.searchsorted(words.docs, [start, stop]).tolist()
            row_offsets = stream.upload("row_offsets", words.offsets[begin : end + 1], minus=low)
            is_null = np.zeros(end - begin, np.bool_)
        job = Job(
            stream=stream,
            part=part,
            n_docs=n_docs,
            low=low,
            n=n,
            values=stream.upload("values", batch.values[low:high], is_pinned=part.is_pinned),
            doc_offsets=doc_offsets,
            row_offsets=row_offsets,
            of_words=words is not None,
            chunk_offsets=stream.upload("chunk_offsets", batch.chunk_bounds, minus=low),
            chunk_ids=stream.empty("chunk_ids", n_chunks, np.int32),
            status=stream.upload("status", np.array([UNBROKEN, 0, 0], np.int64)),
            marks=stream.empty("marks", n + 1, np.uint8),
            path=stream.empty("path", (num_samples, n), np.int32),
        )
        if batch.chunk_ids is None:
            job.chunk_ids.fill(-1)
        else:
            job.chunk_ids = stream.upload("chunk_ids", batch.chunk_ids)
        job.marks.fill(0)
        job.path.fill(NO_ARC)
        chunks = {"chunk_offsets": job.chunk_offsets, "chunk_ids": job.chunk_ids, "n_chunks": n_chunks}
        self._threads("mark_chunks", n_chunks + 1, **chunks, marks=job.marks)
        if is_on_device(batch.values) and self._pre_tokens is not None:
            self._pre_tokens.mark(job.values, job.doc_offsets, job.marks)
        if batch.chunk_ids is not None:
            self._threads("place_tokens", n_chunks * num_samples, **chunks, n=n, num_samples=num_samples, path=job.path)
        find(job)
        self._measure(job, stream.upload("is_null", is_null), num_samples)
        return job

    def _cut(self, job: Job) -> None:
        job.cuts = job.stream.empty("cuts", _whole_words(job.n + 1), np.uint8)
        self._find_cuts(job.values, job.marks, job.cuts)

    def _find_merges(self, job: Job) -> None:
        job.cuts = job.marks
        if self._canonical_ids.by_cuts:
            self._cut(job)
        self._canonical_ids.find(job, self._trie(), self._threads)

    @cached_property
    def _canonical_ids(self) -> CanonicalIds:
        assert self._tables.merges is not None
        return CanonicalIds(self._device, self._tables.merges, self._tables.made, STRETCH, self._upload_trie)

    def _find_best(self, job: Job) -> None:
        self._cut(job)
        self._best_paths.find(job, self._trie(), self._length_of, self._arcs(job.stream), self._threads, self._warps)

    def _find_samples(
        self, job: Job, tables: SampleTables, num_samples: int, seed: int, doc_ids: NDArray[np.uint64]
    ) -> None:
        stream, n = job.stream, job.n
        self._cut(job)
        job.z, job.exponents = stream.empty("z", n, np.float64), stream.empty("exponents", n, np.int64)
        stretches = -(-n // STRETCH)
        sums = {"values": job.values, "n": n, "nodes": tables.nodes, "unk_weight": tables.unk_weight, "z": job.z}
        listed = {"long_starts": stream.empty("long_starts", n, np.uint32), "n_long": job.n_long}
        # One buffer of arcs for both warp kernels: they run one after the other in the stream.
        long = {
            **listed,
            "long_stops": stream.empty("long_stops", n, np.uint32),
            "exponents": job.exponents,
            **self._arcs(stream),
        }
        bounds = {"z_low": tables.z_low, "z_high": tables.z_high}
        self._threads("forward", stretches, **sums, **listed, **bounds, cuts=job.cuts, no_path=job.no_path)
        self._warps("forward_long", **sums, **long, cuts=job.cuts, no_path=job.no_path)
        draws = {
            "piece_at": self._piece_at,
            "inverses": tables.inverses,
            "unk_inverse": tables.unk_inverse,
            "doc_offsets": job.doc_offsets,
            "doc_ids": stream.upload("doc_ids", doc_ids),
            "n_docs": job.n_docs,
            "seed": np.uint64(seed),
            "num_samples": num_samples,
            "path": job.path,
        }
        self._threads("trace", stretches * num_samples, **sums, **draws, cuts=job.cuts)
        self._warps("trace_long", **sums, **draws, **long)

    def _weigh(self, job: Job, tables: SampleTables, num_samples: int) -> None:
        """The same parts, hence the same sums, as on the CPU."""
        stream, batch, low = job.stream, job.part.batch, job.low
        if is_on_device(batch.values):
            texts = TextBatch(batch.values[low : low + job.n], batch.offsets - low)
            batch, low = self._model.normalizer(texts.on_host()), 0
        part_offsets, job.part_doc, _ = plan_parts(batch_of(batch), self._tables.pieces, PART_BYTES)
        n_parts = len(job.part_doc)
        job.parts = {
            "part_logs": stream.empty("part_logs", (n_parts, num_samples), np.float64),
            "part_z": stream.empty("part_z", n_parts, np.float64),
            "part_exponents": stream.empty("part_exponents", n_parts, np.int64),
        }
        self._threads(
            "weigh_parts", n_parts * num_samples,
            cuts=job.cuts, n=job.n, num_samples=num_samples, path=job.path, z=job.z, exponents=job.exponents,
            part_offsets=stream.upload("part_offsets", part_offsets, minus=low), n_parts=n_parts,
            log_weights=tables.log_weights, unk_log_weight=tables.unk_log_weight, **job.parts,
        )  # fmt: skip

    def _measure(self, job: Job, is_null: Any, num_samples: int) -> None:
        stream, xp = job.stream, self._device.xp
        n_rows = len(job.row_offsets) - 1
        groups, rows = -(-job.n // GROUP) * num_samples, n_rows * num_samples
        counts, job.sums = stream.empty("counts", groups, np.int64), stream.empty("sums", groups, np.int64)
        lengths, job.first_ids = stream.empty("lengths", rows, np.int64), stream.empty("first_ids", rows, np.int64)
        job.offsets = stream.empty("offsets", rows + 1, np.int64)
        if self._by_run and groups:
            self._judge_runs(job, num_samples, counts)
        job.begun = stream.empty("begun", groups, np.uint32)
        self._threads("count_ids", groups, **self._ids(job, num_samples), counts=counts, begun=job.begun)
        if groups:
            xp.cumsum(counts, out=job.sums)
        self._threads(
            "measure_rows", rows, **self._ids(job, num_samples),
            sums=job.sums, begun=job.begun, doc_offsets=job.row_offsets, n_docs=n_rows, is_null=is_null,
            n_around=0 if job.of_words else len(self._before) + len(self._after), lengths=lengths,
            first_ids=job.first_ids,
        )  # fmt: skip
        job.offsets[:1] = 0
        if rows:
            xp.cumsum(lengths, out=job.offsets[1:])
        job.status[2:] = job.offsets[-1:]

    def _judge_runs(self, job: Job, num_samples: int, counts: Any) -> None:
        """Decide what every run of unknown arcs becomes; counts is scratch space."""
        stream, tables = job.stream, self._tables
        paths = self._paths(job, num_samples)
        job.run_sums = stream.empty("run_sums", len(counts), np.int64)
        job.runs = stream.empty("runs", num_samples * job.n, np.int32)
        job.runs.fill(TO_BYTES if self._some_bytes else TO_UNKNOWN)
        self._threads("count_runs", len(counts), **paths, run_counts=counts)
        self._device.xp.cumsum(counts, out=job.run_sums)
        self._threads(
            "judge_runs", len(counts), **paths,
            run_sums=job.run_sums, byte_ids=self._byte_ids, some_missing=self._some_bytes > self._spells,
            look_up=tables.pieces.look_up, longest=tables.pieces.longest, nodes=self._best_nodes(),
            piece_at=self._piece_at, runs=job.runs,
        )  # fmt: skip

    def _paths(self, job: Job, num_samples: int) -> dict[str, Any]:
        """Arguments of all kernels in emit.cu that read paths."""
        paths = {"values": job.values, "cuts": job.cuts, "n": job.n, "num_samples": num_samples, "path": job.path}
        return paths | self._unknown

    def _ids(self, job: Job, num_samples: int) -> dict[str, Any]:
        """Further arguments of those that count or place ids."""
        unknown = {"byte_ids": self._byte_ids, "spells": self._spells, "apart": self._tables.pieces.apart}
        runs = {"run_sums": job.run_sums, "runs": job.runs}
        return self._paths(job, num_samples) | unknown | runs

    def _finish(self, job: Job, output: Output, share: float, num_samples: int, weighed: bool) -> None:
        """Wait for the job, and write its rows to the output."""
        stream = job.stream
        no_path, _, total = stream.download(job.status).tolist()
        if no_path < UNBROKEN:
            raise NoPathError(job.low + no_path)
        ids, offsets = output.room(total, share), job.offsets
        stream.follow_caller()
        with stream:
            if total:
                self._threads(
                    "place_ids", len(job.sums), **self._ids(job, num_samples),
                    sums=job.sums, begun=job.begun, doc_offsets=job.row_offsets, n_docs=len(job.row_offsets) - 1,
                    first_ids=job.first_ids, offsets=offsets, n_before=0 if job.of_words else len(self._before),
                    ids=ids,
                )  # fmt: skip
            if total and not job.of_words:
                self._threads(
                    "place_around", len(offsets) - 1,
                    offsets=offsets, n_rows=len(offsets) - 1, before=self._before, n_before=len(self._before),
                    after=self._after, n_after=len(self._after), ids=ids,
                )  # fmt: skip
            log_prob = None
            if weighed:
                logs, z, exponents = (stream.download(array) for array in job.parts.values())
                log_z = np.log(z) + exponents * np.log(2.0)
                log_prob = log_probs(logs, log_z, job.part_doc, job.n_docs)
            output.add(total, offsets[1:], log_prob)
        stream.lead_caller()

    def _arcs(self, stream: Stream) -> dict[str, Any]:
        """Room for the arcs into a position, for every warp."""
        return {"arcs": stream.empty("arcs", self._n_warps * self._warp_bytes, np.uint8), "max_arcs": self._max_arcs}

    def _warps(self, kernel: str, **args: Any) -> None:
        """Launch a kernel that distributes listed work over a fixed number of warps."""
        self.launcher.blocks(kernel, self._n_warps, self._device.warp_threads, **args)

    def _trie(self) -> dict[str, Any]:
        """The trie with the scores of best paths."""
        return {"nodes": self._best_nodes(), "piece_at": self._piece_at}

    def _build_best_nodes(self) -> Any:
        return self._upload_nodes(self._best_paths.scores, self._best_paths.unk_score)

    def _build_sample_tables(self, alpha: float, token_penalty: float) -> SampleTables:
        vocabulary = self._tables.vocabulary
        tilt = vocabulary, alpha, token_penalty
        weights, logs = arc_weights(*tilt), log_weights(*tilt)
        used, inverses = weights[weights > 0], inverse_of(weights)
        return SampleTables(
            nodes=self._upload_nodes(weights[:-1], weights[-1]),
            unk_weight=float(weights[-1]),
            inverses=self._device.upload(inverses[:-1]),
            unk_inverse=float(inverses[-1]),
            # Within these bounds no product with a weight leaves the normal range, nor does a target: unless it is 0,
            # it is at e at least 2**-53 of the first arc into some later position, so 2**-653 of Z there and at e.
            z_low=float(2.0**-300 / min(1.0, used.min(initial=1.0))),
            z_high=float(2.0**300 / max(1.0, used.max(initial=1.0))),
            log_weights=self._device.upload(logs[:-1]),
            unk_log_weight=float(logs[-1]),
        )

    def _upload_nodes(self, values: NDArray[np.float64], unk_value: float) -> Any:
        """The trie with the value of each piece at its node, and that of an unknown arc at other symbols'."""
        pieces = self._tables.pieces
        at_nodes = np.full(len(pieces.piece_at), np.nan)
        at_nodes[symbol_nodes(pieces.slots, pieces.is_bytes)] = unk_value
        return self._upload_trie(pieces.slots, np.where(pieces.piece_at >= 0, values[pieces.piece_at], at_nodes))

    def _upload_trie(self, slots: NDArray[np.int32], values: NDArray[np.float64]) -> Any:
        """values: at the nodes, NaN where no arc ends."""
        nodes = np.empty(len(values), NODE)
        nodes["base"], nodes["check"], nodes["value"] = slots[0::2], slots[1::2], values
        return self._device.upload(nodes.view(np.uint8))


def symbol_nodes(slots: NDArray[np.int32], is_bytes: bool) -> NDArray[np.int64]:
    """The nodes of a trie that one symbol leads to, a byte or a character."""
    bases, parents = slots[0::2], slots[1::2]
    level, found = np.zeros(1, np.int64), []
    for _ in range(1 if is_bytes else 4):
        nodes = np.flatnonzero(np.isin(parents, level))
        is_whole = is_bytes | ((nodes - bases[parents[nodes]] & 0xC0) != 0x80)
        found.append(nodes[is_whole])
        level = nodes[~is_whole]
    return np.concatenate(found)


def most_arcs(slots: NDArray[np.int32], piece_at: NDArray[np.int32]) -> int:
    """The most arcs that one position can have: pieces on a path from the root, and one unknown arc."""
    above = np.maximum(slots[1::2], 0).astype(np.int64)
    arcs = (piece_at >= 0).astype(np.int64)
    # Each round adds the counts twice as far up; the root is its own parent and counts nothing.
    while above.any():
        arcs += arcs[above]
        above = above[above]
    return int(arcs.max()) + 1


def _whole_words(n_bytes: int) -> int:
    """Bytes of as many as are read at a time."""
    return -(-n_bytes // 8) * 8
