"""The compiler of CuPy, without a GPU. ImportError if NVRTC is absent: pip install cuda-bindings nvidia-cuda-nvrtc"""

from functools import cache
from typing import Any

from cuda.bindings import nvrtc

from gpu_lattice.kernels.cuda.loader import OPTIONS

# What CuPy 14.2 gives the compiler after our options, besides folders of headers and with {} for the device's number.
CUPY_ADDS = ("-ftz=true", "-arch=sm_{}", "--device-as-default-execution-space")


def call(result: tuple[Any, ...]) -> Any:
    assert result[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS, result[0]
    return result[1] if len(result) > 1 else None


@cache
def compiled(source: str, name: str, options: tuple[str, ...], kind: str, number: int = 80) -> tuple[bytes, str]:
    """The cubin or PTX for the device's number, and the log; compiled as CuPy does."""
    program = call(nvrtc.nvrtcCreateProgram(source.encode(), f"{name}.cu".encode(), 0, [], []))
    added = [option.format(number).replace("sm_", "sm_" if kind == "cubin" else "compute_") for option in CUPY_ADDS]
    arguments = [option.encode() for option in (*OPTIONS, *options, *added)]
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
