"""What to print of a machine when something is wrong, and whether its devices give what the CPU gives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gpu_lattice.backends import cuda_device
from gpu_lattice.benchmark.machine import describe, one_line
from gpu_lattice.kernels.compiled import KERNELS
from gpu_lattice.runtime import cache
from gpu_lattice.runtime.version import DRAWS
from gpu_lattice.tokenizer import check_device


def examine() -> Iterator[tuple[str, bool]]:
    """Lines to print as they come, each with whether what it says is well. Each device is checked anew.

    Example:
        >>> all(is_well for _, is_well in examine())  # doctest: +SKIP
        True
    """
    machine = describe()
    yield one_line(machine), True
    versions = (f"{name} {version}" for name, version in machine["versions"].items())
    yield f"{', '.join(versions)}; draws of version {DRAWS}", True
    compiled = Path(os.environ.get("NUMBA_CACHE_DIR") or KERNELS)
    yield f"compiled kernels: in {compiled}{_unless_writable(compiled)}", True
    tables = cache.folder()
    where = "nowhere (GPU_LATTICE_CACHE)" if tables is None else f"in {tables}{_unless_writable(tables)}"
    yield f"tables and checks: {where}", True
    count = cuda_device.device_count()
    if count == 0:
        yield "no CUDA device responds through CuPy: everything runs on the CPU", True
    for ordinal in range(count):
        fault = _fault(ordinal)
        yield f"cuda:{ordinal}: " + (fault or "every operation gives the CPU's bits"), not fault


def _fault(ordinal: int) -> str:
    try:
        return check_device(cuda_device.CudaDevice(ordinal), again=True)
    except (ImportError, ValueError) as error:
        return str(error)


def _unless_writable(folder: Path) -> str:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return "" if os.access(there, os.W_OK) else ", which is not writable: each process makes its own"
