"""Where texts are segmented: the CPU or a CUDA device, by the same few functions.

What is above knows a Backend and its Launcher, and does not ask which one it holds. The CUDA backend knows a Device and
its Streams: CUDA's through CuPy, or in tests ones that a C++ compiler is enough for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from gpu_lattice.normalizers import NormalizedBatch


class NoPathError(ValueError):
    """No segmentation exists. position: the byte of the normalized batch before which the lattice is broken."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Rows(NamedTuple):
    """ids int32, offsets int64 [rows + 1], log_prob float64 [rows] or None."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    log_prob: NDArray[np.float64] | None


class TrieTables(NamedTuple):
    """The trie as a backend's kernels of lattices take it (kernels.*.lattice.build), by the names that it has there."""

    slots: Any
    piece_at: Any
    has_unknown: bool
    is_bytes: bool


class Backend(Protocol):
    """A vocabulary on a device; what it returns is there, what it is given is on the host unless it says otherwise."""

    @property
    def device(self) -> str:
        """Where the lattices are: "cpu", or "cuda:0" and so on."""

    @property
    def memory_limit(self) -> int | None:
        """Bytes of device memory for a call's batches; None for no limit, or one that is not yet known."""

    @property
    def launcher(self) -> Launcher:
        """What runs the kernels of lattices."""

    @property
    def trie_tables(self) -> TrieTables: ...

    def ranges(self, offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
        """The documents that each call of `encode` or `sample` is to have."""

    def encode(self, batch: NormalizedBatch, is_null: NDArray[np.bool_]) -> Rows:
        """Best segmentation of every document; is_null bool [D] marks rows without any id."""

    def sample(
        self,
        batch: NormalizedBatch,
        is_null: NDArray[np.bool_],
        alpha: float,
        num_samples: int,
        seed: int,
        doc_ids: NDArray[np.uint64],
        return_log_prob: bool,
    ) -> Rows:
        """num_samples perfect samples of every document; doc_ids uint64 [D], seed of 64 bits."""

    def mark_cuts(self, values: Any, chunk_offsets: Any, chunk_ids: Any) -> Any:
        """uint8 [n + 1]: the marks of every position of a batch (kernels.cpu.lattice.build); all on the device."""

    def forget(self) -> None:
        """Drop what only ever saves time."""


class Launcher(Protocol):
    """Runs kernels on arrays of one device. A context, in which that is the current device."""

    device: str

    @property
    def xp(self) -> Any:
        """numpy or cupy."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def upload(self, array: NDArray[Any]) -> Any: ...

    def run(self, kernel: str, n: int, /, **args: Any) -> None:
        """Units 0..n of a kernel's work (kernels.cpu.lattice), each of which owns its output.

        args: the kernel's parameters by name; TypeError where one is missing, or is none of them.
        """

    def free_bytes(self) -> int:
        """Bytes that new arrays may take."""


class Device(Protocol):
    """What has memory and runs kernels. A context, in which it is the current device.

    warps: how many blocks of warp_threads threads work at once
    """

    name: str
    warp_threads: int
    warps: int

    @property
    def xp(self) -> Any:
        """numpy or cupy."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def kernel(self, file: str, name: str, options: tuple[str, ...]) -> Callable[..., Any]:
        """A kernel of a .cu file, compiled with these options; called with (blocks,), (threads,), (argument, ...)."""

    def free_bytes(self) -> int:
        """Bytes that new arrays may take."""

    def upload(self, array: NDArray[Any]) -> Any:
        """A table, in memory of its own; it is there for every stream when this returns."""

    def new_stream(self) -> Stream: ...


class Stream(Protocol):
    """Work in order, and buffers that stay. A context, in which it is the current stream."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> None: ...

    def empty(self, name: str, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """The buffer `name`; what it held before is lost. The stream must be the current one."""

    def upload(self, name: str, array: NDArray[Any]) -> Any:
        """Copy to the buffer `name` without waiting. The last copy by this name must be done."""

    def download(self, array: Any) -> NDArray[Any]:
        """A copy on the host; waits for all of this stream."""

    def follow_caller(self) -> None:
        """What this stream gets from now on comes after all that the caller's current stream has been given."""

    def lead_caller(self) -> None:
        """What the caller's current stream gets from now on comes after all that this stream has been given."""

    def synchronize(self) -> None: ...

    def clear(self) -> None:
        """Give all buffers back."""
