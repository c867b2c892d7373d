"""Documents to rows of ids: what draws depend on, several files in one call, and documents that have no path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gpu_lattice.corpus.documents import Documents
from gpu_lattice.corpus.draws import document_ids, row_ids
from gpu_lattice.corpus.job import Job, Piece
from gpu_lattice.corpus.sequences import Rows
from gpu_lattice.runtime.on_host import fetched
from gpu_lattice.token_batch import TokenBatch, checked_tokens


def segmented(job: Job, group: list[Piece]) -> Callable[[], list[Rows | None]]:
    """What gives the rows of each piece, None for the mark of a shard's end.

    Called by another thread, it brings the ids of this group from a device while the next group is worked on there.
    """
    pieces = [piece for piece in group if piece.documents is not None]
    if not pieces:
        return lambda: [None] * len(group)
    ids = [_doc_ids(job, piece) for piece in pieces]
    try:
        batch = _fetched(_draw(job, _joined_texts(pieces), np.concatenate(ids)))
    except ValueError as error:
        if len(pieces) > 1:
            alone = [segmented(job, [piece]) for piece in group]
            return lambda: [rows()[0] for rows in alone]
        known = [None if piece.documents is None else _salvaged(job, piece, ids[0], error) for piece in group]
        return lambda: known

    def rows() -> list[Rows | None]:
        out = batch()
        bounds = np.cumsum([0, *(piece.num_documents for piece in pieces)]) * job.draw.num_samples
        parts = iter(_slice(out, start, stop) for start, stop in pairwise(bounds.tolist()))
        return [None if piece.documents is None else _rows(job, piece, next(parts)) for piece in group]

    return rows


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
    return _rows(job, piece._replace(documents=rest), _fetched(_draw(job, texts, ids[kept]))())


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
        token_penalty=draw.token_penalty,
        rate=draw.rate,
        truncation=False,
    )


def _fetched(out: TokenBatch) -> Callable[[], TokenBatch]:
    ids, offsets = fetched(out.ids), fetched(out.offsets)
    return lambda: checked_tokens(replace(out, ids=ids(), offsets=offsets()))


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
