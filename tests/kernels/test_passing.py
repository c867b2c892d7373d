"""What is held is read as it is and lives as long as its holder; what is handed over is an array like others."""

import gc
import pickle
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import ROOT
from numba import config, typeof

from gpu_lattice import Tokenizer
from gpu_lattice.kernels.compiled import Bound, compiled
from gpu_lattice.kernels.cpu.passing import Held, opened


class Inner(NamedTuple):
    table: np.ndarray
    flag: bool
    number: np.uint64


class Outer(NamedTuple):
    before: tuple[np.ndarray, np.ndarray]
    inner: Inner
    square: np.ndarray
    count: int
    share: float
    small: np.float32


OUTER = Outer(
    (np.array([1, 2, 3], np.int32), np.empty(0, np.int32)),
    Inner(np.array([250, 251], np.uint8), True, np.uint64(2**64 - 1)),
    np.arange(6, dtype=np.float64).reshape(2, 3),
    -5,
    0.1,
    np.float32(0.1),
)


@compiled
def told(outer: Any) -> Any:
    outer = opened(outer)
    (before, after), inner, square = outer.before, outer.inner, outer.square
    sums = before.sum(), after.size, inner.table[1], inner.number, square[1, 2], square.shape, square.strides[0]
    return sums, inner.flag, outer.count, outer.share, outer.small


@compiled
def count_up(held: Any) -> Any:
    counts = opened(held)[0]
    counts[0] += 1
    return np.full(3, counts[0])


def test_what_is_held_is_read_as_it_is() -> None:
    assert told(Held(OUTER)) == told(OUTER)
    assert told(OUTER)[1:] == (True, -5, 0.1, np.float32(0.1))


def test_the_type_of_what_is_held_is_that_of_its_content() -> None:
    assert typeof(Held(OUTER)) == typeof(Held(OUTER._replace(count=3)))
    assert typeof(Held(OUTER)) != typeof(Held(OUTER._replace(count=3.0)))
    assert pickle.loads(pickle.dumps(typeof(Held(OUTER)))) == typeof(Held(OUTER))


def test_what_is_held_can_be_written_to_and_lives_as_long_as_its_holder() -> None:
    counts = np.zeros(1, np.int64)
    held, alive = Held((counts,)), weakref.ref(counts)
    assert [count_up(held).tolist() for _ in range(2)] == [[1] * 3, [2] * 3]
    assert counts.tolist() == [2]
    del counts
    assert alive() is not None
    del held
    gc.collect()
    assert alive() is None


def test_a_pickle_has_the_content_and_no_addresses() -> None:
    array = np.arange(3)
    other = pickle.loads(pickle.dumps(Held((array,))))
    assert other != Held((array,))
    assert count_up(other).tolist() == [1] * 3
    assert array[0] == 0


def test_an_array_with_gaps_is_not_held() -> None:
    with pytest.raises(ValueError, match="give a copy"):
        Held((np.arange(4)[::2],))


def test_what_is_handed_over_is_an_array_that_may_be_written_to_and_owns_its_memory() -> None:
    array = count_up(Held((np.zeros(1, np.int64),)))
    assert type(array) is np.ndarray
    assert array.dtype == np.int64
    assert array.flags.writeable
    assert array.flags.c_contiguous
    gc.collect()
    array[1] = 7
    assert array.tolist() == [1, 7, 1]


@compiled
def parts_of(n: int) -> Any:
    word = np.uint64(1)
    for _ in range(n):
        word ^= word << np.uint64(13)
        word ^= word >> np.uint64(7)
    tables = np.full(2, word), np.zeros((1, 2))
    return tables[0], Inner(tables[0], True, word), (Inner(tables[1][0], False, word), tables[1]), np.arange(3)


def test_tuples_and_named_tuples_are_handed_over_as_they_are() -> None:
    first, inner, (other, square), last = parts_of(0)
    assert type(inner) is type(other) is Inner
    assert (first.tolist(), inner.table.tolist(), inner.number, last.tolist()) == ([1, 1], [1, 1], 1, [0, 1, 2])
    assert (other.table.tolist(), other.flag, square.shape) == ([0.0, 0.0], False, (1, 2))


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="the interrupt would come before what is handed over")
def test_an_interrupt_that_comes_before_arrays_are_handed_over_is_raised() -> None:
    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    parts_of(0)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(20):
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012
                signal.setitimer(signal.ITIMER_REAL, 1e-3)
                parts_of(30_000_000)
                time.sleep(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_arrays_that_are_only_read_may_be_read_only_or_not() -> None:
    @compiled
    def total(pair: Any) -> Any:
        return pair[0].sum() + pair[1]

    bound, array = Bound(total, only_reads=True), np.arange(4)
    fixed = array.copy()
    fixed.flags.writeable = False
    assert bound.types_of(((array, 1),)) == bound.types_of(((fixed, 1),))
    assert [bound((array, 1)), bound((fixed, 1))] == [7, 7]


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="counts what compiled code allocates")
def test_many_calls_leave_no_references_and_no_memory_behind() -> None:
    tokenizer = Tokenizer.default(device="cpu", threads=1)
    texts = ["A new dawn, and a new day.", "語 and ①", "", "w" * 300]

    def call(times: int) -> None:
        for _ in range(times):
            for text in texts:
                tokenizer.encode(text)
                tokenizer.sample(text, alpha=0.2, seed=1)
                tokenizer.encode(text, return_offsets="bytes")

    def references() -> list[int]:
        tables = tokenizer.backend._best[1].content
        return [sys.getrefcount(array) for part in tables for array in part if isinstance(array, np.ndarray)]

    call(10)
    before, blocks = references(), sys.getallocatedblocks()
    call(500)
    gc.collect()
    assert references() == before
    assert sys.getallocatedblocks() - blocks < 500


@pytest.mark.parametrize("variable", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_code_that_is_not_compiled_or_checks_indices_reads_the_same(variable: str, tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests/kernels'); sys.path.insert(0, 'tests')\n"
        "from test_passing import OUTER, Held, count_up, np, told\n"
        "print(told(Held(OUTER)) == told(OUTER), count_up(Held((np.zeros(1, np.int64),))).tolist())"
    )
    environment = {variable: "1", "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    for _ in range(2):  # the second time from disk
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["True", "[1,", "1,", "1]"]
