"""The classes of gpu_lattice.backends.cuda_device for a machine without a GPU: NumPy arrays, kernels built by g++."""

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_lattice.backends import Device, Stream
from gpu_lattice.kernels.cuda.loader import FOLDER, kernels_in

HERE = Path(__file__).parent
SANITIZE = os.environ.get("CUDA_ON_CPU_SANITIZE", "")
# A folder where every library notes which of its lines are reached (lines_reached.py).
COVERAGE = os.environ.get("CUDA_ON_CPU_COVERAGE", "")
FLAGS = [
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-parameter",
    "-shared",
    "-fPIC",
]
POISON = 0xA5


def compiler() -> str | None:
    return shutil.which("g++")


def gcc_version() -> int:
    """The major version; 0 for another compiler, or none."""
    if compiler() is None or b"Free Software Foundation" not in subprocess.check_output(["g++", "--version"]):
        return 0
    return int(subprocess.check_output(["g++", "-dumpversion"]).split(b".")[0])


# Libraries that note which lines they reach.
counting: list[ctypes.CDLL] = []

COUNT_STEPS = ("-DCOUNT_STEPS", "-fsanitize-coverage=trace-pc")


@cache
def build(file: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """One .cu file as a shared library."""
    source = f'#include "cuda_on_cpu.h"\n#include "{file}.cu"\n' + "".join(
        f'extern "C" void launch_{kernel}(unsigned grid, unsigned block, bool reversed, void** args) '
        f"{{ launch({kernel}, grid, block, reversed, args); }}\n"
        for kernel in kernels_in(file)
    )
    flags = [*FLAGS, *options]
    if SANITIZE:
        flags += ["-g", f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
    elif COVERAGE and "-DSIMT" not in options:
        flags += ["--coverage"]
        source += 'extern "C" void __gcov_dump();\nextern "C" void write_coverage() { __gcov_dump(); }\n'
    headers = sorted([FOLDER / f"{file}.cu", *FOLDER.glob("common/*.cuh"), *HERE.glob("*.h")])
    library = ctypes.CDLL(str(compile_library(Path(file).name, source, flags, headers)))
    if "--coverage" in flags:
        counting.append(library)
    return library


def write_coverage() -> None:
    """What the libraries of this process have counted, before they would do so at its end: it may be killed."""
    for library in counting:
        library.write_coverage()


def compile_library(name: str, source: str, flags: list[str], headers: list[Path]) -> Path:
    """A shared library, kept by the hash of all that it is made of."""
    parts = [source, *flags, *(path.read_text("utf-8") for path in headers)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    folder = Path(COVERAGE or Path(gettempdir()) / f"cuda_on_cpu-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    library = folder / f"{name}-{digest}.so"
    if not library.exists():
        fresh = library.with_suffix(f".{os.getpid()}.so")
        subprocess.run(
            [str(compiler()), *flags, f"-I{HERE}", f"-I{FOLDER}", "-x", "c++", "-", "-o", str(fresh)],
            input=source, text=True, check=True,
        )  # fmt: skip
        fresh.replace(library)
    return library


class HostDevice:
    """memory: bytes that all buffers of its streams may take together; more is out of memory.

    most_steps, where counts_steps: by kernel, the most basic blocks that any of its threads has gone through.
    """

    xp = np
    name = "cuda:host"
    identity = "the host build"
    warp_threads = 1
    warps = 3

    def __init__(self, reversed: bool = False, memory: int = 1 << 34, counts_steps: bool = False) -> None:
        self._reversed = reversed
        self._counts_steps = counts_steps
        self.memory = memory
        self.refused = 0
        self.most_steps: dict[str, int] = {}

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def free_bytes(self) -> int:
        return self.memory

    def new_stream(self) -> Stream:
        return HostStream(self)

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.copy()

    def pinned(self, n_bytes: int) -> NDArray[np.uint8]:
        return np.full(n_bytes, POISON, np.uint8)

    def kernel(self, file: str, name: str, options: tuple[str, ...]) -> Any:
        library = build(file, options + COUNT_STEPS if self._counts_steps else options)
        function = getattr(library, f"launch_{name}")

        def launch(grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
            values = [as_argument(arg) for arg in args]
            addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
            function(ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]), ctypes.c_bool(self._reversed), addresses)
            if self._counts_steps:
                self.most_steps[name] = max(self.most_steps.get(name, 0), library.take_most_steps())

        return launch


# mypy checks that the backend may be given one.
_: type[Device] = HostDevice


def as_argument(arg: Any) -> Any:
    """What the address of a kernel's argument is given of, kept alive by it."""
    if arg is None:
        return ctypes.c_void_p(None)
    if isinstance(arg, np.ndarray):
        assert arg.flags.c_contiguous
        return ctypes.c_void_p(arg.ctypes.data)
    return {np.int64: ctypes.c_longlong, np.uint64: ctypes.c_ulonglong, np.float64: ctypes.c_double}[type(arg)](arg)


class HostStream:
    """Every buffer is as long as it must be, new each time, and full of nonsense."""

    def __init__(self, device: HostDevice) -> None:
        self._device = device
        self._sizes: dict[str, int] = {}

    def __enter__(self) -> "HostStream":
        return self

    def __exit__(self, *error: object) -> None: ...

    def empty(self, name: str, shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
        array = np.empty(shape, dtype)
        self._sizes[name] = array.nbytes
        if sum(self._sizes.values()) > self._device.memory // 2:
            self._device.refused += 1
            raise MemoryError
        array.view(np.uint8).fill(POISON)
        return array

    def upload(self, name: str, array: NDArray[Any], minus: int = 0, is_pinned: bool = False) -> NDArray[Any]:
        out = self.empty(name, array.shape, array.dtype)
        out[...] = array - minus if minus else array
        return out

    def download(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.copy()

    def follow_caller(self) -> None: ...

    def lead_caller(self) -> None: ...

    def synchronize(self) -> None: ...

    def clear(self) -> None:
        self._sizes.clear()


class OnDevice(np.ndarray):
    """Bytes as CuPy has them: NumPy gets them by `get` alone. `fetched` counts that."""

    fetched = 0

    class device:  # noqa: N801
        id = "host"

    def get(self) -> Any:
        OnDevice.fetched += 1
        return self.view(np.ndarray)
