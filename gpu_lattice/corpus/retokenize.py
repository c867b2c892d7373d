"""Corpus files in, one Parquet file of token ids for each out, streamed in bounded memory."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpu_lattice.corpus.readers import Documents, ReaderOptions, check_columns, expand_inputs, read_documents, stem_of
from gpu_lattice.corpus.writers import ParquetRows
from gpu_lattice.runtime.arguments import checked_alpha, checked_integer
from gpu_lattice.runtime.files import locked, remove_leftovers
from gpu_lattice.runtime.interrupts import put_off_interrupts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.token_batch import TokenBatch
    from gpu_lattice.tokenizer import Tokenizer

# Twice as much still fits into 64 bits.
MOST_BATCH_BYTES = 2**62


@dataclass(frozen=True)
class Summary:
    """The results of a run.

    documents   rows of the inputs, nulls too
    num_bytes   bytes of their texts
    rows        rows written, documents * num_samples
    tokens      ids written
    seconds     wall time
    outputs     the files written, in the order of the inputs
    """

    documents: int
    num_bytes: int
    rows: int
    tokens: int
    seconds: float
    outputs: tuple[Path, ...]

    @property
    def bytes_per_token(self) -> float:
        """Average bytes of text per token; 0 without tokens."""
        return self.num_bytes * self.rows / max(1, self.documents) / self.tokens if self.tokens else 0.0

    @property
    def megabytes_per_second(self) -> float:
        """Text read per second, in 10^6 bytes, however many samples are drawn from it."""
        return self.num_bytes / 1e6 / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"{self.documents} documents, {self.num_bytes} bytes, {self.tokens} tokens, "
            f"{self.bytes_per_token:.3f} bytes/token, {self.megabytes_per_second:.1f} MB/s"
        )


@dataclass(frozen=True)
class _Draw:
    """How a batch becomes tokens."""

    tokenizer: Tokenizer
    alpha: float | None
    nbest_size: int
    num_samples: int
    seed: int
    verify: bool


@dataclass(frozen=True)
class _Rows:
    """A batch ready to be written."""

    ids: pa.Array
    samples: pa.Array
    tokens: pa.Array


def retokenize(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer,
    alpha: float | None = None,
    nbest_size: int = -1,
    num_samples: int = 1,
    seed: int = 0,
    text_column: str = "text",
    id_column: str | None = None,
    batch_bytes: int = 64 << 20,
    separator: str | bytes | None = None,
    verify: bool = False,
    progress: bool = True,
    overwrite: bool = False,
) -> Summary:
    """Segment every document of the inputs; write DIR/<stem>.parquet for each input file.

    inputs       Parquet, JSONL (.gz, .zst) and plain text files, folders of them, glob patterns
    output       the folder to write to; made if it does not exist
    alpha        None: the best segmentation; else samples, as in Tokenizer.sample
    nbest_size   -1: samples from all segmentations; else from the best ones only, as in Tokenizer.sample
    num_samples  K rows for each document, sample 0 to K - 1
    id_column    the column that names documents; None: the row's number across all inputs, from 0
    batch_bytes  most text at a time, counted num_samples times; it bounds memory and changes no token
    separator    what separates documents in plain text; None: line ends
    verify       check that every row spells its normalized text
    progress     show a bar on stderr
    overwrite    replace existing output files

    The columns are `id` (int64, or as the id column), `sample` (int32), `input_ids` (list<int32>) and `num_tokens`
    (int32); a null text has null input_ids and 0 tokens. The doc id for sampling is the row number; with an id
    column, the integer itself, or for a string the BLAKE2b digest of its UTF-8 (8 bytes, little-endian): with an id
    column, a file processed again on its own gives the same tokens.

    An output file appears under its name when it is complete; what fails or is interrupted leaves none behind, and
    those of earlier inputs stay. What a run that was killed has left in the folder is removed. SIGTERM and SIGHUP, if
    the program does not handle them itself, raise SystemExit between batches. Raises ValueError for a missing column,
    an unreadable file or wrong options, OSError for a full disk, and BlockingIOError while another run writes there.

    Example:
        >>> summary = retokenize("corpus/*.jsonl.zst", "tokens", tokenizer=Tokenizer.default(), alpha=0.2)
    """
    if alpha is None and num_samples != 1:
        raise ValueError(
            f"num_samples is {num_samples}, but without alpha there is one best segmentation; give alpha too"
        )
    if alpha is None and nbest_size >= 0:
        raise ValueError(f"nbest_size is {nbest_size}, but without alpha nothing is sampled; give alpha too")
    if alpha is not None:
        checked_alpha(alpha)
    batch_bytes = checked_integer("batch_bytes", batch_bytes, 1, MOST_BATCH_BYTES)
    num_samples = checked_integer("num_samples", num_samples, 1, 2**31 - 1)
    options = ReaderOptions(
        text_column=text_column,
        id_column=id_column,
        batch_bytes=max(1, batch_bytes // num_samples),
        separator=separator.encode() if isinstance(separator, str) else separator,
    )
    paths, folder = expand_inputs([inputs] if isinstance(inputs, str | os.PathLike) else inputs), Path(output)
    _targets(paths, folder, overwrite)
    for path in paths:
        check_columns(path, options)
    folder.mkdir(parents=True, exist_ok=True)
    draw = _Draw(tokenizer, alpha, nbest_size, num_samples, seed, verify)
    total = Summary(0, 0, 0, 0, 0.0, ())
    with locked(folder), _Bar(sum(path.stat().st_size for path in paths), progress) as bar:
        targets = _targets(paths, folder, overwrite)  # again, now that no other run can create any
        remove_leftovers(folder)
        bar.show("loading kernels")
        _warm_up(draw)
        bar.restart()
        start = time.perf_counter()
        with put_off_interrupts() as let_interrupts_in:
            for path, target in zip(paths, targets, strict=True):
                total = _retokenize_file(path, target, options, draw, total, bar, let_interrupts_in)
    return replace(total, seconds=time.perf_counter() - start, outputs=tuple(targets))


def _warm_up(draw: _Draw) -> None:
    """Compile the kernels, as the first call after an installation does, before the clock starts."""
    document = Documents(pa.array(["a"], pa.large_string()), None, 0)
    with suppress(ValueError):  # A model that cannot spell "a" has still compiled them.
        _tokenize(document, 0, Path(), replace(draw, verify=False))


def _targets(paths: list[Path], output: Path, overwrite: bool) -> list[Path]:
    """One output path per input, all different, none of them an input or existing already."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"the output {output} is a file; name a folder")
    input_of: dict[Path, Path] = {}
    files = {path.resolve() for path in paths}
    for path in paths:
        target = output / f"{stem_of(path)}.parquet"
        if target in input_of:
            raise ValueError(
                f"{input_of[target]} and {path} would both be written to {target}; "
                "rename one of them, or write them to separate folders"
            )
        if target.resolve() in files:
            raise ValueError(f"the output {target} is an input as well; write to another folder")
        if target.exists() and not overwrite:
            raise ValueError(f"{target} exists; remove it, write to another folder, or allow overwriting (--overwrite)")
        input_of[target] = path
    return list(input_of)


