"""Work shared among threads by bytes, for compiled functions that release the GIL."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

# The calls for a range take as long as some 10 KB of text.
RANGE_BYTES = 1 << 20
# Where there are fewer such ranges than threads, they are smaller, but not than that.
LEAST_BYTES = 1 << 14
# What the caller's thread gets through while another one wakes up.
HEAD_START = 1 << 13


def default_threads() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def byte_ranges(offsets: NDArray[np.int64], threads: int = 1) -> list[tuple[int, int]]:
    """Consecutive ranges of items, of about as many bytes each; an item is never divided.

    offsets: int64 [n + 1]. threads: each of so many is to have some, even if that makes the ranges small; the first
    has HEAD_START bytes more.
    Returns (start, stop) pairs that cover 0..n.

    Example:
        >>> byte_ranges(np.array([0, 5, 60_000, 70_000, 80_000]), threads=2)
        [(0, 2), (2, 4)]
    """
    n, size = len(offsets) - 1, int(offsets[-1] - offsets[0])
    n_ranges = max(1, size // RANGE_BYTES, min(size // LEAST_BYTES, threads))
    if n_ranges == 1:
        return [(0, n)] if n else []
    each = (size - HEAD_START) // n_ranges
    bounds = [int(offsets[0]) + HEAD_START + i * each for i in range(1, n_ranges)]
    starts = np.searchsorted(offsets, bounds).tolist()
    return [(start, stop) for start, stop in pairwise([0, *starts, n]) if start < stop]


def map_ranges(work: Callable[[int, int], T], ranges: list[tuple[int, int]], threads: int) -> list[T]:
    """work(start, stop) for every range, in order, on up to `threads` threads, of which the caller's is one.

    `work` may call map_ranges itself: whoever waits has found nothing left to do. Of several errors the first range's
    is raised; ranges after one that fails may be left out.
    """
    if threads <= 1 or len(ranges) <= 1:
        return [work(start, stop) for start, stop in ranges]
    todo = deque(enumerate(ranges))
    done: dict[int, T] = {}
    errors: dict[int, BaseException] = {}

    def take() -> None:
        while todo:
            try:
                i, bounds = todo.popleft()
            except IndexError:
                return
            try:
                done[i] = work(*bounds)
            except BaseException as error:
                todo.clear()
                errors[i] = error

    pool = _pool(threads - 1, os.getpid())
    helpers = [pool.submit(take) for _ in range(min(threads, len(ranges)) - 1)]
    try:
        take()
    finally:
        todo.clear()
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    if errors:
        raise errors[min(errors)]
    return [done[i] for i in range(len(ranges))]


@lru_cache(maxsize=8)
def _pool(helpers: int, pid: int) -> ThreadPoolExecutor:
    """One pool per size and process: a forked child must not inherit dead threads."""
    return ThreadPoolExecutor(helpers, thread_name_prefix="gpu-lattice")
