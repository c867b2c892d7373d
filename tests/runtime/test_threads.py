"""Ranges of work, and the threads that share them."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

import gpu_lattice.tokenizer
from gpu_lattice import Tokenizer
from gpu_lattice.backends.cpu import Memos
from gpu_lattice.runtime import threads
from gpu_lattice.runtime.threads import HEAD_START, LEAST_RANGE_BYTES, RANGE_BYTES, byte_ranges, map_ranges

FIFTY = [(i, i + 1) for i in range(50)]


@given(
    st.lists(st.sampled_from([0, 1, 900, LEAST_RANGE_BYTES, RANGE_BYTES, 5 * RANGE_BYTES]), max_size=40),
    st.integers(1, 9),
)
def test_ranges_tile_the_items_in_order(lengths: list[int], threads: int) -> None:
    offsets = 7 + np.cumsum([0, *lengths])
    ranges = byte_ranges(offsets, threads)
    assert all(start < stop for start, stop in ranges)
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(len(lengths)))


def test_every_thread_has_work_where_there_is_enough_for_it() -> None:
    offsets = np.arange(0, 40 * LEAST_RANGE_BYTES, 100)
    sizes = [offsets[stop] - offsets[start] for start, stop in byte_ranges(offsets, 4)]
    assert len(sizes) >= 4
    assert max(sizes[1:]) - min(sizes[1:]) <= 200
    assert abs(sizes[0] - HEAD_START - sizes[1]) <= 200
    assert len(byte_ranges(offsets, 1)) == 1
    assert len(byte_ranges(offsets[:80], 4)) == 1


def test_a_large_item_is_a_range_and_leaves_the_others_to_other_threads() -> None:
    offsets = np.cumsum([0, *[1000] * 500, 100 * RANGE_BYTES, *[1000] * 500])
    ranges = byte_ranges(offsets, 2)
    assert sum(start <= 500 < stop for start, stop in ranges) == 1
    assert len(ranges) > 1


@pytest.mark.parametrize("threads", [1, 2, 7, 100])
def test_results_are_in_the_order_of_the_ranges(threads: int) -> None:
    def work(start: int, stop: int) -> int:
        time.sleep(0.0001 * (50 - start))
        return start

    assert map_ranges(work, FIFTY, threads) == list(range(50))


def test_no_more_threads_work_than_are_asked_for_and_the_caller_is_one() -> None:
    seen, now, most = set(), [0], [0]

    def work(start: int, stop: int) -> None:
        seen.add(threading.current_thread())
        now[0] += 1
        most[0] = max(most[0], now[0])
        time.sleep(0.002)
        now[0] -= 1

    map_ranges(work, FIFTY, 3)
    assert threading.current_thread() in seen
    assert len(seen) == most[0] == 3


def test_work_may_share_out_work_itself() -> None:
    def inner(start: int, stop: int) -> int:
        time.sleep(0.0001)
        return start

    def outer(start: int, stop: int) -> int:
        return sum(map_ranges(inner, FIFTY, 2))

    assert map_ranges(outer, FIFTY, 2) == [sum(range(50))] * 50


def test_the_first_error_is_raised_and_what_follows_it_is_left() -> None:
    done, later_failed = [], threading.Event()

    def work(start: int, stop: int) -> None:
        if start == 6:
            later_failed.set()
            raise ValueError(start)
        if start >= 5:
            later_failed.wait(60)
            time.sleep(0.05)
        if start == 5:
            raise ValueError(start)
        done.append(start)

    with pytest.raises(ValueError, match=r"^5$"):
        map_ranges(work, FIFTY, 4)
    assert set(range(5)) <= set(done)
    assert max(done) < 30
    assert map_ranges(lambda start, stop: start, FIFTY, 4) == list(range(50))


@pytest.mark.parametrize("threads", [1, 3])
def test_errors_name_the_document_of_the_batch_not_of_its_range(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_pieces(["a", "b"], device="cpu", threads=threads)
    texts = ["ab" * 500] * 3000
    texts[2900] = texts[2950] = "abc"
    for draw in (tokenizer.encode, tokenizer.sample):
        with pytest.raises(ValueError, match=r"^document 2900 .*byte 3 of it, after b'abc'"):
            draw(texts)
    monkeypatch.setattr(gpu_lattice.tokenizer, "LARGEST_TEXT", 5000)
    texts[2900:] = ["ab" * 3000] * 2
    with pytest.raises(ValueError, match=r"^document 2900 has 6000 normalized bytes; the limit is 5000, split it$"):
        tokenizer.sample(texts, seed=0)


def test_a_thread_gets_back_the_memo_that_it_used_and_another_only_if_it_has_none() -> None:
    memos = Memos[object]()
    together = threading.Barrier(2)
    used: dict[int, list[object]] = {0: [], 1: []}

    def use(i: int) -> None:
        for _ in range(20):
            used[i].append(memos.take() or object())
            together.wait()
            memos.put(used[i][-1])
            together.wait()

    workers = [threading.Thread(target=use, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(set(used[0])) == len(set(used[1])) == 1
    assert used[0][0] != used[1][0]
    assert memos.take() in (used[0][0], used[1][0])


def test_threads_of_the_user_may_share_a_tokenizer() -> None:
    tokenizer = Tokenizer.default(device="cpu", threads=2)
    batches = [[f"some words, and {i + j} of them" for j in range(2000)] for i in range(4)]
    expected = [tokenizer.sample(batch, alpha=0.2, seed=i).ids.tobytes() for i, batch in enumerate(batches)]
    wrong: list[int] = []

    def use(i: int) -> None:
        for _ in range(30):
            if tokenizer.sample(batches[i], alpha=0.2, seed=i).ids.tobytes() != expected[i]:
                wrong.append(i)

    users = [threading.Thread(target=use, args=(i,)) for i in range(len(batches))]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    code = """if True:
        import os
        from gpu_lattice.runtime.threads import map_ranges

        ranges = [(i, i + 1) for i in range(50)]
        assert map_ranges(lambda start, stop: start, ranges, 3) == list(range(50))
        child = os.fork()
        assert map_ranges(lambda start, stop: start, ranges, 3) == list(range(50))
        if child:
            assert os.waitpid(child, 0)[1] == 0
            print("done")
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, 8), ({"OMP_NUM_THREADS": "3,1"}, 3), ({"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "5"}, 2),
     ({"OMP_NUM_THREADS": "many"}, 8), ({"OMP_NUM_THREADS": "0"}, 1)],
)  # fmt: skip
def test_the_limits_of_the_environment_are_heeded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    threads._threads_of_process.cache_clear()
    assert threads.default_threads() == expected
    threads._threads_of_process.cache_clear()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_the_quota_of_a_container_is_heeded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    threads._threads_of_process.cache_clear()
    assert threads.default_threads() == expected
    threads._threads_of_process.cache_clear()


def test_a_worker_of_a_data_loader_uses_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a tokenizer that was made before the worker was forked."""
    tokenizer = Tokenizer.from_pieces(["a"], device="cpu")
    chosen = Tokenizer.from_pieces(["a"], device="cpu", threads=3)
    monkeypatch.setitem(sys.modules, "torch.utils.data", SimpleNamespace(get_worker_info=lambda: object()))
    assert (tokenizer._threads, tokenizer._backend.threads) == (1, 1)
    assert (chosen._threads, chosen._backend.threads) == (3, 3)
