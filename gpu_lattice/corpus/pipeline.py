"""Reading, segmenting and writing at once, each a bounded number of batches ahead of the next."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpu_lattice.corpus.bad_rows import BadRows, OnError
from gpu_lattice.corpus.documents import Documents, ReaderOptions, Span
from gpu_lattice.corpus.draws import document_ids, row_ids
from gpu_lattice.corpus.inputs import InputFile
from gpu_lattice.corpus.manifest import Manifest, Record
from gpu_lattice.corpus.outputs import OutputOptions, ShardOutput
from gpu_lattice.corpus.progress import Progress
from gpu_lattice.corpus.readers import read_documents
from gpu_lattice.corpus.sequences import Rows
from gpu_lattice.token_batch import TokenBatch, checked_tokens, on_host

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.tokenizer import Tokenizer

T = TypeVar("T")

# How many groups of documents wait between two stages.
QUEUE = 1
# Of the small files that are segmented together, no more than this.
MOST_PIECES = 512
# How many threads complete files, and how many files may wait for them.
ENDERS, MOST_ENDING = 8, 32


@dataclass(frozen=True)
class Shard:
    """What one input file gives, or some row groups of it.

    stem    the path of its files below the output folder, without what their format appends
    size    bytes of the input, as stored
    """

    number: int
    file: InputFile
    span: Span | None
    stem: str
    size: int


@dataclass(frozen=True)
class Draw:
    """How documents become tokens; alpha None: the best segmentation."""

    alpha: float | None
    nbest_size: int
    num_samples: int
    seed: int
    verify: bool


@dataclass(frozen=True)
class Job:
    """Everything that a process needs to do shards."""

    tokenizer: Tokenizer
    manifest: Manifest
    reading: ReaderOptions
    draw: Draw
    output: OutputOptions
    on_error: OnError


class Piece(NamedTuple):
    """Documents of one shard, None after its last; bad: the shard's bad rows so far; consumed: bytes of its file."""

    shard: Shard
    documents: Documents | None
    bad: BadRows
    consumed: int


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
        ThreadPoolExecutor(1, "gpu-lattice-write") as writer,
        closing(_ahead(read, reader)) as groups,
    ):
        writing = _Writing(job, records)
        written: deque[Future[None]] = deque()
        try:
            for group in groups:
                let_interrupts_in()
                rows = _segmented(job, group)
                for piece, one in zip(group, rows, strict=True):
                    progress.advance(piece.consumed, 0 if one is None else _num_documents(piece), _num_tokens(one))
                written.append(writer.submit(writing.write, group, rows))
                del group, rows  # tens of megabytes that the next batch needs
                while len(written) > QUEUE or (written and written[0].done()):
                    written.popleft().result()
                yield from _drained(records)
            while written:
                written.popleft().result()
            let_interrupts_in()
            writer.submit(writing.end).result()
            yield from _drained(records)
        finally:
            # What has been read and segmented is written first: it may complete a shard.
            writer.submit(writing.abort).result()


def _drained(records: deque[Record]) -> Iterator[Record]:
    while records:
        yield records.popleft()


def _num_documents(piece: Piece) -> int:
    return 0 if piece.documents is None else len(piece.documents.texts)


def _num_tokens(rows: Rows | None) -> int:
    return 0 if rows is None else int(rows.offsets[-1] - rows.offsets[0])


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


def _segmented(job: Job, group: list[Piece]) -> list[Rows | None]:
    """The rows of each piece; None for the mark of a shard's end."""
    pieces = [piece for piece in group if piece.documents is not None]
    if not pieces:
        return [None] * len(group)
    ids = [_doc_ids(job, piece) for piece in pieces]
    try:
        out = checked_tokens(_on_host(_draw(job, _joined_texts(pieces), np.concatenate(ids))))
    except ValueError as error:
        if len(pieces) > 1:
            return [_segmented(job, [piece])[0] for piece in group]
        return [None if piece.documents is None else _salvaged(job, piece, ids[0], error) for piece in group]
    bounds = np.cumsum([0, *(_num_documents(piece) for piece in pieces)]) * job.draw.num_samples
    parts = iter(_slice(out, start, stop) for start, stop in pairwise(bounds.tolist()))
    return [None if piece.documents is None else _rows(job, piece, next(parts)) for piece in group]


