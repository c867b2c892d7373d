"""Which device a tokenizer takes, and what of its memory; with the host build standing in for a GPU."""

import pickle
import subprocess
import sys
import warnings
from typing import Any

import pytest
from cuda_on_cpu.host_device import HostDevice, compiler

from gpu_lattice import Tokenizer
from gpu_lattice.backends import cuda_device as devices
from gpu_lattice.backends.cpu import CpuBackend
from gpu_lattice.backends.cuda import CudaBackend

PIECES = {"ab": -1.0, "a": -2.0, "b": -2.5}


class BrokenDevice:
    def __init__(self) -> None:
        raise RuntimeError("no CUDA headers")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    monkeypatch.setattr(devices, "device_count", lambda: 1)
    monkeypatch.setattr(devices, "CudaDevice", lambda ordinal=0: HostDevice())


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "device_count", lambda: 0)


@pytest.mark.usefixtures("gpu")
def test_auto_takes_the_device_that_answers() -> None:
    auto, cpu = Tokenizer.from_pieces(PIECES), Tokenizer.from_pieces(PIECES, device="cpu")
    assert isinstance(auto._backend, CudaBackend)
    assert auto.device == "cuda:host"
    assert auto.encode(["abba"]).tolist() == cpu.encode(["abba"]).tolist()
    assert auto.sample(["abba"] * 9, seed=0).tolist() == cpu.sample(["abba"] * 9, seed=0).tolist()
    assert isinstance(cpu._backend, CpuBackend)


@pytest.mark.usefixtures("no_gpu")
def test_auto_takes_the_cpu_where_no_device_answers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(Tokenizer.from_pieces(PIECES)._backend, CpuBackend)


def test_auto_takes_the_cpu_with_a_warning_where_cupy_cannot_use_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "device_count", lambda: 1)
    monkeypatch.setattr(devices, "CudaDevice", BrokenDevice)
    with pytest.warns(RuntimeWarning, match="device='auto' takes the CPU.*no CUDA headers"):
        tokenizer = Tokenizer.from_pieces(PIECES)
    assert tokenizer.device == "cpu"


@pytest.mark.parametrize("fault", [ImportError("half installed"), RuntimeError("driver too old"), OSError("libnvrtc")])
def test_no_device_answers_through_a_broken_cupy(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise fault

    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: None)
    monkeypatch.setitem(sys.modules, "cupy", Broken())
    assert devices.device_count() == 0
    assert Tokenizer.from_pieces(PIECES).device == "cpu"
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert devices.device_count() == 0


def test_auto_does_not_import_cupy_where_there_is_no_driver() -> None:
    code = """
import ctypes, sys
from gpu_lattice import Tokenizer
Tokenizer.from_pieces(["a"], device="cpu")
assert "cupy" not in sys.modules
def CDLL(name):
    raise OSError(name)
ctypes.CDLL = CDLL
assert Tokenizer.from_pieces(["a"]).device == "cpu"
assert "cupy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("gpu")
def test_the_memory_limit_travels_with_the_tokenizer() -> None:
    for tokenizer in (
        Tokenizer.from_pieces(PIECES, memory_limit=10**8),
        Tokenizer.default(device="cuda", memory_limit=10**8),
        Tokenizer(Tokenizer.from_pieces(PIECES)._model, memory_limit=10**8),
    ):
        for one in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
            assert isinstance(one._backend, CudaBackend)
            assert one._backend._memory_limit == 10**8


@pytest.mark.usefixtures("gpu")
def test_a_memory_limit_too_small_for_a_text_is_named() -> None:
    tokenizer = Tokenizer.from_pieces(PIECES, memory_limit=5000)
    with pytest.raises(MemoryError, match=r"document 1 has 400 normalized bytes.*memory_limit is 5000"):
        tokenizer.encode(["a", "ab" * 200])


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (0, ValueError, "memory_limit is 0"),
        (-1, ValueError, "memory_limit is -1"),
        (2**63, ValueError, "memory_limit is 9223372036854775808"),
        (1e9, TypeError, "memory_limit is 1000000000.0; give an integer"),
        ("1GB", TypeError, "memory_limit is '1GB'"),
    ],
)
def test_memory_limits_that_mean_nothing_are_refused(limit: Any, error: type, message: str) -> None:
    for device in ("auto", "cpu"):
        with pytest.raises(error, match=message):
            Tokenizer.from_pieces(PIECES, device=device, memory_limit=limit)


@pytest.mark.usefixtures("no_gpu")
def test_the_cpu_refuses_a_memory_limit_that_auto_may_ignore() -> None:
    with pytest.raises(ValueError, match="memory_limit is 100, but device='cpu' takes no device memory"):
        Tokenizer.from_pieces(PIECES, device="cpu", memory_limit=100)
    tokenizer = Tokenizer.from_pieces(PIECES, memory_limit=100)
    assert pickle.loads(pickle.dumps(tokenizer)).device == tokenizer.device == "cpu"


@pytest.mark.usefixtures("no_gpu")
def test_the_command_takes_a_memory_limit(capfd: pytest.CaptureFixture[str]) -> None:
    from gpu_lattice.cli import main

    assert main(["encode", "a", "--memory-limit", "1.5GB"]) == 0
    assert main(["encode", "a", "--memory-limit", "1GB", "--device", "cpu"]) == 2
    assert "memory_limit is 1000000000" in capfd.readouterr().err


@pytest.mark.usefixtures("gpu")
def test_a_forked_process_is_told_to_spawn() -> None:
    tokenizer = Tokenizer.from_pieces(PIECES)
    tokenizer._backend._process += 1  # type: ignore[attr-defined]
    for call in (tokenizer.encode, tokenizer.sample):
        with pytest.raises(RuntimeError, match="start workers by spawn"):
            call(["ab"])