def _retokenize_file(
    path: Path,
    target: Path,
    options: ReaderOptions,
    draw: _Draw,
    total: Summary,
    bar: _Bar,
    let_interrupts_in: Callable[[], None],
) -> Summary:
    """Read ahead, tokenize and write in parallel, each one batch at a time; returns the new totals.

    Interrupts take effect between batches, and before the file is complete.
    """
    with (
        ThreadPoolExecutor(1, "gpu-lattice-read") as reader,
        closing(_ahead(read_documents(path, options), reader)) as batches,
    ):
        batch = next(batches, None)
        with (
            ParquetRows(target, _id_type(batch, options)) as rows,
            ThreadPoolExecutor(1, "gpu-lattice-write") as writer,
        ):
            written: Future[None] | None = None
            while batch is not None:
                let_interrupts_in()
                done = _tokenize(batch, total.documents, path, draw)
                if written is not None:
                    written.result()
                written = writer.submit(rows.write, done.ids, done.samples, done.tokens)
                total = _added(total, batch, done)
                bar.advance(batch.position, total.tokens)
                del batch, done  # tens of megabytes that the next batch needs
                batch = next(batches, None)
            if written is not None:
                written.result()
            let_interrupts_in()
    bar.finish_file(path.stat().st_size)
    return total


def _id_type(first: Documents | None, options: ReaderOptions) -> pa.DataType:
    if options.id_column is None:
        return pa.int64()
    return first.ids.type if first is not None and first.ids is not None else pa.string()


