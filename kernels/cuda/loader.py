"""Sources to compiled modules. Includes are expanded here, so that the compiler's cache sees changes in headers."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
FILES = tuple(sorted(f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.cu")))
# float64 products and sums are rounded one by one, as on the CPU. CuPy adds -ftz=true after these, which cannot
# be undone, and which affects float32 only.
OPTIONS = ("-std=c++17", "--fmad=false")

_INCLUDE = re.compile(r'#include "(.+)"')
_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(([^)]*)\)')
_PARAMETER = re.compile(r"(\w+)\s*(?:,|$)")


@cache
def read_source(name: str) -> str:
    """The file with all its includes, each once; compiler messages still name the original file and line."""
    return "\n".join(_lines(name, set()))


def _lines(name: str, seen: set[str]) -> list[str]:
    lines = [f'#line 1 "gpu_lattice/kernels/cuda/{name}"']
    for number, line in enumerate((FOLDER / name).read_text("utf-8").splitlines(), 1):
        include = _INCLUDE.fullmatch(line)
        if include and include[1] not in seen:
            seen.add(include[1])
            lines += [*_lines(include[1], seen), f'#line {number + 1} "gpu_lattice/kernels/cuda/{name}"']
        else:
            lines.append("" if include or line == "#pragma once" else line)
    return lines


@cache
def kernels_in(name: str) -> dict[str, tuple[str, ...]]:
    """The kernels of a .cu file, each with the names of its parameters.

    A file is named by its folder and stem, such as "bulk/cuts"; a full path names a file elsewhere.
    """
    source = (FOLDER / f"{name}.cu").read_text("utf-8")
    return {kernel: tuple(_PARAMETER.findall(parameters)) for kernel, parameters in _KERNEL.findall(source)}


@cache
def kernel_files() -> dict[str, str]:
    """The file that each kernel is in, without extension."""
    return {kernel: name for name in FILES for kernel in kernels_in(name)}


def define_options(name: str, constants: dict[str, object]) -> tuple[str, ...]:
    """The constants that the .cu file reads, as options of a compiler."""
    source = read_source(f"{name}.cu")
    return tuple(f"-D{key}={value}" for key, value in sorted(constants.items()) if re.search(rf"\b{key}\b", source))


@lru_cache(maxsize=64)
def load(name: str, options: tuple[str, ...]) -> Any:
    """The module of one .cu file; compiled when its first kernel is requested, cached on disk by CuPy."""
    import cupy

    return cupy.RawModule(code=read_source(f"{name}.cu"), options=OPTIONS + options, backend="nvrtc")
