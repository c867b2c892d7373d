"""Text cut at symbols that are one token wherever they occur."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from gpu_lattice.normalizers import NormalizedBatch, Normalizer

if TYPE_CHECKING:
    from gpu_lattice.kernels.cpu.bulk.spans import Alignment
    from gpu_lattice.text_batch import TextBatch


class SymbolCutter:
    """A normalizer whose output is cut at symbols, the longest at each position from the left.

    Example:
        >>> from gpu_lattice.normalizers.identity import IdentityNormalizer
        >>> cut = SymbolCutter(IdentityNormalizer(), {b"<x>": 7})
        >>> batch = cut(TextBatch.from_texts(["a<x>"]))
        >>> batch.chunk_offsets.tolist(), batch.chunk_ids.tolist()
        ([0, 1, 4], [-1, 7])
    """

    def __init__(self, normalizer: Normalizer, ids: Mapping[bytes, int]) -> None:
        """ids: of the symbols. The normalizer must not divide its output into chunks."""
        self._normalizer = normalizer
        self._ids = dict(ids)
        self._pattern = re.compile(b"|".join(map(re.escape, sorted(ids, key=len, reverse=True))))

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        return self._cut(self._normalizer(texts, threads))

    def aligned(self, texts: TextBatch) -> tuple[NormalizedBatch, Alignment]:
        """The same, and where its bytes come from."""
        batch, alignment = self._normalizer.aligned(texts)
        return self._cut(batch), alignment

    def _cut(self, batch: NormalizedBatch) -> NormalizedBatch:
        values = batch.values.tobytes()
        starts: list[int] = []
        ids: list[int] = []
        for start, stop in pairwise(batch.offsets.tolist()):
            p = start
            for match in self._pattern.finditer(values, start, stop):
                if match.start() > p:
                    starts.append(p)
                    ids.append(-1)
                starts.append(match.start())
                ids.append(self._ids[match[0]])
                p = match.end()
            if p < stop:
                starts.append(p)
                ids.append(-1)
        chunk_offsets = np.array([*starts, batch.offsets[-1]], np.int64)
        return NormalizedBatch(batch.values, batch.offsets, chunk_offsets, np.array(ids, np.int32))

    def __repr__(self) -> str:
        return f"SymbolCutter({self._normalizer!r}, {len(self._ids)} symbols; not compiled)"
