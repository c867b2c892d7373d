"""A bounded amount of text from documents spread over files, without reading large files as a whole."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import accumulate

import pyarrow as pa

from gpu_lattice.corpus.documents import ReaderOptions
from gpu_lattice.corpus.inputs import InputFile, expand_inputs
from gpu_lattice.corpus.readers import check_columns, find_start, read_documents

# Large inputs are read in this many places; any of them may provide all the bytes requested.
PLACES = 16
# If there is more text than requested, no document may take more than this fraction of it: 1 / LONGEST_PART.
LONGEST_PART = 8
EXCERPT_BATCH_BYTES = 1 << 18


@dataclass(frozen=True)
class Excerpt:
    """Documents of several files.

    texts      in the order of the files; none is empty
    num_cut    how many of them are only the beginning of a longer document
    num_files, file_bytes   how many files there are, and their size on disk
    """

    texts: list[bytes]
    num_cut: int
    num_files: int
    file_bytes: int

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.texts))


def excerpt(inputs: Sequence[str | os.PathLike[str]], options: ReaderOptions, max_bytes: int, seed: int) -> Excerpt:
    """At most max_bytes of documents, drawn from those of the files; all of them if they fit.

    inputs: files, folders, glob patterns. Files larger than 16 * max_bytes in total are read in 16 places (a compressed
    file from its start). Documents longer than an eighth of max_bytes are then cut. Null and empty ones are skipped.
    Raises ValueError if nothing is left, and whatever the readers raise.
    """
    files = expand_inputs(inputs)
    for file in files:
        if file.is_stdin:
            raise ValueError("stdin is read once, and an excerpt is taken from several places; save it as a file")
        check_columns(file, options)
    sizes = [file.size for file in files]
    generator = random.Random(seed)
    longest = max_bytes if sum(sizes) <= max_bytes else max(1, max_bytes // LONGEST_PART)
    # The documents with the smallest random keys, as many as fit: (- key, number, text).
    kept: list[tuple[float, int, bytes]] = []
    cut: set[int] = set()
    kept_bytes, number = 0, 0
    for file, start, limit in _places(files, sizes, options, max_bytes, generator):
        for document in _documents(file, options, start, limit):
            text = _head(document, longest)
            if not text:
                continue
            if len(text) < len(document):
                cut.add(number)
            heappush(kept, (-generator.random(), number, text))
            number, kept_bytes = number + 1, kept_bytes + len(text)
            while kept_bytes > max_bytes:
                kept_bytes -= len(heappop(kept)[2])
    if not kept:
        raise ValueError(f"there is no text in {', '.join(map(str, inputs))}: every document is empty")
    kept.sort(key=lambda one: one[1])
    num_cut = sum(number in cut for _, number, _ in kept)
    return Excerpt([text for _, _, text in kept], num_cut, len(files), sum(sizes))


def _places(
    files: list[InputFile], sizes: list[int], options: ReaderOptions, max_bytes: int, generator: random.Random
) -> Iterator[tuple[InputFile, int, int]]:
    """(file, where to start, how many bytes of text to read)."""
    total, bounds = sum(sizes), [0, *accumulate(sizes)]
    if total <= PLACES * max_bytes:
        for file, size in zip(files, sizes, strict=True):
            yield file, 0, PLACES * max_bytes * size // max(1, total)
        return
    limits: dict[tuple[int, int], int] = {}
    for i_place in range(PLACES):
        at = (i_place + generator.random()) / PLACES * total
        i_file = max(i for i, bound in enumerate(bounds[:-1]) if bound <= at and sizes[i])
        share = min(1.0, (at - bounds[i_file]) / sizes[i_file])
        place = i_file, find_start(files[i_file], options, share)
        limits[place] = limits.get(place, 0) + max_bytes
    for (i_file, start), limit in sorted(limits.items()):
        yield files[i_file], start, limit


def _documents(file: InputFile, options: ReaderOptions, start: int, limit: int) -> Iterator[bytes]:
    read = 0
    for batch in read_documents(file, replace(options, batch_bytes=EXCERPT_BATCH_BYTES), start):
        for text in batch.texts.cast(pa.large_binary()).to_pylist():
            if text:
                yield text
                read += len(text)
            if read >= limit:
                return


def _head(text: bytes, longest: int) -> bytes:
    """At most this many bytes, without an incomplete character."""
    if len(text) <= longest:
        return text
    end = longest
    while end and end > longest - 3 and text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]
