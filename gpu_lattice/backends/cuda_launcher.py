"""Kernels on a CUDA device. They run on the caller's current stream and write the caller's arrays.

Lattice kernels take `n`, their units of work, and then the same arguments as on the CPU; a thread does one unit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.kernels.cuda.loader import define_options, kernel_files, kernels_in
from gpu_lattice.runtime.arguments import in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpu_lattice.backends import Device

THREADS_PER_BLOCK = 128


class CudaLauncher:
    """Runs kernels on arrays of one device.

    constants: the definitions that sources are compiled with; kernel: a kernel by name, looked up once.
    """

    def __init__(self, device: Device, constants: dict[str, object]) -> None:
        self.xp = device.xp
        self.device = device.name
        self._device = device
        self._constants = constants
        self.kernel = lru_cache(maxsize=None)(self._find_kernel)

    def __enter__(self) -> None:
        self._device.__enter__()

    def __exit__(self, *error: object) -> None:
        self._device.__exit__(*error)

    def upload(self, array: NDArray[Any]) -> Any:
        return self._device.upload(array)

    def run(self, kernel: str, n: int, /, **args: Any) -> None:
        """Units 0..n of a lattice kernel's work; TypeError for arguments that are not its parameters."""
        with self._device:
            self.threads(kernel, n, n=int(n), **args)

    def threads(self, kernel: str, n: int, /, **args: Any) -> None:
        """A kernel on at least n threads, not launched for 0; all its arguments by name."""
        self.blocks(kernel, -(-int(n) // THREADS_PER_BLOCK), THREADS_PER_BLOCK, **args)

    def blocks(self, kernel: str, n: int, threads: int, /, **args: Any) -> None:
        """A kernel on n blocks of this many threads."""
        values = typed(in_order(kernel, kernels_in(kernel_files()[kernel])[kernel], args))
        if n > 0:
            self.kernel(kernel)((n,), (threads,), values)

    def free_bytes(self) -> int:
        """Bytes that new arrays may take."""
        return self._device.free_bytes()

    def _find_kernel(self, kernel: str) -> Any:
        file = kernel_files()[kernel]
        return self._device.kernel(file, kernel, define_options(file, self._constants))


def typed(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with Python numbers as i64 and double."""
    return tuple(
        np.int64(arg) if isinstance(arg, int) else np.float64(arg) if isinstance(arg, float) else arg for arg in args
    )
