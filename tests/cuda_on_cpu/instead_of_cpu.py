"""A pytest plugin: every tokenizer of device="cpu" runs the CUDA sources, built by g++, instead of Numba's kernels."""

from typing import Any

from cuda_on_cpu.host_device import HostDevice

import gpu_lattice.tokenizer
from gpu_lattice.backends.cuda import CudaBackend


def _cuda_backend(model: Any, threads: int) -> CudaBackend:
    backend = CudaBackend(model, HostDevice(reversed=threads > 1))
    backend.device = "cpu"
    return backend


gpu_lattice.tokenizer.CpuBackend = _cuda_backend  # type: ignore[assignment,misc]
