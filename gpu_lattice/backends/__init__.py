"""Where texts are segmented: on the CPU or a CUDA device, behind one interface.

Callers know only a Backend and its Launcher, whichever these are. The CUDA backend knows a Device and its Streams:
CUDA's through CuPy, or in tests ones that need only a C++ compiler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from gpu_lattice.backends.tables import Tables
    from gpu_lattice.kernels.cpu.bulk.words import Words
    from gpu_lattice.models import Model
    from gpu_lattice.normalizers import NormalizedBatch, PendingBatch
    from gpu_lattice.text_batch import TextBatch


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


class Draw(NamedTuple):
    """What samples of a batch depend on, in the order of the arguments of Backend.sample; doc_ids uint64 [D]."""

    alpha: float
    num_samples: int
    seed: int
    doc_ids: NDArray[np.uint64]
    return_log_prob: bool
    token_penalty: float


class Positions(NamedTuple):
    """A lattice without its arcs; the fields are those of LatticeArrays."""

    doc_positions: Any
    marks: Any
    text: Any


class LatticeArrays(NamedTuple):
    """B documents of n bytes have n + 1 positions each, P in all, and A arcs.

    doc_positions  int64 [B + 1], the first position of each document
    arc_offsets    int64 [P + 1]: the arcs into position p are arc_offsets[p] to arc_offsets[p + 1], shortest first
    arcs           int32 [A]: a piece id, UNKNOWN, or TOKEN_ARC - id
    lengths        int32 [A], bytes
    marks          uint8 [P], kernels.cpu.lattice.build
    text           uint8 [N], the normalized bytes
    """

    doc_positions: Any
    arc_offsets: Any
    arcs: Any
    lengths: Any
    marks: Any
    text: Any

    @property
    def positions(self) -> Positions:
        return Positions(self.doc_positions, self.marks, self.text)

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self)


class Ranges(NamedTuple):
    """Ranges of positions whose ends no arc spans; int64 each.

    starts, stops  [S], neighbours share a position; docs [S], the document of each
    offsets        [B + 1], the first range of each document
    """

    starts: Any
    stops: Any
    docs: Any
    offsets: Any


class Distinct(NamedTuple):
    """A lattice whose ranges have those of another one among them, each of which needs to be worked out only once.

    of_range  int64 [S], which of its ranges each range of the other one is equal to
    """

    arrays: LatticeArrays
    ranges: Ranges
    of_range: Any

    @property
    def arc_ranges(self) -> tuple[Any, Any]:
        """(starts, stops) of the arcs of each of its own ranges."""
        return self.arrays.arc_offsets[self.ranges.starts + 1], self.arrays.arc_offsets[self.ranges.stops + 1]

    @property
    def num_arcs(self) -> Any:
        """int64, the arcs of each of its own ranges."""
        starts, stops = self.arc_ranges
        return stops - starts


class Backend(Protocol):
    """A vocabulary on a device; results are on the device, arguments on the host unless stated otherwise."""

    @property
    def device(self) -> str:
        """Where the lattices are: "cpu", or "cuda:0" and so on."""

    @property
    def memory_limit(self) -> int | None:
        """Bytes of device memory for a call's batches; None if there is no limit, or it is not yet known."""

    @property
    def launcher(self) -> Launcher:
        """Runs the lattice kernels."""

    @property
    def tables(self) -> Tables:
        """The model's tables, on the host."""

    def rescored(self, model: Model) -> Backend:
        """One for the same model with other scores, on the same device."""

    def ranges(self, offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
        """The ranges of documents for the calls of `encode` or `sample`."""

    def takes(self, texts: TextBatch) -> bool:
        """Whether texts on its GPU are segmented as they are there; others are normalized on the host."""

    def encode(
        self, batch: NormalizedBatch | PendingBatch, is_null: NDArray[np.bool_], words: Words | None = None
    ) -> Rows:
        """Best segmentation of every document; is_null bool [D] marks rows without ids.

        words: the batch's; if given, rows are those of words, with nothing around them.
        """

    def sample(
        self,
        batch: NormalizedBatch | PendingBatch,
        is_null: NDArray[np.bool_],
        alpha: float,
        num_samples: int,
        seed: int,
        doc_ids: NDArray[np.uint64],
        return_log_prob: bool,
        token_penalty: float = 0.0,
        words: Words | None = None,
    ) -> Rows:
        """num_samples perfect samples of every document; doc_ids uint64 [D], a 64-bit seed; words: as for `encode`."""

    def find_words(self, batch: NormalizedBatch) -> Words:
        """The words of a batch, on the host."""

    def find_unspellable(self, batch: NormalizedBatch, words: Words) -> NDArray[np.bool_]:
        """bool [W], on the host: which words no path spells."""

    def find_arcs(
        self, values: Any, offsets: Any, chunk_offsets: Any, chunk_ids: Any, fits: Callable[[int], None]
    ) -> LatticeArrays | tuple[Positions, Distinct]:
        """The lattice of normalized text, or what its arcs are copied from.

        values uint8 [N], offsets int64 [B + 1] from 0, chunk_offsets int64 [C + 1] from 0 and chunk_ids int32 [C] on
        the host. fits(number of bytes) raises if that is too much.
        """

    def forget(self) -> None:
        """Drop caches, which only save time."""


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

        args: the kernel's parameters by name; TypeError if one is missing or unknown.
        """

    def free_bytes(self) -> int:
        """Bytes that new arrays may take."""


class Device(Protocol):
    """A device with memory that runs kernels. A context, in which it is the current device.

    identity  what its results may depend on: the device, its driver, the libraries
    warps     how many blocks of warp_threads threads work at once
    """

    name: str
    identity: str
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
        """A table in memory of its own, ready for every stream when this returns."""

    def pinned(self, n_bytes: int) -> NDArray[np.uint8]:
        """At least so many bytes on the host, which are copied to the device without another copy."""

    def new_stream(self) -> Stream: ...


class Stream(Protocol):
    """Work done in order, and reusable buffers. A context, in which it is the current stream."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> None: ...

    def empty(self, name: str, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """The buffer `name`, whose earlier content is lost. The stream must be the current one."""

    def upload(self, name: str, array: NDArray[Any], minus: int = 0, is_pinned: bool = False) -> Any:
        """Copy to the buffer `name` without waiting. The previous copy by this name must be done.

        minus: what is taken from every number on the way, unless the array is pinned: then it goes as it is, and must
        stay until it has gone. An array on the device must be ready in this stream.
        """

    def download(self, array: Any) -> NDArray[Any]:
        """A copy on the host; waits for all of this stream."""

    def follow_caller(self) -> None:
        """Order later work of this stream after all earlier work of the caller's current stream."""

    def lead_caller(self) -> None:
        """Order later work of the caller's current stream after all earlier work of this stream."""

    def synchronize(self) -> None: ...

    def clear(self) -> None:
        """Free all buffers."""
