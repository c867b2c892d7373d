"""Lattice kernels on a CUDA device, by name: what kernels/cpu/launch.py does on the CPU, with the same arguments.

Kernels run on the caller's current stream and write arrays of the caller's; the first argument of each is the number of
its units of work, and a thread does one of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.kernels.cuda.loader import define_options, kernel_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

THREADS_PER_BLOCK = 128


class CudaLauncher:
    """Runs a kernel's units of work on a device (kernels.cuda.device.CudaDevice); arrays are CuPy's.

    constants: what the sources are compiled with; kernel: a kernel by its name, found once.
    """

    def __init__(self, device: Any, constants: dict[str, object]) -> None:
        self.xp = device.xp
        self.device: str = device.name
        self._device = device
        self._constants = constants
        self.kernel = lru_cache(maxsize=None)(self._find_kernel)

    def __enter__(self) -> None:
        self._device.__enter__()

    def __exit__(self, *error: object) -> None:
        self._device.__exit__(*error)

    def upload(self, array: NDArray[Any]) -> Any:
        return self._device.upload(array)

    def run(self, kernel: str, n: int, *args: Any) -> None:
        """Units 0..n of a kernel; each owns its output."""
        if n > 0:
            blocks = -(-int(n) // THREADS_PER_BLOCK)
            with self._device:
                self.kernel(kernel)((blocks,), (THREADS_PER_BLOCK,), typed((int(n), *args)))

    def free_bytes(self) -> int:
        """Bytes that new arrays may take."""
        return int(self._device.free_bytes())

    def _find_kernel(self, kernel: str) -> Any:
        file = kernel_files()[kernel]
        return self._device.kernel(file, kernel, define_options(file, self._constants))


def typed(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python's numbers as the kernels' i64 and double."""
    return tuple(
        np.int64(arg) if isinstance(arg, int) else np.float64(arg) if isinstance(arg, float) else arg for arg in args
    )
