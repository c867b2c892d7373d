"""Copies between arrays of a GPU and of the host, fast enough for its bus."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.runtime.threads import default_threads, map_ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# What a thread copies at a time, and what comes from a GPU at a time; in numbers.
PIECE = 1 << 20
LOAD = 1 << 23


def is_on_device(array: Any) -> bool:
    """Whether it is an array of CuPy."""
    return hasattr(array, "get")


def on_host(array: Any) -> Any:
    """The array, copied from the GPU if it is on one.

    Many int32 come by two pinned buffers, as uint16 if all fit: threads widen one load while the next is on its way.
    """
    if not is_on_device(array):
        return array
    if array.dtype != np.int32 or array.ndim != 1 or array.size <= PIECE:
        return array.get()
    with array.device:
        return _by_loads(array)


def fetched(array: Any) -> Callable[[], Any]:
    """`on_host` for another thread: it waits for what the caller's stream is to do by now, not for what comes later.

    The array must not change meanwhile.
    """
    if not is_on_device(array):
        return lambda: array
    import cupy

    with array.device:
        ready = cupy.cuda.get_current_stream().record()

    def fetch() -> Any:
        with array.device, _stream(array.device.id) as stream:
            stream.wait_event(ready)
            return on_host(array)

    return fetch


@cache
def _stream(ordinal: int) -> Any:
    """What copies from a device are queued in beside its work. It stays: CuPy's pool keeps memory for each stream."""
    import cupy

    return cupy.cuda.Stream(non_blocking=True)


def _by_loads(array: Any) -> NDArray[np.int32]:
    import cupy

    fits = int(array.min()) >= 0 and int(array.max()) < 1 << 16
    kind = np.dtype(np.uint16 if fits else np.int32)
    size = min(LOAD, array.size)
    pinned = [np.frombuffer(cupy.cuda.alloc_pinned_memory(size * kind.itemsize), kind, size) for _ in range(2)]
    out = np.empty(array.size, np.int32)
    stream = cupy.cuda.get_current_stream()
    waiting: list[Any] = []

    def finish() -> None:
        start, part, host, event = waiting.pop()
        event.synchronize()
        copy_by_threads(host, out[start : start + part.size])

    for i, start in enumerate(range(0, array.size, size)):
        part = array[start : start + size].astype(kind, copy=False)
        host = part.get(out=pinned[i % 2][: part.size], blocking=False)
        event = stream.record()
        if waiting:
            finish()
        waiting.append((start, part, host, event))
    finish()
    return out


def copy_by_threads(source: NDArray[Any], target: NDArray[Any], minus: int = 0) -> None:
    """target = source - minus, by several threads if it is long: one copies some 5 GB/s."""

    def copy(start: int, stop: int) -> None:
        if minus:
            np.subtract(source[start:stop], minus, out=target[start:stop])
        else:
            target[start:stop] = source[start:stop]

    starts = range(0, len(source), PIECE)
    map_ranges(copy, [(start, min(start + PIECE, len(source))) for start in starts], default_threads())
