"""Every .cu file compiles for today's GPUs, without one at hand, to code on which numerics and speed can rest."""

import re
from typing import Any

import pytest

from gpu_lattice.kernels.cuda.backend import LONGEST, STRETCH
from gpu_lattice.kernels.cuda.loader import FILES, OPTIONS, define_options, kernel_files, read_source

nvrtc = pytest.importorskip(
    "cuda.bindings.nvrtc", reason="NVRTC is absent: pip install cuda-bindings nvidia-cuda-nvrtc"
)

MOST_REGISTERS = 64  # 1024 threads of a multiprocessor's 65536 registers
CUPY_ADDS = ("-ftz=true",)


def call(result: tuple[Any, ...]) -> Any:
    assert result[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS, result[0]
    return result[1] if len(result) > 1 else None


def compiled(source: str, name: str, options: tuple[str, ...], kind: str) -> tuple[bytes, str]:
    """The cubin or PTX, and the log."""
    program = call(nvrtc.nvrtcCreateProgram(source.encode(), f"{name}.cu".encode(), 0, [], []))
    arguments = [option.encode() for option in (*OPTIONS, *options, *CUPY_ADDS)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(arguments), arguments)
    log = bytearray(call(nvrtc.nvrtcGetProgramLogSize(program)))
    call(nvrtc.nvrtcGetProgramLog(program, log))
    text = log.decode().strip("\0 ")
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        return b"", text
    size, get = (
        (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
        if kind == "cubin"
        else (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
    )
    out = bytearray(call(size(program)))
    call(get(program, out))
    return bytes(out), text


@pytest.fixture(scope="module", params=[(0, "float"), (0, "double"), (1, "double")], ids=str)
def constants(request: pytest.FixtureRequest) -> dict[str, object]:
    return {"IS_BYTES": request.param[0], "NUMBER": request.param[1], "STRETCH": STRETCH, "LONGEST": LONGEST}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("name", FILES)
def test_every_file_compiles_without_warning_spill_or_stack(
    name: str, architecture: str, constants: dict[str, object]
) -> None:
    options = (*define_options(name, constants), f"-arch={architecture}", "-Xptxas=-v")
    cubin, log = compiled(read_source(f"{name}.cu"), name, options, "cubin")
    assert cubin.startswith(b"\x7fELF"), log
    assert "warning" not in log, log
    kernels = [kernel for kernel, file in kernel_files().items() if file == name]
    assert sorted(re.findall(r"Compiling entry function '(\w+)'", log)) == sorted(kernels)
    stacks = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert stacks == [("0", "0", "0")] * len(kernels)
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", log)]
    assert len(registers) == len(kernels)
    assert max(registers) <= MOST_REGISTERS


@pytest.mark.parametrize("name", FILES)
def test_products_and_sums_are_rounded_one_by_one(name: str, constants: dict[str, object]) -> None:
    options = (*define_options(name, constants), "-arch=compute_80")
    ptx, log = compiled(read_source(f"{name}.cu"), name, options, "ptx")
    assert b".entry" in ptx, log
    assert re.findall(rb"\b(?:fma|mad|div|sqrt|rcp|ex2|lg2)\.\S*f(?:32|64)\S*", ptx) == []


def test_a_fused_multiply_add_would_be_seen() -> None:
    source = 'extern "C" __global__ void f(double* x) { x[0] = x[0] * x[1] + x[2]; }'
    assert b"fma.rn.f64" not in compiled(source, "f", ("-arch=compute_80",), "ptx")[0]
    assert b"fma.rn.f64" in compiled(source, "f", ("-arch=compute_80", "-fmad=true"), "ptx")[0]


def test_errors_name_the_file_and_line() -> None:
    source = read_source("viterbi.cu").replace("const NUMBER none", "const NOTHING none", 1)
    _, log = compiled(source, "viterbi", ("-DIS_BYTES=0", "-DSTRETCH=256", "-DLONGEST=512", "-DNUMBER=float"), "ptx")
    line = next(i for i, line in enumerate((read_file("viterbi.cu")).splitlines(), 1) if "const NUMBER none" in line)
    assert f"gpu_lattice/kernels/cuda/viterbi.cu({line})" in log


def read_file(name: str) -> str:
    from gpu_lattice.kernels.cuda.loader import FOLDER

    return (FOLDER / name).read_text("utf-8")
