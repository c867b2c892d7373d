"""Reading, segmenting, fetching ids and writing at once, each a bounded number of batches ahead of the next."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from gpu_lattice.corpus.bad_rows import BadRows
from gpu_lattice.corpus.job import Job, Piece, Shard
from gpu_lattice.corpus.manifest import Notes, Record
from gpu_lattice.corpus.outputs import ShardOutput
from gpu_lattice.corpus.progress import Progress
from gpu_lattice.corpus.readers import read_documents
from gpu_lattice.corpus.segmenting import segmented
from gpu_lattice.corpus.sequences import Rows

T = TypeVar("T")

# How many groups of documents wait between two stages.
QUEUE = 1
# Of the small files that are segmented together, no more than this.
MOST_PIECES = 512
# How many threads complete files, and how many files may wait for them.
ENDERS, MOST_ENDING = 8, 32


class Done(NamedTuple):
    """What of the input has been written."""

    bytes: int
    documents: int
    tokens: int


def run_shards(
    job: Job, shards: Sequence[Shard], progress: Progress, let_interrupts_in: Callable[[], None]
) -> Iterator[Record]:
    """Do the shards in order; yields the record of each once its files are complete.

    Interrupts take effect between batches. After an error nothing remains of the shards that are not complete, and
    those before the one that failed are.
    """
    records: deque[Record] = deque()
    with (
        closing(_groups(job, shards)) as read,
        ThreadPoolExecutor(1, "gpu-lattice-read") as reader,
        ThreadPoolExecutor(1, "gpu-lattice-fetch") as fetcher,
        ThreadPoolExecutor(1, "gpu-lattice-write") as writer,
        closing(_ahead(read, reader)) as groups,
    ):
        writing = _Writing(job, records)
        written: deque[Future[Done]] = deque()
        try:
            for group in groups:
                let_interrupts_in()
                rows = fetcher.submit(segmented(job, group))
                written.append(writer.submit(writing.write, group, rows))
                del group, rows  # tens of megabytes that the next batch needs
                while len(written) > QUEUE or (written and written[0].done()):
                    progress.advance(*written.popleft().result())
                yield from _drained(records)
            while written:
                progress.advance(*written.popleft().result())
            let_interrupts_in()
            writer.submit(writing.end).result()
            yield from _drained(records)
        finally:
            # What has been read and segmented is written first: it may complete a shard.
            writer.submit(writing.abort).result()


def _drained(records: deque[Record]) -> Iterator[Record]:
    while records:
        yield records.popleft()


def _ahead(items: Iterator[T], pool: ThreadPoolExecutor) -> Generator[T, None, None]:
    """The same items; while one is processed, the next are made."""
    coming = deque(pool.submit(next, items, None) for _ in range(QUEUE))
    while (item := coming.popleft().result()) is not None:
        coming.append(pool.submit(next, items, None))
        yield item
        del item


def _groups(job: Job, shards: Sequence[Shard]) -> Generator[list[Piece], None, None]:
    """Pieces of shards, one after another, as many as fit into a batch: small files are segmented together."""
    group: list[Piece] = []
    room = job.reading.batch_bytes
    try:
        for piece in _pieces(job, shards):
            cost = 0 if piece.documents is None else _text_bytes(piece.documents.texts)
            if group and (cost > room or len(group) >= MOST_PIECES):
                yield group
                group, room = [], job.reading.batch_bytes
            group.append(piece)
            room -= cost
    except Exception:
        if group:  # what was read before the file that cannot be read
            yield group
        raise
    if group:
        yield group


def _pieces(job: Job, shards: Sequence[Shard]) -> Iterator[Piece]:
    for shard in shards:
        bad = BadRows(job.on_error == "replace")
        rejected = None if job.on_error == "raise" else bad
        position = 0
        for documents in read_documents(shard.file, job.reading, span=shard.span, bad=rejected):
            consumed = max(0, min(documents.position, shard.size or documents.position) - position)
            position += consumed
            yield Piece(shard, documents, bad, consumed)
        yield Piece(shard, None, bad, max(0, shard.size - position))


def _text_bytes(texts: pa.Array) -> int:
    return pc.sum(pc.binary_length(texts)).as_py() or 0


class _Writing:
    """The shards that are being written, in the thread that writes them: one at a time.

    Others complete them meanwhile: for small files, most of the time goes by until the disk has them.
    """

    def __init__(self, job: Job, records: deque[Record]) -> None:
        self._job, self._records, self._notes = job, records, Notes(job.manifest)
        self._lock = threading.Lock()
        self._enders = ThreadPoolExecutor(ENDERS, "gpu-lattice-end")
        self._ending: deque[Future[Record]] = deque()
        self._output: ShardOutput | None = None
        self._has_failed = self._has_begun = False
        self._documents = self._text_bytes = 0

    def write(self, group: list[Piece], rows: Future[list[Rows | None]]) -> Done:
        if self._has_failed:
            return Done(0, 0, 0)
        try:
            return self._write(group, rows.result())
        except BaseException:
            self._has_failed = True
            raise

    def _write(self, group: list[Piece], rows: list[Rows | None]) -> Done:
        tokens = 0
        for piece, one in zip(group, rows, strict=True):
            if self._output is None:
                self._output = self._opened(piece.shard, one)
                self._documents = self._text_bytes = 0
            if one is not None and piece.documents is not None:
                self._documents += len(piece.documents.texts)
                self._text_bytes += _text_bytes(piece.documents.texts)
                self._output.write(one)
                tokens += int(one.offsets[-1] - one.offsets[0])
            elif piece.documents is None:
                counts = {"documents": self._documents, "text_bytes": self._text_bytes}
                self._output.write_rest()
                self._ending.append(self._enders.submit(self._finished, self._output, piece, counts))
                self._output = None
                self._collect(MOST_ENDING)
        return Done(sum(piece.consumed for piece in group), sum(piece.num_documents for piece in group), tokens)

    def end(self) -> None:
        """Wait until all shards are complete, and noted."""
        self._collect(0)
        self._notes.flush()

    def abort(self) -> None:
        """Complete the shards of which all has been written, and remove the one that has more to come."""
        self._enders.shutdown()
        with suppress(Exception):  # as on a full disk: what is not noted is done again
            self._notes.flush()
        if self._output is not None:
            self._output.abort()
            self._output = None

    def _collect(self, most: int) -> None:
        while len(self._ending) > most or (self._ending and self._ending[0].done()):
            self._records.append(self._ending.popleft().result())

    def _opened(self, shard: Shard, first: Rows | None) -> ShardOutput:
        columns: dict[str, Any] = {"id": self._id_type(first), "sample": pa.int32()}
        described = metadata(self._job, shard)
        return ShardOutput(self._job.manifest, self._job.output, shard.stem, columns, described, self._begin)

    def _begin(self) -> None:
        """Called by the threads that complete files, when the first one's content has been written."""
        with self._lock:
            if not self._has_begun:
                self._job.manifest.begin()
                self._has_begun = True

    def _finished(self, output: ShardOutput, piece: Piece, counts: dict[str, int]) -> Record:
        try:
            record = output.finish(piece.shard.number, piece.bad, piece.shard.file.relative, **counts)
        except BaseException:
            output.abort()
            raise
        self._notes.add(record)
        return record

    def _id_type(self, first: Rows | None) -> pa.DataType:
        if first is not None:
            return first.columns["id"].type
        return pa.int64() if self._job.reading.id_column is None else pa.string()


def metadata(job: Job, shard: Shard) -> dict[str, str]:
    """What a file says of how it was made."""
    return {"gpu_lattice": json.dumps({**job.manifest.settings, "input": shard.file.relative})}