def _salvaged(job: Job, piece: Piece, ids: NDArray[np.int64], error: ValueError) -> Rows:
    """The rows of a piece that has a document without a segmentation: an error, or one of its bad rows."""
    documents = piece.documents
    assert documents is not None
    if job.on_error == "raise":
        n, first = len(documents.texts), documents.rows[0]
        raise ValueError(f"{piece.shard.file.url}, in the {n} documents from number {first} on: {error}") from error
    is_bad = np.zeros(len(documents.texts), np.bool_)
    for i_doc, reason in _unspellable(job, documents.texts, ids, 0, len(ids)):
        is_bad[i_doc] = True
        piece.bad.add(int(documents.rows[i_doc]), reason)
    kept = np.arange(len(ids)) if piece.bad.replace else np.flatnonzero(~is_bad)
    texts = documents.texts.take(pa.array(kept, mask=is_bad[kept]))
    ids_column = None if documents.ids is None else documents.ids.take(pa.array(kept))
    rest = Documents(texts, ids_column, documents.rows[kept], documents.position)
    out = checked_tokens(_on_host(_draw(job, texts, ids[kept])))
    return _rows(job, piece._replace(documents=rest), out)


def _unspellable(job: Job, texts: pa.Array, ids: NDArray[np.int64], start: int, stop: int) -> Iterator[tuple[int, str]]:
    """(document, why) of those that the tokenizer refuses, found by halves."""
    try:
        _draw(job, texts[start:stop], ids[start:stop])
    except ValueError as error:
        if stop - start == 1:
            yield start, str(error)
            return
        middle = (start + stop) // 2
        yield from _unspellable(job, texts, ids, start, middle)
        yield from _unspellable(job, texts, ids, middle, stop)


def _joined_texts(pieces: Sequence[Piece]) -> pa.Array:
    texts = [piece.documents.texts for piece in pieces if piece.documents is not None]
    if len({array.type for array in texts}) > 1:
        texts = [array.cast(pa.large_binary()) for array in texts]
    return pa.concat_arrays(texts) if len(texts) > 1 else texts[0]


def _doc_ids(job: Job, piece: Piece) -> NDArray[np.int64]:
    documents = piece.documents
    assert documents is not None
    if documents.ids is None:
        return row_ids(piece.shard.file.relative, documents.rows)
    if documents.ids.null_count and job.on_error == "raise":
        row = documents.rows[documents.ids.is_null().to_numpy(zero_copy_only=False).argmax()]
        raise ValueError(f"{piece.shard.file.url}: an id is null (row {row}); give every document an id")
    if documents.ids.null_count:  # of replaced rows, whose texts are null: nothing is drawn for them
        nothing = "" if pa.types.is_string(documents.ids.type) or pa.types.is_large_string(documents.ids.type) else 0
        return document_ids(pc.fill_null(documents.ids, nothing), piece.shard.file.url)
    return document_ids(documents.ids, piece.shard.file.url)


def _draw(job: Job, texts: pa.Array, doc_ids: NDArray[np.int64]) -> TokenBatch:
    draw = job.draw
    if draw.alpha is None:
        return job.tokenizer.encode(texts, truncation=False)
    return job.tokenizer.sample(
        texts,
        alpha=draw.alpha,
        nbest_size=draw.nbest_size,
        num_samples=draw.num_samples,
        seed=draw.seed,
        doc_ids=doc_ids,
        truncation=False,
    )


def _on_host(out: TokenBatch) -> TokenBatch:
    return replace(out, ids=on_host(out.ids), offsets=on_host(out.offsets))


