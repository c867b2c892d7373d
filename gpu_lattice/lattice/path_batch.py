"""Several segmentations of each document, with their scores."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gpu_lattice.token_batch import TokenBatch


@dataclass(frozen=True, eq=False)
class PathBatch:
    """Paths of each document, best (or first drawn) first; arrays are on the lattice's device.

    tokens         the ids, a row per path: those of document i are rows doc_offsets[i] to doc_offsets[i + 1]
    doc_offsets    int64 [num_docs + 1]
    scores         float64 [num_rows], the sum of the scores of each path (natural logarithms)
    log_prob       float64 [num_rows], log of the path's probability in the distribution that it was drawn from, or None
    log_inclusion  float64 [num_rows], log of the probability that a sample without replacement with this threshold
                   includes the path, or None
    """

    tokens: TokenBatch
    doc_offsets: NDArray[np.int64]
    scores: NDArray[np.float64]
    log_prob: NDArray[np.float64] | None = None
    log_inclusion: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """The number of documents."""
        return len(self.doc_offsets) - 1

    def __repr__(self) -> str:
        return f"PathBatch({len(self)} documents, {len(self.tokens)} paths)"

    def tolist(self) -> list[list[list[int]]]:
        """For each document, the ids of each of its paths."""
        rows = self.tokens.tolist()
        bounds = self.doc_offsets.tolist()
        return [[row or [] for row in rows[a:b]] for a, b in pairwise(bounds)]
