"""Text to normalized bytes: one rule object per model, compiled, threaded over byte-balanced ranges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gpu_lattice.kernels.compiled import readonly
from gpu_lattice.kernels.cpu.bulk.parts import filled_documents
from gpu_lattice.kernels.cpu.bulk.spans import IN_CHARACTER, LISTED, SAME, Alignment
from gpu_lattice.runtime.threads import byte_ranges, map_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from gpu_lattice.text_batch import TextBatch


@dataclass(eq=False)
class NormalizedBatch:
    """Normalized documents: valid UTF-8, ragged, in the order of the input.

    values         uint8 [num_bytes]
    offsets        int64 [num_docs + 1] into values
    chunk_offsets  int64 [num_chunks + 1] into values: the parts of text that the model's tool segments on their own
                   (pre-tokens, lines). They include every document boundary, and no chunk is empty.
                   None if every document is one chunk.
    chunk_ids      int32 [num_chunks], the id of a chunk that is one token (an added token found in the text), -1
                   for ordinary text. None if all are ordinary.
    """

    values: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    chunk_offsets: NDArray[np.int64] | None = None
    chunk_ids: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def chunk_bounds(self) -> NDArray[np.int64]:
        """The offsets of chunks; by default one chunk per document that is not empty."""
        return filled_documents(self.offsets) if self.chunk_offsets is None else self.chunk_offsets

    @cached_property
    def chunks(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Chunk offsets and ids; by default of ordinary text."""
        n_chunks = len(self.chunk_bounds) - 1
        return self.chunk_bounds, np.full(n_chunks, -1, np.int32) if self.chunk_ids is None else self.chunk_ids

    def part(self, start: int, stop: int) -> NormalizedBatch:
        """Documents start to stop, over the same values."""
        offsets = self.offsets[start : stop + 1]
        if self.chunk_offsets is None:
            return NormalizedBatch(self.values, offsets)
        first, last = np.searchsorted(self.chunk_offsets, [offsets[0], offsets[-1]])
        chunk_ids = None if self.chunk_ids is None else self.chunk_ids[first:last]
        return NormalizedBatch(self.values, offsets, self.chunk_offsets[first : last + 1], chunk_ids)

    def whole(self) -> NormalizedBatch:
        return self

    def ranges(self, n_bytes: int, empty: Callable[[int], NDArray[np.uint8]]) -> Iterator[NormalizedBatch]:
        """Itself, as the only range (PendingBatch)."""
        yield self


@dataclass(eq=False)
class PendingBatch:
    """Texts that are normalized when a backend wants them: all at once, or a range while another is worked on.

    normalize: texts, the number by which errors name the first of them, and threads, to their normalized batch
    first, threads: two of its arguments
    """

    texts: TextBatch
    normalize: Callable[[TextBatch, int, int], NormalizedBatch]
    first: int
    threads: int

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [num_docs + 1], of the texts before they are normalized."""
        return self.texts.offsets

    def whole(self) -> NormalizedBatch:
        """All documents at once, on the host."""
        return self.normalize(self.texts.on_host(), self.first, self.threads)

    def ranges(self, n_bytes: int, empty: Callable[[int], NDArray[np.uint8]]) -> Iterator[NormalizedBatch]:
        """Consecutive documents of some n_bytes of text, in an array that `empty` gives for a number of bytes.

        Text on a device is one range, and stays there.
        """
        if self.texts.device != "cpu":
            yield self.normalize(self.texts, self.first, self.threads)
            return
        n_ranges = max(1, self.texts.num_bytes // n_bytes)
        bounds = self.offsets[0] + self.texts.num_bytes * np.arange(1, n_ranges) // n_ranges
        stops = [*np.searchsorted(self.offsets, bounds).tolist(), len(self)]
        for start, stop in pairwise(sorted({0, *stops}) if len(self) else [0, 0]):
            yield self._range(start, stop, empty)

    def _range(self, start: int, stop: int, empty: Callable[[int], NDArray[np.uint8]]) -> NormalizedBatch:
        def work(first: int, last: int) -> NormalizedBatch:
            return self.normalize(self.texts.slice(start + first, start + last), self.first + start + first, 1)

        within = byte_ranges(self.offsets[start : stop + 1], self.threads) or [(0, stop - start)]
        return _joined_batches(map_ranges(work, within, self.threads), empty, self.threads)


def _joined_batches(
    parts: list[NormalizedBatch], empty: Callable[[int], NDArray[np.uint8]], threads: int
) -> NormalizedBatch:
    """The documents of all parts, one part after another."""
    sizes = [(part.offsets[-1] - part.offsets[0], len(part), len(part.chunk_bounds) - 1) for part in parts]
    starts = np.cumsum([(0, 0, 0), *sizes], axis=0).tolist()
    n_bytes, n_docs, n_chunks = starts[-1]
    values, offsets = empty(n_bytes), np.zeros(n_docs + 1, np.int64)
    has_chunks = any(part.chunk_offsets is not None for part in parts)
    has_ids = any(part.chunk_ids is not None for part in parts)
    chunk_offsets = np.zeros(n_chunks + 1, np.int64) if has_chunks else None
    chunk_ids = np.empty(n_chunks, np.int32) if has_ids else None

    def copy(i: int, _: int) -> None:
        part, (byte, doc, chunk), (byte_stop, doc_stop, chunk_stop) = parts[i], starts[i], starts[i + 1]
        low, high = part.offsets[0], part.offsets[-1]
        values[byte:byte_stop] = part.values[low:high]
        np.add(part.offsets[1:], byte - low, out=offsets[doc + 1 : doc_stop + 1])
        if chunk_offsets is not None:
            np.add(part.chunk_bounds[1:], byte - low, out=chunk_offsets[chunk + 1 : chunk_stop + 1])
        if chunk_ids is not None:
            chunk_ids[chunk:chunk_stop] = part.chunks[1]

    map_ranges(copy, [(i, i + 1) for i in range(len(parts))], threads)
    return NormalizedBatch(values, offsets, chunk_offsets, chunk_ids)


NOTHING: NDArray[np.uint32] = readonly(np.empty(0, np.uint32))
AS_THEY_ARE, BY_CHARACTERS = Alignment(SAME, NOTHING, NOTHING), Alignment(IN_CHARACTER, NOTHING, NOTHING)


class Normalizer(Protocol):
    """The interface of every rule object. Its repr says what it does, and what of that is not compiled."""

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        """Normalize a batch on `threads` threads; a null document comes out empty."""
        ...

    def aligned(self, texts: TextBatch) -> tuple[NormalizedBatch, Alignment]:
        """The same on one thread, and where its bytes come from."""
        ...


def listed(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Alignment:
    """An alignment that names the places of every byte."""
    return Alignment(LISTED, *(readonly(places.astype(np.uint32)) for places in (starts, stops)))
