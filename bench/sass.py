"""The machine code of kernels, by NVRTC and nvdisasm, without a GPU: registers, and instructions by source lines."""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cuda_on_cpu.traced_device import Launch, Place

from gpu_lattice.kernels.cuda.loader import read_source

LINE = re.compile(r'\s*//## File "(.+?)", line (\d+)')
LABEL = re.compile(r"(\.L_\w+|\$\S+):")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+)?\s*([A-Z0-9_]+)")
PREDICATE = re.compile(r"BRA\S* !?U?P\d")
TARGET = re.compile(r"`\((\.L_\w+)\)")
MEMORY = ("LDG", "STG", "LDS", "STS", "ATOMG", "RED")
DOUBLE = ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX")
# What ends a block, and whether it comes back.
LEAVES = {"BRA": False, "EXIT": False, "BRX": False, "RET": False, "CALL": True}
COMPILED = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers(?:, used \d+ barriers)?(?:, (\d+) bytes smem)?",
    re.DOTALL,
)


class Block(NamedTuple):
    """A basic block: its opcodes with their places, and the numbers of the blocks that may follow."""

    code: list[tuple[str, Place]]
    next: list[int]


class Code(NamedTuple):
    """A kernel's: registers a thread, bytes spilled, shared memory a block, and basic blocks."""

    registers: int
    spilled: int
    shared: int
    blocks: list[Block]


class Executed(NamedTuple):
    """Warp-level instructions, and those of them in float64."""

    instructions: float
    doubles: float


def missing() -> str | None:
    """What has to be installed for this."""
    try:
        import cuda.bindings.nvrtc
        from cuda.pathfinder import find_nvidia_binary_utility
    except ImportError as error:
        return f"NVRTC is absent ({error}): pip install cuda-bindings nvidia-cuda-nvrtc"
    del cuda
    return None if find_nvidia_binary_utility("nvdisasm") else "nvdisasm is absent: pip install nvidia-cuda-nvdisasm"


@cache
def code_of(file: str, options: tuple[str, ...], number: int) -> dict[str, Code]:
    """Every kernel of a .cu file, compiled for the device's number as CuPy does."""
    from cuda.pathfinder import find_nvidia_binary_utility
    from cuda_on_cpu.nvrtc import compiled

    cubin, log = compiled(read_source(f"{file}.cu"), file, (*options, "-lineinfo", "-Xptxas=-v"), "cubin", number)
    with tempfile.NamedTemporaryFile() as binary:
        binary.write(cubin)
        binary.flush()
        command = [str(find_nvidia_binary_utility("nvdisasm")), "-c", "-gi", binary.name]
        sections = subprocess.check_output(command, text=True).split(".section\t.text.")
    blocks = {section.partition(",")[0]: _blocks(section.splitlines()) for section in sections[1:]}
    return {
        name: Code(int(registers), int(stores) + int(loads), int(shared or 0), blocks[name])
        for name, stores, loads, registers, shared in COMPILED.findall(log)
    }


def _blocks(lines: Iterable[str]) -> list[Block]:
    blocks = [Block([], [])]
    labels: dict[str, int] = {}
    jumps: list[tuple[int, str]] = []
    place: Place = ()
    names_place = falls_through = False

    def begin() -> None:
        if falls_through:
            blocks[-1].next.append(len(blocks))
        blocks.append(Block([], []))

    for line in lines:
        if found := LINE.match(line):
            here = (Path(found[1]).name, int(found[2]))
            place = (*place, here) if names_place else (here,)
            names_place = True
            continue
        names_place = False
        if label := LABEL.match(line):
            if blocks[-1].code:
                begin()
            labels[label[1]] = len(blocks) - 1
            # The compiler's own functions, such as divisions, have no lines.
            place, falls_through = (() if line.startswith("$") else place), True
        elif (found := INSTRUCTION.match(line)) and found[2] != "NOP":
            blocks[-1].code.append((found[2], place))
            falls_through = True
            if found[2] in LEAVES:
                falls_through = bool(found[1] or LEAVES[found[2]] or PREDICATE.search(line))
                if target := TARGET.search(line):
                    jumps.append((len(blocks) - 1, target[1]))
                begin()
                falls_through = True
    for i_block, label_name in jumps:
        if label_name in labels:
            blocks[i_block].next.append(labels[label_name])
    return blocks


def executed(code: Code, launch: Launch) -> Executed:
    """A block of machine code is taken to run as often as its loads and stores did in g++'s build, or its lines."""
    instructions = doubles = 0.0
    for block, times in zip(code.blocks, block_runs(code, launch), strict=True):
        instructions += times * len(block.code)
        doubles += times * sum(opcode in DOUBLE for opcode, _ in block.code)
    return Executed(instructions, doubles)


def block_runs(code: Code, launch: Launch) -> list[float]:
    """What a line does is divided among the copies of it that the compiler makes by unrolling and inlining, which are
    counted by loads and stores. A block that no jump leads back to runs at most as often as those before it together,
    unless no line of theirs is known to run.
    """
    copies = Counter(place for block in code.blocks for opcode, place in block.code if opcode in MEMORY)
    sites = Counter(access.place for access in launch.accesses)

    def divided(runs: dict[Place, float]) -> dict[Place, float]:
        return {
            place: times * min(1.0, sites[place] / copies[place]) if sites[place] and copies[place] else times
            for place, times in runs.items()
        }

    by_access = divided(_means((access.place, 1, access.warps) for access in launch.accesses))
    by_line = divided(
        _means((place, parts, block.warps) for block in launch.blocks for place, parts in Counter(block.places).items())
    )
    runs, is_known = [], []
    for block in code.blocks:
        accessed = [by_access.get(place, 0.0) for opcode, place in block.code if opcode in MEMORY]
        known = [by_line[place] for _, place in block.code if place in by_line]
        runs.append(max(accessed) if accessed else statistics.median(known) if known else 0.0)
        is_known.append(bool(accessed))
    previous: list[list[int]] = [[] for _ in runs]
    for i, block in enumerate(code.blocks):
        for following in block.next:
            previous[following].append(i)
    for i, before in enumerate(previous):
        most = sum(runs[k] for k in before)
        if not is_known[i] and all(k < i for k in before) and (len(before) == 1 or most > 0):
            runs[i] = min(runs[i], most)
    return runs


def _means(parts: Iterable[tuple[Place, int, int]]) -> dict[Place, float]:
    """Executions of each place: the mean over its parts, those that ran more counting more."""
    sums: dict[Place, list[int]] = {}
    for place, weight, runs in parts:
        both = sums.setdefault(place, [0, 0])
        both[0] += weight * runs * runs
        both[1] += weight * runs
    return {place: squares / total for place, (squares, total) in sums.items() if total}
