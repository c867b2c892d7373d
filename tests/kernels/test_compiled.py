"""Compiled code that is kept on disk is that of the code as it is now."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba.core.caching
import pytest

import gpu_lattice.kernels.compiled
from gpu_lattice.kernels.compiled import KERNELS, compiled

CALLER = """
from gpu_lattice.callee import callee
from gpu_lattice.kernels.compiled import compiled

@compiled
def caller():
    return callee() + 1
"""
CALLEE = """
from gpu_lattice.kernels.compiled import compiled

@compiled
def callee():
    return {}
"""


def run(folder: Path, before: str = "pass") -> list[str]:
    script = f"from gpu_lattice.caller import caller; {before}; print(caller(), sum(caller.stats.cache_hits.values()))"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with a compiled function that calls one of another file."""
    package = tmp_path / "gpu_lattice"
    (package / "kernels").mkdir(parents=True)
    # A package without this file gives way to one that is installed.
    (package / "__init__.py").write_text("")
    for name in ("__init__.py", "compiled.py"):
        shutil.copy(KERNELS / name, package / "kernels" / name)
    (package / "caller.py").write_text(CALLER)
    (package / "callee.py").write_text(CALLEE.format(10))
    return package


def test_what_was_compiled_is_used_until_a_function_of_another_file_changes(tmp_path: Path, package: Path) -> None:
    assert run(tmp_path) == ["11", "0"]
    assert run(tmp_path) == ["11", "1"]
    (package / "callee.py").write_text(CALLEE.format(20))
    assert run(tmp_path) == ["21", "0"]
    assert run(tmp_path) == ["21", "1"]


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 4]) + whole[len(whole) // 2 + 1 :],
        lambda whole: b"no pickle",
    ],
    ids=["empty", "short", "half", "a flipped bit", "other"],
)
def test_a_damaged_file_of_compiled_code_is_compiled_anew(
    tmp_path: Path, package: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    assert run(tmp_path) == ["11", "0"]
    for path in package.glob(f"__pycache__/*.{suffix}"):
        path.write_bytes(damage(path.read_bytes()))
    assert run(tmp_path) == ["11", "0"]
    assert run(tmp_path) == ["11", "1"]


def test_code_that_checks_indices_is_kept_apart_from_code_that_does_not(tmp_path: Path, package: Path) -> None:
    checked = "import numba; numba.config.BOUNDSCHECK = 1"
    assert run(tmp_path) == ["11", "0"]
    assert run(tmp_path, checked) == ["11", "0"]
    assert run(tmp_path, checked) == ["11", "1"]
    assert run(tmp_path) == ["11", "1"]


def test_a_full_disk_keeps_nothing_from_being_called(tmp_path: Path, package: Path) -> None:
    limit = "import resource, warnings; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    assert run(tmp_path, f"{limit}; warnings.simplefilter('ignore')") == ["11", "0"]
    assert run(tmp_path) == ["11", "0"]
    assert run(tmp_path) == ["11", "1"]


def test_where_nothing_can_be_kept_a_function_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    gpu_lattice.kernels.compiled._warn.cache_clear()

    def double(x: Any) -> Any:
        return 2 * x

    with pytest.warns(RuntimeWarning, match=r"every process takes a minute for it: set NUMBA_CACHE_DIR"):
        assert compiled(double)(3) == 6
    # It is said once, however many functions there are.
    assert compiled(error_model="numpy")(double)(4) == 8
