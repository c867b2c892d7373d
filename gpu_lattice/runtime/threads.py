"""Work shared among threads by bytes, for compiled functions that release the GIL."""

from __future__ import annotations

import atexit
import os
import sys
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gpu_lattice.runtime.interrupts import is_interrupt

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

CGROUP = Path("/sys/fs/cgroup")

# The calls for a range cost as much as some 10 KB of text.
RANGE_BYTES = 1 << 20
# If there are fewer such ranges than threads, they are made smaller, down to this.
LEAST_RANGE_BYTES = 1 << 14
# How much the caller's thread processes while another one wakes up.
HEAD_START = 1 << 13


def default_threads() -> int:
    """One within a worker of torch's DataLoader; else as many as this process may use.

    These are its CPUs, at most the quota of its cgroup (rounded up), NUMBA_NUM_THREADS and OMP_NUM_THREADS.
    """
    data = sys.modules.get("torch.utils.data")
    return 1 if data is not None and data.get_worker_info() is not None else _threads_of_process(os.getpid())


@lru_cache(maxsize=1)
def _threads_of_process(process: int) -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [cpus, _cpu_quota(CGROUP)]
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        # OpenMP's may be a list, by level of nesting.
        given = os.environ.get(name, "").split(",")[0].strip()
        limits.append(int(given) if given.isdecimal() else cpus)
    return max(1, min(limits))


def _cpu_quota(folder: Path) -> int:
    """The CPUs that a container may use: of version 2 of cgroups, or 1; very many without a limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in files).split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal() and period.isdecimal() and int(period):
            return -(-int(quota) // int(period))
    return sys.maxsize


def byte_ranges(offsets: NDArray[np.int64], threads: int = 1) -> list[tuple[int, int]]:
    """Consecutive ranges of items, of about as many bytes each; an item is never divided.

    offsets: int64 [n + 1]. threads: every one of these gets a range, even if that makes the ranges small; the
    first range has HEAD_START bytes more.
    Returns (start, stop) pairs that cover 0..n.

    Example:
        >>> byte_ranges(np.array([0, 5, 60_000, 70_000, 80_000]), threads=2)
        [(0, 2), (2, 4)]
    """
    n, size = len(offsets) - 1, int(offsets[-1] - offsets[0])
    n_ranges = num_ranges(size, threads)
    if n_ranges == 1:
        return [(0, n)] if n else []
    each = (size - HEAD_START) // n_ranges
    bounds = [int(offsets[0]) + HEAD_START + i * each for i in range(1, n_ranges)]
    starts = np.searchsorted(offsets, bounds).tolist()
    return [(start, stop) for start, stop in pairwise([0, *starts, n]) if start < stop]


def num_ranges(num_bytes: int, threads: int) -> int:
    """How many ranges `byte_ranges` aims at."""
    return max(1, num_bytes // RANGE_BYTES, min(num_bytes // LEAST_RANGE_BYTES, threads))


def map_ranges(work: Callable[[int, int], T], ranges: list[tuple[int, int]], threads: int) -> list[T]:
    """work(start, stop) for every range, in order, on up to `threads` threads, including the caller's.

    `work` may call map_ranges itself: a thread waits only once nothing is left to start. Of several errors, that of the
    first range is raised; ranges after one that fails may be skipped. An interrupt is raised as KeyboardInterrupt.
    """
    if len(ranges) == 1:
        return [called(work, *ranges[0])]
    if threads <= 1:
        return [called(work, start, stop) for start, stop in ranges]
    todo = deque(enumerate(ranges))
    done: dict[int, T] = {}
    errors: dict[int, BaseException] = {}
    ended: SimpleQueue[None] = SimpleQueue()

    def take() -> None:
        while todo:
            try:
                i, bounds = todo.popleft()
            except IndexError:
                return
            try:
                if not errors:
                    done[i] = called(work, *bounds)
            except BaseException as error:
                errors[i] = error
            ended.put(None)

    try:
        _helpers(os.getpid()).call(take, min(threads, len(ranges)) - 1)
        take()
        for _ in ranges:
            ended.get()
    finally:
        todo.clear()
    if errors:
        raise errors[min(errors)]
    return [done[i] for i in range(len(ranges))]


def called(work: Callable[..., T], *args: Any) -> T:
    """work(*args), in which an interrupt is raised as KeyboardInterrupt."""
    try:
        return work(*args)
    except SystemError as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        raise


class _Helpers:
    """Threads that call functions; there are as many as the largest request so far.

    An executor's conditions are not safe here: one interrupted while being acquired stays locked, and the next call
    waits forever. A SimpleQueue cannot be left in such a state.
    """

    def __init__(self) -> None:
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        # A thread that returns from compiled code after the interpreter is gone would crash the process.
        atexit.register(self._stop)

    def call(self, function: Callable[[], None], times: int) -> None:
        """Have `function` called this many times, each by a free thread; returns at once."""
        while len(self._threads) < times:
            thread = Thread(target=self._serve, name=f"gpu-lattice-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        for _ in range(times):
            self._todo.put(function)

    def _serve(self) -> None:
        while (function := self._todo.get()) is not None:
            function()
            del function  # and with it the texts of a batch

    def _stop(self) -> None:
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            if thread.is_alive():  # it was not, if an interrupt came as it was to start
                thread.join()


@lru_cache(maxsize=1)
def _helpers(pid: int) -> _Helpers:
    """The helpers of this process: a forked child has none of its parent's threads."""
    return _Helpers()
