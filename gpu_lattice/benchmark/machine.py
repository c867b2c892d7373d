"""What ran where: the header of every result."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu_lattice.backends import cuda_device
from gpu_lattice.runtime.threads import default_threads
from gpu_lattice.runtime.version import __version__

PACKAGES = ("numpy", "numba", "pyarrow", "cupy-cuda12x", "cupy-cuda13x", "sentencepiece", "tokenizers", "tiktoken")


def describe() -> dict[str, Any]:
    """Machine, versions, commit (of a checkout) and date as a JSON object; versions of what is installed.

    Example:
        >>> sorted(describe())  # doctest: +NORMALIZE_WHITESPACE
        ['commit', 'cpus', 'date', 'gpus', 'memory_gb', 'processor', 'python', 'system', 'versions']
    """
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "processor": _processor(),
        "cpus": default_threads(),
        "memory_gb": round(_memory() / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "gpus": [_gpu(ordinal) for ordinal in range(cuda_device.device_count())],
        "versions": {"gpu_lattice": __version__, **{name: found for name in PACKAGES if (found := version_of(name))}},
    }


def one_line(machine: dict[str, Any]) -> str:
    """The machine in words."""
    gpus = [f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]] or ["no GPU"]
    cpus = f"{machine['cpus']} CPU{'s' * (machine['cpus'] != 1)}"
    parts = [machine["processor"], cpus, f"{machine['memory_gb']:g} GB", *gpus, machine["system"]]
    return "; ".join([*parts, f"Python {machine['python']}"])


def version_of(package: str) -> str | None:
    """The version of an installed package, None for any other."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak_memory() -> int:
    """The most bytes that this process has had in memory at once."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says here begins with the memory of the process that started this one
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def _gpu(ordinal: int) -> dict[str, str]:
    import cupy

    runtime = cupy.cuda.runtime
    major, minor = divmod(runtime.driverGetVersion() // 10, 100)
    return {"name": runtime.getDeviceProperties(ordinal)["name"].decode(), "driver": f"CUDA {major}.{minor}"}


def _commit() -> str | None:
    """Of the checkout that this file is in; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root), "describe", "--always", "--dirty"]
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
