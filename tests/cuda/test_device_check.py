"""A device is trusted when it has shown itself; the host build stands in for good ones and bad ones."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.host_device import HostDevice, compiler

from gpu_lattice import Tokenizer
from gpu_lattice import device_check as module
from gpu_lattice.backends import cuda_device as devices
from gpu_lattice.cli import main
from gpu_lattice.tokenizer import check_device

PIECES = {"ab": -1.0, "a": -2.0, "b": -2.5}


class WrongDevice(HostDevice):
    """Its last kernel writes one id that is another one."""

    identity = "a device with a wrong bit"

    def kernel(self, file: str, name: str, options: tuple[str, ...]) -> Any:
        right = super().kernel(file, name, options)

        def launch(grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
            right(grid, block, args)
            ids = [arg for arg in args if isinstance(arg, np.ndarray)][-1]
            if name == "place_ids" and ids.size:
                ids[-1] ^= 1

        return launch


class FailingDevice(HostDevice):
    identity = "a device that fails"
    calls = 0

    def kernel(self, file: str, name: str, options: tuple[str, ...]) -> Any:
        type(self).calls += 1
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    monkeypatch.setenv("GPU_LATTICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_known", {})
    monkeypatch.setattr(devices, "device_count", lambda: 1)


def answer(monkeypatch: pytest.MonkeyPatch, device: type[HostDevice]) -> None:
    monkeypatch.setattr(devices, "CudaDevice", lambda ordinal=0: device())


def test_a_device_with_the_cpus_results_is_trusted_and_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    answer(monkeypatch, HostDevice)
    real = module._check
    monkeypatch.setattr(module, "_check", lambda pairs: looked.append(1) or real(pairs))
    for _ in range(2):
        assert Tokenizer.from_pieces(PIECES).device == "cuda:host"
    module._known.clear()  # as in another process
    assert Tokenizer.from_pieces(PIECES, device="cuda").device == "cuda:host"
    assert looked == [1]
    assert check_device(HostDevice(), again=True) == ""
    assert looked == [1, 1]


def test_auto_takes_the_cpu_where_ids_differ_and_cuda_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, WrongDevice)
    with pytest.warns(RuntimeWarning, match=r"takes the CPU: its results .* are not the CPU's \(first: "):
        assert Tokenizer.from_pieces(PIECES).device == "cpu"
    with pytest.raises(ValueError, match=r"device='cuda': its results .* give device='cpu'"):
        Tokenizer.from_pieces(PIECES, device="cuda")


def test_a_device_that_fails_is_not_taken_and_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, FailingDevice)
    for _ in range(2):
        before = FailingDevice.calls
        with pytest.warns(RuntimeWarning, match="cannot run the kernels: CUDA_ERROR_ILLEGAL_ADDRESS"):
            assert Tokenizer.from_pieces(PIECES).device == "cpu"
        assert FailingDevice.calls > before
    with pytest.raises(ValueError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        Tokenizer.from_pieces(PIECES, device="cuda:0")


def test_the_doctor_says_what_a_device_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gpu_lattice.benchmark.machine._gpu", lambda _: {"name": "the host", "driver": "none"})
    answer(monkeypatch, HostDevice)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "cuda:0: every operation gives the CPU's bits" in shown
    assert "compiled kernels: in" in shown
    answer(monkeypatch, WrongDevice)
    assert main(["doctor"]) == 2
    assert "cuda:0: its results for a small batch are not the CPU's" in capsys.readouterr().out


def test_the_doctor_needs_no_device(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(devices, "device_count", lambda: 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["doctor"]) == 0
    assert "no CUDA device responds" in capsys.readouterr().out


def test_warm_says_when_a_model_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warm", "--device", "cpu"]) == 0
    assert "is ready, after" in capsys.readouterr().out
