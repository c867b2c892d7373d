"""Work shared among threads by bytes, for compiled functions that release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

RANGE_BYTES = 1 << 18


def default_threads() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def byte_ranges(offsets: NDArray[np.int64], range_bytes: int = RANGE_BYTES) -> list[tuple[int, int]]:
    """Consecutive ranges of items of about range_bytes bytes each; an item is never divided.

    offsets: int64 [n + 1]. Returns (start, stop) pairs that cover 0..n.

    Example:
        >>> byte_ranges(np.array([0, 5, 6, 7, 12]), 6)
        [(0, 2), (2, 4)]
    """
    n = len(offsets) - 1
    marks = np.arange(offsets[0] + range_bytes, offsets[-1], range_bytes)
    stops = np.searchsorted(offsets, marks, side="left")
    bounds = np.unique(np.concatenate([[0], stops, [n]]))
    return [(int(a), int(b)) for a, b in pairwise(bounds)]


def map_ranges(work: Callable[[int, int], T], ranges: list[tuple[int, int]], threads: int) -> list[T]:
    """work(start, stop) for every range, in order, on up to `threads` threads."""
    if threads <= 1 or len(ranges) <= 1:
        return [work(start, stop) for start, stop in ranges]
    return list(_pool(threads, os.getpid()).map(lambda bounds: work(*bounds), ranges))


@lru_cache(maxsize=8)
def _pool(threads: int, pid: int) -> ThreadPoolExecutor:
    """One pool per size and process: a forked child must not inherit dead threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gpu-lattice")
