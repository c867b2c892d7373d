"""One CUDA device through CuPy: arrays, streams with buffers of their own, kernels.

tests/cuda_on_cpu has the same classes for a machine without a GPU.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.kernels.cuda.loader import load
from gpu_lattice.runtime.on_host import copy_by_threads, is_on_device

if TYPE_CHECKING:
    from numpy.typing import NDArray

# As many blocks of one warp as a multiprocessor can hold.
WARPS_PER_MULTIPROCESSOR = 32


def device_count() -> int:
    """How many CUDA devices respond; 0 without a driver or CuPy."""
    try:
        # The driver, as CuPy's runtime looks for it: importing CuPy to find none takes hundreds of times longer.
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    try:
        import cupy

        return int(cupy.cuda.runtime.getDeviceCount())
    except Exception:  # CuPy raises all kinds of errors if a driver or a library is missing
        return 0


def find_device() -> CudaDevice | None:
    """The device that device="auto" takes: the first one, if CuPy can compile and run a kernel there, else None.

    Warns if a device responds that cannot be used.
    """
    if device_count() == 0:
        return None
    try:
        device = CudaDevice()
        with device:
            int(device.xp.full(1, 1, np.int32)[0])
    except Exception as error:
        warnings.warn(
            f"device='auto' takes the CPU, as CuPy cannot use the CUDA device that is here: {error}; give device='cpu' "
            "to avoid this warning, or check that CuPy's extra (gpu_lattice[cuda12] or [cuda13]) fits the driver",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return device


class CudaDevice:
    """Device number `ordinal`. Raises ImportError without CuPy, ValueError without such a device."""

    warp_threads = 32

    def __init__(self, ordinal: int = 0) -> None:
        try:
            import cupy
        except ImportError:
            raise ImportError(
                f"device='cuda:{ordinal}' needs CuPy; pip install 'gpu_lattice[cuda12]' or 'gpu_lattice[cuda13]', "
                "whichever the driver supports, or give device='cpu'"
            ) from None
        count = device_count()
        if ordinal >= count:
            raise ValueError(
                f"device='cuda:{ordinal}': {count} CUDA devices respond; check that the driver is installed and that "
                "CuPy's extra (gpu_lattice[cuda12] or [cuda13]) fits it, or give device='cpu'"
            )
        self.xp = cupy
        self.name = f"cuda:{ordinal}"
        self._device = cupy.cuda.Device(ordinal)
        runtime = cupy.cuda.runtime
        device = runtime.getDeviceProperties(ordinal)["name"].decode()
        versions = runtime.driverGetVersion(), runtime.runtimeGetVersion(), cupy.__version__
        self.identity = "{}, driver {}, runtime {}, CuPy {}".format(device, *versions)
        self.warps = WARPS_PER_MULTIPROCESSOR * int(self._device.attributes["MultiProcessorCount"])

    def free_bytes(self) -> int:
        """Bytes that the driver or CuPy's pool can provide now."""
        with self._device:
            return int(self._device.mem_info[0]) + int(self.xp.get_default_memory_pool().free_bytes())

    def give_back(self) -> None:
        """Return unused memory of the pool to the driver."""
        with self._device:
            self.xp.get_default_memory_pool().free_all_blocks()

    def kernel(self, file: str, name: str, options: tuple[str, ...]) -> Any:
        return load(file, options).get_function(name)

    def __enter__(self) -> None:
        self._device.__enter__()

    def __exit__(self, *error: object) -> None:
        self._device.__exit__(*error)

    def new_stream(self) -> CudaStream:
        return CudaStream(self)

    def pinned(self, n_bytes: int) -> NDArray[np.uint8]:
        """At least n_bytes: CuPy rounds up to a power of two."""
        cuda = self.xp.cuda
        try:
            return np.frombuffer(cuda.alloc_pinned_memory(n_bytes), np.uint8)
        except cuda.runtime.CUDARuntimeError as error:
            raise MemoryError(f"{n_bytes} bytes of pinned memory: {error}") from error

    def upload(self, array: NDArray[Any]) -> Any:
        """A table in memory of its own, ready for every stream when this returns."""
        with self._device:
            table = self.xp.asarray(array)
            self.xp.cuda.get_current_stream().synchronize()
            return table


class CudaStream:
    """A stream, with reusable device and pinned buffers that grow."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        with device:
            self.cupy_stream = device.xp.cuda.Stream(non_blocking=True)
        # CuPy's pool keeps freed memory by the number of its stream, which a later stream may have.
        weakref.finalize(self, self.cupy_stream.synchronize).atexit = False
        self._buffers: dict[str, Any] = {}
        self._pinned: dict[str, NDArray[np.uint8]] = {}

    def __enter__(self) -> CudaStream:
        self.cupy_stream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.cupy_stream.__exit__(*error)

    def empty(self, name: str, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """The buffer `name`, whose earlier content is lost. The stream must be the current one."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < n_bytes:
            self._buffers.pop(name, None)
            del buffer
            buffer = self._buffers[name] = self._device.xp.empty(n_bytes + n_bytes // 8, np.uint8)
        return buffer[:n_bytes].view(dtype).reshape(shape)

    def upload(self, name: str, array: NDArray[Any], minus: int = 0, is_pinned: bool = False) -> Any:
        """Copy to the buffer `name` without waiting. The previous copy by this name must be done.

        minus: what is taken from every number on the way, unless the array is pinned: then it goes as it is, and must
        stay until it has gone. An array on the device must be ready in this stream.
        """
        out = self.empty(name, array.shape, array.dtype)
        if array.size == 0:
            return out
        if is_on_device(array):
            out[...] = array
            return out
        if not is_pinned:
            staged = self._pinned.get(name)
            if staged is None or staged.size < array.nbytes:
                self._pinned.pop(name, None)
                staged = self._pinned[name] = self._device.pinned(array.nbytes)
            view = staged[: array.nbytes].view(array.dtype).reshape(array.shape)
            copy_by_threads(array, view, minus)
            array = view
        out.set(array, stream=self.cupy_stream)
        return out

    def follow_caller(self) -> None:
        """Order later work of this stream after all earlier work of the caller's stream.

        The pool may hand out memory that an earlier kernel of the caller's stream still reads.
        """
        self._order(self._device.xp.cuda.get_current_stream(), self.cupy_stream)

    def lead_caller(self) -> None:
        """Order later work of the caller's stream after all earlier work of this stream."""
        self._order(self.cupy_stream, self._device.xp.cuda.get_current_stream())

    def _order(self, first: Any, then: Any) -> None:
        then.wait_event(first.record(self._device.xp.cuda.Event(disable_timing=True)))

    def download(self, array: Any) -> NDArray[Any]:
        """A copy on the host; waits for all of this stream."""
        host: NDArray[Any] = array.get(stream=self.cupy_stream)
        return host

    def synchronize(self) -> None:
        self.cupy_stream.synchronize()

    def clear(self) -> None:
        """Free all buffers."""
        self.synchronize()
        self._buffers.clear()
        self._pinned.clear()
        self._device.give_back()
