"""One CUDA device through CuPy: arrays, streams with buffers of their own, kernels.

tests/cuda_on_cpu has the same classes for a machine without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_lattice.kernels.cuda.loader import load

if TYPE_CHECKING:
    from numpy.typing import NDArray

# As many blocks of one warp as a multiprocessor can hold.
WARPS_PER_MULTIPROCESSOR = 32


def device_count() -> int:
    """How many CUDA devices answer; 0 without CuPy or a driver."""
    try:
        import cupy

        return int(cupy.cuda.runtime.getDeviceCount())
    except Exception:  # CuPy raises what it likes where a driver or a library is missing
        return 0


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
                f"device='cuda:{ordinal}': {count} CUDA devices answer; see that the driver is installed and that "
                "CuPy's extra (gpu_lattice[cuda12] or [cuda13]) fits it, or give device='cpu'"
            )
        self.xp = cupy
        self.name = f"cuda:{ordinal}"
        self.out_of_memory: tuple[type[BaseException], ...] = (cupy.cuda.memory.OutOfMemoryError,)
        self._device = cupy.cuda.Device(ordinal)
        self.warps = WARPS_PER_MULTIPROCESSOR * int(self._device.attributes["MultiProcessorCount"])

    def free_bytes(self) -> int:
        """Bytes that the driver, or CuPy's pool, could give out now."""
        with self._device:
            return int(self._device.mem_info[0]) + int(self.xp.get_default_memory_pool().free_bytes())

    def kernel(self, file: str, name: str, options: tuple[str, ...]) -> Any:
        return load(file, options).get_function(name)

    def __enter__(self) -> None:
        self._device.__enter__()

    def __exit__(self, *error: object) -> None:
        self._device.__exit__(*error)

    def follow_caller(self, stream: CudaStream) -> None:
        """What the stream gets from now on comes after all that the caller's stream has been given.

        The pool may hand the caller memory that an earlier kernel of the caller's stream still reads.
        """
        stream.cupy_stream.wait_event(self.xp.cuda.get_current_stream().record())

    def lead_caller(self, stream: CudaStream) -> None:
        """What the caller's stream gets from now on comes after all that this stream has been given."""
        self.xp.cuda.get_current_stream().wait_event(stream.cupy_stream.record())

    def new_stream(self) -> CudaStream:
        return CudaStream(self)

    def upload(self, array: NDArray[Any]) -> Any:
        """A table, in memory of its own; it is there for every stream when this returns."""
        with self._device:
            table = self.xp.asarray(array)
            self.xp.cuda.get_current_stream().synchronize()
            return table


class CudaStream:
    """A stream, with device and pinned buffers that grow and stay."""

    def __init__(self, device: CudaDevice) -> None:
        self._xp = device.xp
        with device._device:
            self.cupy_stream = device.xp.cuda.Stream(non_blocking=True)
        self._buffers: dict[str, Any] = {}
        self._pinned: dict[str, NDArray[np.uint8]] = {}

    def __enter__(self) -> CudaStream:
        self.cupy_stream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.cupy_stream.__exit__(*error)

    def empty(self, name: str, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """The buffer `name`; what it held before is lost."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < n_bytes:
            self._buffers.pop(name, None)
            del buffer
            buffer = self._buffers[name] = self._xp.empty(n_bytes + n_bytes // 8, np.uint8)
        return buffer[:n_bytes].view(dtype).reshape(shape)

    def upload(self, name: str, array: NDArray[Any]) -> Any:
        """Copy to the buffer `name` without waiting. The last copy by this name must be done."""
        out = self.empty(name, array.shape, array.dtype)
        if array.size == 0:
            return out
        staged = self._pinned.get(name)
        if staged is None or staged.size < array.nbytes:
            memory = self._xp.cuda.alloc_pinned_memory(array.nbytes + array.nbytes // 8)
            staged = self._pinned[name] = np.frombuffer(memory, np.uint8)
        view = staged[: array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        out.set(view, stream=self.cupy_stream)
        return out

    def download(self, array: Any) -> NDArray[Any]:
        """A copy on the host; waits for all of this stream."""
        host: NDArray[Any] = array.get(stream=self.cupy_stream)
        return host

    def synchronize(self) -> None:
        self.cupy_stream.synchronize()

    def clear(self) -> None:
        """Give all buffers back."""
        self.synchronize()
        self._buffers.clear()
        self._pinned.clear()
        self._xp.get_default_memory_pool().free_all_blocks()