def _slice(out: TokenBatch, start: int, stop: int) -> TokenBatch:
    valid = None if out.valid is None else out.valid[start:stop]
    return TokenBatch(out.ids, out.offsets[start : stop + 1], None, valid)


def _rows(job: Job, piece: Piece, out: TokenBatch) -> Rows:
    documents, num_samples = piece.documents, job.draw.num_samples
    assert documents is not None
    ids = pa.array(row_ids(piece.shard.file.relative, documents.rows)) if documents.ids is None else documents.ids
    if job.draw.verify:
        _verify(job, piece, documents, ids, out)
    n = len(documents.texts)
    samples = np.tile(np.arange(num_samples, dtype=np.int32), n)
    ids = ids if num_samples == 1 else ids.take(pa.array(np.repeat(np.arange(n), num_samples)))
    num_tokens = np.diff(out.offsets).astype(np.int32)
    return Rows({"id": ids, "sample": pa.array(samples)}, out.ids, out.offsets, num_tokens, out.valid)


def _verify(job: Job, piece: Piece, documents: Documents, ids: pa.Array, out: TokenBatch) -> None:
    row = job.tokenizer.verify(documents.texts, out)
    if row is not None:
        i_doc, sample = divmod(row, job.draw.num_samples)
        raise ValueError(
            f"{piece.shard.file.url}: the tokens of document {ids[i_doc].as_py()!r}, sample {sample}, "
            "do not spell its normalized text: a bug, please report it with the document and the model"
        )


class _Writing:
    """The shards that are being written, in the thread that writes them: one at a time.

    Others complete them meanwhile: for small files, most of the time goes by until the disk has them.
    """

    def __init__(self, job: Job, records: deque[Record]) -> None:
        self._job, self._records = job, records
        self._enders = ThreadPoolExecutor(ENDERS, "gpu-lattice-end")
        self._ending: deque[Future[Record]] = deque()
        self._output: ShardOutput | None = None
        self._has_failed = self._has_begun = False
        self._documents = self._text_bytes = 0

    def write(self, group: list[Piece], rows: list[Rows | None]) -> None:
        if self._has_failed:
            return
        try:
            self._write(group, rows)
        except BaseException:
            self._has_failed = True
            raise

    def _write(self, group: list[Piece], rows: list[Rows | None]) -> None:
        for piece, one in zip(group, rows, strict=True):
            if self._output is None:
                self._output = self._opened(piece.shard, one)
                self._documents = self._text_bytes = 0
            if one is not None and piece.documents is not None:
                self._documents += len(piece.documents.texts)
                self._text_bytes += _text_bytes(piece.documents.texts)
                self._output.write(one)
            elif piece.documents is None:
                counts = {"documents": self._documents, "text_bytes": self._text_bytes}
                self._begin()
                self._ending.append(self._enders.submit(_finished, self._output, piece, counts))
                self._output = None
                self._collect(MOST_ENDING)

    def end(self) -> None:
        """Wait until all shards are complete."""
        self._collect(0)

    def abort(self) -> None:
        """Complete the shards of which all has been written, and remove the one that has more to come."""
        self._enders.shutdown()
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
        if not self._has_begun:
            self._job.manifest.begin()
            self._has_begun = True

    def _id_type(self, first: Rows | None) -> pa.DataType:
        if first is not None:
            return first.columns["id"].type
        return pa.int64() if self._job.reading.id_column is None else pa.string()


def _finished(output: ShardOutput, piece: Piece, counts: dict[str, int]) -> Record:
    try:
        return output.finish(piece.shard.number, piece.bad, piece.shard.file.relative, **counts)
    except BaseException:
        output.abort()
        raise


def metadata(job: Job, shard: Shard) -> dict[str, str]:
    """What a file says of how it was made."""
    return {"gpu_lattice": json.dumps({**job.manifest.settings, "input": shard.file.relative})}
