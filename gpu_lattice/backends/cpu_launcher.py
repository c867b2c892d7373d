"""Lattice kernels on the CPU, with the same arguments as in cuda_launcher.py."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.kernels.cpu.lattice import kernels
from gpu_lattice.runtime.arguments import in_order
from gpu_lattice.runtime.threads import map_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANGES_PER_THREAD = 8


class CpuLauncher:
    """Runs a kernel's units of work on some threads; arrays are NumPy's."""

    xp = np
    device = "cpu"

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def run(self, kernel: str, n: int, /, **args: Any) -> None:
        """Units 0..n of a kernel's work; TypeError for arguments that are not its parameters."""
        function, parameters = kernels()[kernel]
        values = in_order(kernel, parameters, args)
        bounds = np.unique(np.linspace(0, n, self._threads * RANGES_PER_THREAD + 1).astype(np.int64))
        map_ranges(lambda low, high: function(low, high, *values), [(int(a), int(b)) for a, b in pairwise(bounds)],
                   self._threads)  # fmt: skip

    def free_bytes(self) -> int:
        """Bytes that new arrays may take without swapping."""
        try:
            fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
            return int(fields["MemAvailable"].split()[0]) * 1024
        except (OSError, KeyError):
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 32
