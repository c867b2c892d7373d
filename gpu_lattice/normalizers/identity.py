"""No normalization at all: the bytes of the documents as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpu_lattice.normalizers import Alignment, NormalizedBatch

if TYPE_CHECKING:
    from gpu_lattice.text_batch import TextBatch


class IdentityNormalizer:
    """Passes bytes of any content through, without a copy."""

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        start, stop = int(texts.offsets[0]), int(texts.offsets[-1])
        return NormalizedBatch(texts.values[start:stop], texts.offsets - start)

    def aligned(self, texts: TextBatch, threads: int = 1) -> tuple[NormalizedBatch, Alignment]:
        """The same, and where every byte is."""
        batch = self(texts, threads)
        starts = np.arange(len(batch.values)) - np.repeat(batch.offsets[:-1], np.diff(batch.offsets))
        return batch, Alignment(starts, starts + 1)

    def __repr__(self) -> str:
        return "IdentityNormalizer()"
