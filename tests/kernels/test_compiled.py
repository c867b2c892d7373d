"""Compiled code that is kept on disk is that of the code as it is now."""

import io
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba.core.caching
import pytest

import gpu_lattice.kernels.compiled
from gpu_lattice.kernels.compiled import KERNELS, Bound, compiled
from gpu_lattice.kernels.cpu.utf8 import code_point

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
    (package / "kernels" / "cpu").mkdir(parents=True)
    # A package without this file gives way to one that is installed.
    (package / "__init__.py").write_text("")
    for name in ("__init__.py", "compiled.py", "cpu/__init__.py", "cpu/passing.py"):
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


def test_files_that_are_damaged_while_a_process_runs_are_compiled_anew_by_it(tmp_path: Path, package: Path) -> None:
    damage = "import glob; [open(name, 'r+b').truncate(99) for name in glob.glob('gpu_lattice/__pycache__/*.nb?')]"
    assert run(tmp_path) == ["11", "0"]
    assert run(tmp_path, damage) == ["11", "0"]
    assert run(tmp_path) == ["11", "1"]


def test_what_killed_processes_left_is_removed_at_the_next_start(tmp_path: Path, package: Path) -> None:
    assert run(tmp_path) == ["11", "0"]
    old, new, other = (
        package / "__pycache__" / f"a.f-1.py311.{name}" for name in ("nbi.tmp.1f", "1.nbc.tmp.2e", "tmp.3")
    )
    for path in (old, new, other):
        path.write_bytes(b"half")
        os.utime(path, (1, 1) if path != new else None)
    assert run(tmp_path) == ["11", "1"]
    assert [path.exists() for path in (old, new, other)] == [False, True, True]


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


def test_what_is_called_is_compiled_within_its_caller_alone(tmp_path: Path, package: Path) -> None:
    assert run(tmp_path) == ["11", "0"]
    assert [path.name.partition("-")[0] for path in package.glob("__pycache__/*.nbi")] == ["caller.caller"]
    script = "from gpu_lattice.callee import callee; print(callee())"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "10"
    assert len(list(package.glob("__pycache__/*.nbi"))) == 2


def test_a_function_becomes_numbas_when_it_is_called_and_not_before(tmp_path: Path, package: Path) -> None:
    was_made = "'_dispatcher' in vars(caller), '_dispatcher' in vars(callee)"
    script = f"from gpu_lattice.caller import callee, caller; print({was_made}); caller(); print({was_made})"
    for compiles in (True, False):
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == ["False False", f"True {compiles}"]


def test_a_compiled_function_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(code_point)) is code_point


def test_a_function_with_bound_types_calls_the_code_of_its_first_call() -> None:
    @compiled
    def half(x: Any) -> Any:
        return x / 2

    bound = Bound(half)
    assert [bound(3), bound(5)] == [1.5, 2.5]
    assert len(half.signatures) == 1
    assert Bound(lambda x: x)(3) == 3


def test_a_function_is_compiled_once_for_all_constants_that_it_is_called_with() -> None:
    @compiled
    def add(x: Any, y: Any) -> Any:
        return x + y

    @compiled
    def use(x: Any) -> Any:
        total = 0
        for i in range(3):
            total = add(add(total, 1), add(x, 2) * i)
        return total

    assert use(5) == 3 + 7 + 14
    assert len(add.get_call_template.__self__._results) == 1


def test_compiling_is_seen_on_a_terminal_while_it_lasts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def triple(x: Any) -> Any:
        return 3 * x

    for stream, shows in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert compiled(error_model="numpy")(triple)(1.5 if shows else 2) == (4.5 if shows else 6)
        assert ("compiles its kernels, once per installation: " in stream.getvalue()) == shows
        assert stream.getvalue().endswith("\r\x1b[K" if shows else "")


def test_where_nothing_can_be_kept_a_function_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    gpu_lattice.kernels.compiled._warn.cache_clear()

    def double(x: Any) -> Any:
        return 2 * x

    with pytest.warns(RuntimeWarning, match=r"every process takes a minute for it: set NUMBA_CACHE_DIR"):
        assert compiled(double)(3) == 6
    # It is said once, however many functions there are.
    assert compiled(error_model="numpy")(double)(4) == 8
