"""Every .cu file compiles for today's GPUs, without one at hand, to code on which numerics and speed can rest."""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from gpu_lattice.backends.cuda import LONGEST, STRETCH
from gpu_lattice.kernels.cuda.loader import FILES, FOLDER, OPTIONS, define_options, kernels_in, read_source

pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is absent: pip install cuda-bindings nvidia-cuda-nvrtc")
from cuda_on_cpu.nvrtc import CUPY_ADDS, compiled

ALL = [*FILES, str(ROOT / "bench" / "gpu")]
MOST_REGISTERS = 64  # 1024 threads of a multiprocessor's 65536 registers


@pytest.fixture(scope="module", params=[(0, "float"), (0, "double"), (1, "double")], ids=str)
def constants(request: pytest.FixtureRequest) -> dict[str, object]:
    return {"IS_BYTES": request.param[0], "NUMBER": request.param[1], "STRETCH": STRETCH, "LONGEST": LONGEST}


@pytest.mark.parametrize("number", [80, 90, 100])
@pytest.mark.parametrize("name", ALL, ids=lambda name: Path(name).name)
def test_every_file_compiles_without_warning_spill_or_stack(
    name: str, number: int, constants: dict[str, object]
) -> None:
    options = (*define_options(name, constants), "-Xptxas=-v")
    cubin, log = compiled(read_source(f"{name}.cu"), name, options, "cubin", number)
    assert cubin.startswith(b"\x7fELF"), log
    assert "warning" not in log, log
    kernels = kernels_in(name)
    assert sorted(re.findall(r"Compiling entry function '(\w+)'", log)) == sorted(kernels)
    stacks = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert stacks == [("0", "0", "0")] * len(kernels)
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", log)]
    assert len(registers) == len(kernels)
    assert max(registers) <= MOST_REGISTERS


@pytest.mark.parametrize("name", ALL, ids=lambda name: Path(name).name)
def test_products_and_sums_are_rounded_one_by_one(name: str, constants: dict[str, object]) -> None:
    ptx, log = compiled(read_source(f"{name}.cu"), name, define_options(name, constants), "ptx")
    assert b".entry" in ptx, log
    assert re.findall(rb"\b(?:fma|mad|div|sqrt|rcp|ex2|lg2)\.\S*f(?:32|64)\S*", ptx) == []


def test_a_fused_multiply_add_would_be_seen() -> None:
    source = 'extern "C" __global__ void f(double* x) { x[0] = x[0] * x[1] + x[2]; }'
    assert b"fma.rn.f64" not in compiled(source, "f", (), "ptx")[0]
    assert b"fma.rn.f64" in compiled(source, "f", ("-fmad=true",), "ptx")[0]


@pytest.mark.parametrize("name", ALL, ids=lambda name: Path(name).name)
def test_floats_which_the_compiler_flushes_are_in_no_other_kernel_than_viterbi(
    name: str, constants: dict[str, object]
) -> None:
    ptx, _ = compiled(read_source(f"{name}.cu"), name, define_options(name, constants), "ptx")
    if (name, constants["NUMBER"]) == ("bulk/viterbi", "float"):
        assert re.search(rb"add\.\S*ftz\.f32", ptx)
    else:
        assert re.findall(rb"\w+\.\S*f32\S*", ptx) == []


def test_cupy_gives_the_compiler_what_these_tests_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is absent")
    compiler = cupy.cuda.compiler
    given: list[tuple[str, ...]] = []

    class Program:
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        def compile(self, options: tuple[str, ...], log_stream: Any = None) -> Any:
            given.append(options)
            return b"// no code", None

    class Module:
        def load(self, cubin: bytes) -> None: ...

        def _set_mapping(self, mapping: Any) -> None: ...

    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "1")
    monkeypatch.setattr(compiler, "_NVRTCProgram", Program)
    monkeypatch.setattr(compiler.function, "Module", Module)
    monkeypatch.setattr(compiler, "_get_nvrtc_version", lambda: (13, 0))
    monkeypatch.setattr(compiler, "_get_arch_for_options_for_nvrtc", lambda arch=None: (f"-arch=sm_{arch}", "cubin"))
    ours = (*OPTIONS, "-DIS_BYTES=0")
    options = cupy._core.core.assemble_cupy_compiler_options(ours)
    compiler._compile_module_with_cache(read_source("bulk/cuts.cu"), options, arch="90")
    assert [option for option in given[-1] if not option.startswith("-I")] == [
        *ours,
        *(option.format(90) for option in CUPY_ADDS),
    ]


def test_errors_name_the_file_and_line() -> None:
    source = read_source("bulk/viterbi.cu").replace("const NUMBER none", "const NOTHING none", 1)
    _, log = compiled(source, "viterbi", ("-DIS_BYTES=0", "-DSTRETCH=256", "-DLONGEST=512", "-DNUMBER=float"), "ptx")
    line = next(
        i
        for i, line in enumerate((FOLDER / "bulk/viterbi.cu").read_text("utf-8").splitlines(), 1)
        if "const NUMBER none" in line
    )
    assert f"gpu_lattice/kernels/cuda/bulk/viterbi.cu({line})" in log