def _added(total: Summary, batch: Documents, done: _Rows) -> Summary:
    return replace(
        total,
        documents=total.documents + len(batch.texts),
        num_bytes=total.num_bytes + (pc.sum(pc.binary_length(batch.texts)).as_py() or 0),
        rows=total.rows + len(done.tokens),
        tokens=total.tokens + len(done.tokens.values),
    )


def _ahead(batches: Iterator[Documents], pool: ThreadPoolExecutor) -> Generator[Documents, None, None]:
    """The same batches; the next one is read while one is processed."""
    coming = pool.submit(next, batches, None)
    while (batch := coming.result()) is not None:
        coming = pool.submit(next, batches, None)
        yield batch


def _tokenize(batch: Documents, first_row: int, path: Path, draw: _Draw) -> _Rows:
    n = len(batch.texts)
    row_numbers = pa.array(np.arange(first_row, first_row + n))
    ids = row_numbers if batch.ids is None else batch.ids
    doc_ids = row_numbers.to_numpy() if batch.ids is None else document_ids(ids, path)
    try:
        if draw.alpha is None:
            out = draw.tokenizer.encode(batch.texts)
        else:
            out = draw.tokenizer.sample(
                batch.texts,
                alpha=draw.alpha,
                nbest_size=draw.nbest_size,
                num_samples=draw.num_samples,
                seed=draw.seed,
                doc_ids=doc_ids,
            )
    except ValueError as error:
        raise ValueError(f"{path}, in the {n} documents from number {first_row} on: {error}") from error
    if draw.verify:
        _verify(batch, out, ids, path, draw)
    repeated = np.repeat(np.arange(n), draw.num_samples)
    samples = np.tile(np.arange(draw.num_samples, dtype=np.int32), n)
    return _Rows(ids if draw.num_samples == 1 else ids.take(pa.array(repeated)), pa.array(samples), out.to_arrow())


def _verify(batch: Documents, out: TokenBatch, ids: pa.Array, path: Path, draw: _Draw) -> None:
    row = draw.tokenizer.verify(batch.texts, out)
    if row is not None:
        i_doc, sample = divmod(row, draw.num_samples)
        raise ValueError(
            f"{path}: the tokens of document {ids[i_doc].as_py()!r}, sample {sample}, "
            "do not spell its normalized text: a bug, please report it with the document and the model"
        )


def document_ids(ids: pa.Array, path: Path | str = "the id column") -> NDArray[np.int64]:
    """The 64-bit doc ids of an id column: integers as they are (modulo 2^64), strings by BLAKE2b.

    A string's doc id is the 8-byte BLAKE2b digest of its UTF-8, read little-endian. Raises ValueError for a null.

    Example:
        >>> document_ids(pa.array([7, -1])).tolist()
        [7, -1]
        >>> document_ids(pa.array(["a"])).tolist()
        [3405396810240292928]
    """
    if ids.null_count:
        row = ids.is_null().to_numpy(zero_copy_only=False).argmax()
        raise ValueError(f"{path}: an id is null (row {row} of its batch); give every document an id")
    if pa.types.is_integer(ids.type):
        return np.asarray(ids.to_numpy()).astype(np.int64)
    unique = ids.dictionary_encode()
    names = unique.dictionary.cast(pa.large_binary()).to_pylist()
    digests = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in names)
    hashes = np.frombuffer(digests, "<i8").astype(np.int64)
    return np.take(hashes, np.asarray(unique.indices))


class _Bar:
    """Progress in bytes of the input files, with tokens per second."""

    def __init__(self, total: int, show: bool) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(total=total, unit="B", unit_scale=True, disable=not show, dynamic_ncols=True)
        self._start = time.perf_counter()
        self._finished = 0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, what: str) -> None:
        self._bar.set_postfix_str(what)

    def restart(self) -> None:
        """Start the clock."""
        self._bar.reset()
        self._bar.set_postfix_str("")
        self._start = time.perf_counter()

    def advance(self, position: int, tokens: int) -> None:
        """position: bytes of the current file consumed so far; tokens: the total for all files so far."""
        rate = tokens / max(1e-9, time.perf_counter() - self._start)
        self._bar.set_postfix_str(f"{rate / 1e6:.2f} M tokens/s", refresh=False)
        self._bar.update(self._finished + position - self._bar.n)

    def finish_file(self, size: int) -> None:
        self._finished += size
        self._bar.update(self._finished - self._bar.n)
