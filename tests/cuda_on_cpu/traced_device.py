"""A HostDevice whose kernels run as warps of one multiprocessor, and which counts what they ask of it (warps.cpp)."""

import ctypes
import re
import subprocess
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cuda_on_cpu.host_device import FLAGS, HERE, HostDevice, as_argument, build, compile_library
from numpy.typing import NDArray

from gpu_lattice.kernels.cuda.loader import kernels_in

LANES = 32
SHARED = "shared memory"
# One load or store and one basic block for each of the source's, so that lanes meet where a GPU's do.
TRACED = (
    "-DSIMT", "-g", "-O1", "-fno-thread-jumps", "-fno-tree-dominator-opts", "-finline-functions",
    "-finline-limit=100000", "--param=large-function-growth=100000",
    "-fpeel-loops", "--param=max-completely-peeled-insns=1000", "-fsanitize=thread",
    "-fsanitize-coverage=trace-pc", "-nodefaultlibs",
)  # fmt: skip
TRACER_CALL = re.compile(r"call .*<__sanitizer_cov_trace_pc@plt>\n\s*([0-9a-f]+):")
LINE_ROW = re.compile(r"\s(0x[0-9a-f]+)\s")

# A line of the source: (file, line) of what is inlined there, and then of every call around it.
Place = tuple[tuple[str, int], ...]


class Traffic(ctypes.Structure):
    """Of one array: loads and stores of warps, the lanes and the distinct 32-byte sectors of all of them; what L1 asks
    L2 for, and loads that wait for that; the same of L2 and DRAM, in sectors, or in 128-byte lines if L2 holds such.
    """

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "loads", "load_lanes", "load_sectors", "stores", "store_lanes", "store_sectors",
            "l2_loads", "l2_waits", "dram_sectors", "dram_waits", "dram_lines",
        )
    ]  # fmt: skip


class Block(NamedTuple):
    """A basic block of g++'s: its places, executions by warps and by lanes, whether an outermost loop begins."""

    places: tuple[Place, ...]
    warps: int
    lanes: int
    begins_loop: bool


class Access(NamedTuple):
    """A load or store of g++'s."""

    place: Place
    warps: int
    lanes: int


@dataclass
class Launch:
    """A kernel that has run: traffic by the names of its parameters, and SHARED."""

    kernel: str
    file: str
    options: tuple[str, ...]
    grid: int
    threads: int
    resident: int
    traffic: dict[str, Traffic] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)


class TracedDevice(HostDevice):
    """residence: for a kernel's file, name, options and threads of a block, how many blocks a multiprocessor runs at
    once, and the bytes of L1 beside them; l2_bytes: this multiprocessor's share of L2.
    """

    warp_threads = LANES
    warps = 64

    def __init__(self, residence: Callable[[str, str, tuple[str, ...], int], tuple[int, int]], l2_bytes: int) -> None:
        super().__init__()
        self._residence, self._l2_bytes = residence, l2_bytes
        self._tables: set[int] = set()
        self.launches: list[Launch] = []

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        table = super().upload(array)
        self._tables.add(table.ctypes.data)
        return table

    def kernel(self, file: str, name: str, options: tuple[str, ...]) -> Any:
        simulator = load_simulator()
        library = build(file, options + TRACED)
        function = getattr(library, f"launch_{name}")
        shared = (ctypes.c_uint64 * 2)()
        library.find_shared_memory(shared)

        def launch(grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
            resident, l1_bytes = self._residence(file, name, options, block[0])
            one = Launch(name, file, options, grid[0], block[0], min(resident, grid[0]))
            arrays = {
                parameter: arg
                for parameter, arg in zip(kernels_in(file)[name], args, strict=True)
                if isinstance(arg, np.ndarray)
            }
            ranges = [(at.ctypes.data, at.nbytes, at.ctypes.data in self._tables) for at in arrays.values()]
            spans = np.array([*ranges, (*shared, False)], np.uint64)
            values = [as_argument(arg) for arg in args]
            addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
            everything = ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]), ctypes.c_bool(False), addresses
            before = [array.copy() for array in arrays.values()]
            simulator.simt_start(len(spans), spans.ctypes, ctypes.c_uint64(l1_bytes), ctypes.c_uint64(self._l2_bytes))
            function(*everything)
            for array, old in zip(arrays.values(), before, strict=True):
                array[...] = old
            simulator.simt_replay(ctypes.c_uint64(resident))
            function(*everything)
            counts = (Traffic * len(spans))()
            simulator.simt_traffic(counts)
            one.traffic = dict(zip((*arrays, SHARED), counts, strict=True))
            one.blocks, one.accesses = executions(simulator, str(library._name))
            self.launches.append(one)

        return launch


@cache
def load_simulator() -> ctypes.CDLL:
    """warps.cpp, whose functions the traced kernels call."""
    source = (HERE / "warps.cpp").read_text("utf-8")
    return ctypes.CDLL(str(compile_library("warps", source, FLAGS, [])), ctypes.RTLD_GLOBAL)


def executions(simulator: ctypes.CDLL, library: str) -> tuple[list[Block], list[Access]]:
    """Of the kernel that ran last; blocks that did not run are among them."""
    addresses, places = lines_of(library)
    starts = block_starts(library)
    ran = {start: (warps, lanes, i) for i, (start, warps, lanes) in enumerate(_counts(simulator, True))}
    blocks = []
    for start, stop in pairwise([*starts, 1 << 62]):
        inside = places[bisect_left(addresses, start) : bisect_left(addresses, stop)]
        warps, lanes, i_block = ran.get(start, (0, 0, -1))
        blocks.append(Block(tuple(inside), warps, lanes, i_block >= 0 and simulator.simt_begins_loop(i_block)))
    accesses = [
        Access(places[bisect_left(addresses, address) - 1], warps, lanes)
        for address, warps, lanes in _counts(simulator, False)
    ]
    return blocks, accesses


def _counts(simulator: ctypes.CDLL, of_blocks: bool) -> list[tuple[int, int, int]]:
    n = simulator.simt_num_blocks() if of_blocks else simulator.simt_num_sites()
    rows = np.empty((3, n), np.uint64)
    simulator.simt_places(of_blocks, *(row.ctypes for row in rows))
    return list(zip(*rows.tolist(), strict=True))


@cache
def block_starts(library: str) -> list[int]:
    """Where the tracer's calls return to."""
    code = subprocess.check_output(["objdump", "-d", "--no-show-raw-insn", library], text=True)
    return sorted(int(start, 16) for start in TRACER_CALL.findall(code))


@cache
def lines_of(library: str) -> tuple[list[int], list[Place]]:
    """Addresses in order, and the place of what is there up to the next."""
    rows = subprocess.check_output(["objdump", "--dwarf=decodedline", library], text=True)
    addresses = sorted({int(address, 16) for address in LINE_ROW.findall(rows)})
    command = ["addr2line", "-a", "-i", "-e", library]
    out = subprocess.check_output(command, input="\n".join(map(hex, addresses)), text=True)
    return addresses, [tuple(map(_line, part.splitlines()[1:])) for part in out.split("0x")[1:]]


def _line(line: str) -> tuple[str, int]:
    file, _, number = line.split(" (")[0].rpartition(":")
    return Path(file).name, int(number) if number.isdigit() else 0
