"""What comes from a GPU comes whole, whatever its size and its numbers; CuPy is replaced by a few lines."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpu_lattice.runtime import on_host as module
from gpu_lattice.runtime.on_host import copy_by_threads, on_host


class Array(np.ndarray):  # type: ignore[type-arg]
    """An array of a GPU whose copies arrive when their event is awaited."""

    device = nullcontext()
    coming: list[Any] = []  # noqa: RUF012
    kinds: set[str] = set()  # noqa: RUF012

    def get(self, out: Any = None, blocking: bool = True) -> Any:
        if out is None:
            return self.view(np.ndarray).copy()
        assert not blocking
        out[:] = 99
        Array.kinds.add(out.dtype.name)
        Array.coming.append((self.view(np.ndarray), out))
        return out


def arrive() -> None:
    source, out = Array.coming.pop(0)
    out[:] = source


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SimpleNamespace(record=lambda: SimpleNamespace(synchronize=arrive))
    cuda = SimpleNamespace(get_current_stream=lambda: stream, alloc_pinned_memory=bytearray)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(module, "LOAD", 64)
    monkeypatch.setattr(module, "PIECE", 16)
    Array.kinds.clear()


@pytest.mark.parametrize("size", [0, 1, 16, 17, 64, 65, 128, 1000])
@pytest.mark.parametrize(("low", "high", "kind"), [(0, 65535, "uint16"), (0, 65536, "int32"), (-1, 9, "int32")])
def test_ids_come_whole_and_as_small_as_they_fit(size: int, low: int, high: int, kind: str) -> None:
    ids = np.random.default_rng(0).integers(low, high, size, np.int32, endpoint=True)
    ids[:2] = [low, high][:size]
    got = on_host(ids.view(Array))
    assert type(got) is np.ndarray
    assert got.dtype == np.int32
    assert got.tolist() == ids.tolist()
    assert Array.kinds == ({kind} if size > 16 else set())
    assert not Array.coming


def test_arrays_of_the_host_and_of_other_types_are_as_they_are() -> None:
    here = np.arange(100)
    assert on_host(here) is here
    assert on_host(here.view(Array)).tolist() == here.tolist()


@pytest.mark.parametrize("minus", [0, 5])
def test_a_copy_by_threads_is_a_copy(minus: int) -> None:
    source = np.arange(1000)
    target = np.zeros(1000, np.int64)
    copy_by_threads(source, target, minus)
    assert target.tolist() == (source - minus).tolist()
