"""What is asked of CuPy, on a stand-in with its signatures and refusals (cupy_on_host.py), and on CuPy where it is."""

import importlib
import inspect
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from cuda_on_cpu import cupy_on_host as standin
from cuda_on_cpu.host_device import compiler

from gpu_lattice import Tokenizer, retokenize
from gpu_lattice.backends import cuda as cuda_module
from gpu_lattice.backends import cuda_device
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.runtime import on_host as module
from gpu_lattice.runtime.on_host import fetched, on_host

PIECES = {"ab": -1.0, "a": -2.0, "b": -2.5}


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, as if it were installed and a device answered."""
    monkeypatch.setitem(sys.modules, "cupy", standin.module())
    monkeypatch.setattr(cuda_device, "device_count", lambda: 1)
    standin.events.clear()
    standin.races.clear()
    module._stream.cache_clear()
    yield sys.modules["cupy"]
    module._stream.cache_clear()


def test_the_tests_for_a_gpu_pass_on_the_stand_in() -> None:
    if compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "cuda_on_cpu.cupy_on_host",
         "-m", "gpu and not slow", "-k", "not torch", "tests/cuda/test_cuda_device.py",
         "tests/lattice/test_lattice_device.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 20


@pytest.mark.parametrize("missing", [None, "follow_caller", "lead_caller", "second pinned buffer"])
def test_streams_wait_for_each_other_where_they_must(
    cupy: Any, missing: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    for size in ("DEVICE_BATCH_BYTES", "RANGE_BYTES"):
        monkeypatch.setattr(cuda_module, size, 20)
    cpu = Tokenizer.from_pieces(PIECES, device="cpu")
    cuda = cpu.on(CudaBackend(cpu.model, cuda_device.CudaDevice()))
    if missing == "second pinned buffer":
        cuda.backend._pinned.pop()
    elif missing:
        monkeypatch.setattr(cuda_device.CudaStream, missing, lambda self: None)
    texts = ["abba", "b", "bab" * 5, "", "aab" * 20, "ab"] * 3
    with cupy.cuda.Stream(non_blocking=True):
        for seed in range(2):
            out = cuda.sample(texts, seed=seed, num_samples=2, return_log_prob=True)
            assert out.tolist() == cpu.sample(texts, seed=seed, num_samples=2).tolist()
            cuda.encode(texts).tolist()
    assert bool(standin.races) == bool(missing)


@pytest.mark.parametrize("high", [2**16 - 1, 2**16])
def test_a_load_of_ids_is_widened_while_the_next_one_comes(
    cupy: Any, high: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 50)
    monkeypatch.setattr(module, "LOAD", 100)
    ids = (np.arange(250) * 997 % (high + 1)).astype(np.int32)
    ids[0] = high
    assert on_host(cupy.asarray(ids)).tolist() == ids.tolist()
    # The first two are what decides whether numbers of 16 bits hold all.
    steps = [event[0] for event in standin.events][2:]
    assert steps == ["get", "record", "get", "record", "synchronize", "get", "record", "synchronize", "synchronize"]
    assert [event[2] for event in standin.events if event[0] == "get"] == [True] * 2 + [False] * 3


def test_what_is_fetched_waits_for_the_stream_that_made_it_and_for_nothing_later(cupy: Any) -> None:
    caller = cupy.cuda.Stream(non_blocking=True)
    with caller:
        array = cupy.asarray(np.arange(5))
        fetch = fetched(array)
    thread_of = []

    def work() -> None:
        thread_of.append(fetch().tolist())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert thread_of == [[0, 1, 2, 3, 4]]
    record, wait, get = standin.events
    assert record[:2] == ("record", caller)
    assert wait == ("wait", get[1], record[2])
    assert get[1] is not caller


def test_ids_of_a_group_come_to_the_host_while_the_next_is_drawn(
    cupy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    texts = ["abba" * 9, "b", "bab", "aab" * 20, "ab"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    cpu = Tokenizer.from_pieces(PIECES, device="cpu")
    cuda = cpu.on(CudaBackend(cpu.model, cuda_device.CudaDevice()))
    # The first call of a job loads kernels.
    has_begun = [threading.Event() for _ in ["", *texts]]
    groups = iter(has_begun)
    begin, get, threads = CudaBackend.sample, standin.ndarray.get, []

    def sample(*args: Any, **options: Any) -> Any:
        next(groups).set()
        return begin(*args, **options)

    def patient_get(self: Any, *args: Any, **options: Any) -> Any:
        """Ids, which are int32, wait until the next group is being drawn."""
        if self.dtype == np.int32:
            threads.append(threading.current_thread())
            assert has_begun[min(len(threads) + 1, len(texts))].wait(60), "nothing is drawn meanwhile"
        return get(self, *args, **options)

    monkeypatch.setattr(CudaBackend, "sample", sample)
    monkeypatch.setattr(standin.ndarray, "get", patient_get)
    options: dict[str, Any] = {"alpha": 0.5, "seed": 3, "batch_bytes": 1, "progress": False}
    retokenize(tmp_path / "in.parquet", tmp_path / "cuda", tokenizer=cuda, **options)
    assert not standin.races
    monkeypatch.undo()
    retokenize(tmp_path / "in.parquet", tmp_path / "cpu", tokenizer=cpu, **options)
    assert next(groups, None) is None
    assert len(threads) == len(texts)
    rows = [pq.read_table(next((tmp_path / name).glob("*.parquet"))).to_pylist() for name in ("cuda", "cpu")]
    assert rows[0] == rows[1]


CALLS = (
    "cuda.Stream.__init__", "cuda.Stream.record", "cuda.Stream.wait_event", "cuda.Stream.synchronize",
    "cuda.Event.__init__", "cuda.Event.record", "cuda.Event.synchronize", "cuda.get_current_stream",
    "ndarray.get", "ndarray.set", "ndarray.astype", "ndarray.copy", "from_dlpack", "repeat",
)  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_the_stand_in_has_the_signatures_of_cupy(name: str) -> None:
    real = pytest.importorskip("cupy", reason="CuPy is absent")
    assert real.__name__ == "cupy"
    fake: Any = standin.module()
    for part in name.split("."):
        real, fake = getattr(real, part), getattr(fake, part)
    assert parameters(fake) == parameters(real)


@pytest.mark.parametrize("name", ["shared_size_bytes", "preferred_shared_memory_carveout", "num_regs"])
def test_cupy_knows_what_is_asked_of_a_kernel(name: str) -> None:
    assert hasattr(pytest.importorskip("cupy", reason="CuPy is absent").RawKernel, name)


def test_cupy_has_every_function_that_the_stand_in_has() -> None:
    real = pytest.importorskip("cupy", reason="CuPy is absent")
    fake = standin.module()
    for name in vars(fake):
        assert name.startswith("__") or hasattr(real, name), name
    for name in vars(fake.cuda):
        assert hasattr(real.cuda, name), name
    for name in vars(fake.cuda.runtime):
        assert hasattr(importlib.import_module("cupy.cuda").runtime, name), name


def parameters(function: Any) -> list[tuple[str, str]]:
    """Names and defaults; what Cython has compiled tells them in the first line of its docstring."""
    try:
        found = [str(one.replace(annotation=one.empty)) for one in inspect.signature(function).parameters.values()]
    except ValueError:
        found = re.sub(r"\bint (?=\w)", "", re.search(r"\((.*)\)", function.__doc__)[1]).split(", ")
    return [tuple(one.replace('"', "'").split("=")) for one in found if one != "*"]
