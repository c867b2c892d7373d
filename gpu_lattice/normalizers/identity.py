"""No normalization at all: the bytes of the documents as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_lattice.normalizers import AS_THEY_ARE, NormalizedBatch

if TYPE_CHECKING:
    from gpu_lattice.kernels.cpu.bulk.spans import Alignment
    from gpu_lattice.text_batch import TextBatch


class IdentityNormalizer:
    """Passes bytes of any content through, without a copy."""

    def __call__(self, texts: TextBatch, threads: int = 1) -> NormalizedBatch:
        start, stop = int(texts.offsets[0]), int(texts.offsets[-1])
        return NormalizedBatch(texts.values[start:stop], texts.offsets - start)

    def aligned(self, texts: TextBatch) -> tuple[NormalizedBatch, Alignment]:
        """The same, and where every byte is."""
        return self(texts), AS_THEY_ARE

    def __repr__(self) -> str:
        return "IdentityNormalizer()"
