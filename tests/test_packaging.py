"""A wheel holds everything: built, installed into an empty folder, and used from there."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAST_SETUPTOOLS = 77

USED = """
import sys
import gpu_lattice
from gpu_lattice.kernels import reference
from gpu_lattice.backends.cpu import CpuBackend
assert gpu_lattice.__file__.startswith(sys.argv[1]), gpu_lattice.__file__
assert reference.__file__.startswith(sys.argv[1]), reference.__file__
assert "kernels" not in sys.modules
tokenizer = gpu_lattice.Tokenizer.default(device="cpu")
text = "A new dawn: 新しい朝。"
assert tokenizer.decode(tokenizer.sample(text, alpha=0.2)) == [text]
print(gpu_lattice.__version__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build", reason="the package build is not installed")
    version = importlib.metadata.version("setuptools")
    if int(version.split(".")[0]) < LEAST_SETUPTOOLS:
        pytest.skip(f"setuptools {version} is older than {LEAST_SETUPTOOLS}, which pyproject.toml asks for")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, tracked.stdout.decode().split("\0")):
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_file():
            target.write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_a_wheel_holds_kernels_and_data_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kernels").rglob("*.py")}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "kernels").rglob("*.cu*")}
    assert {f"gpu_lattice/{name}" for name in expected} <= names
    data = {path.name for path in (ROOT / "gpu_lattice" / "data").iterdir() if path.is_file()}
    assert {f"gpu_lattice/data/{name}" for name in data} <= names
    assert {"gpu_lattice/py.typed", "gpu_lattice/__init__.py", "gpu_lattice/tokenizer.py"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"gpu_lattice"}
    assert not [name for name in names if name.endswith((".pyc", ".nbi", ".nbc"))]


def test_an_installed_wheel_works_without_the_source(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True)
    script = elsewhere / "use.py"
    script.write_text(f"import sys\nsys.path.insert(0, sys.argv[1])\n{USED}", "utf-8")
    # What is tested is what the wheel holds: plain Python tells it without compiling everything anew.
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, str(script), str(target)],
        cwd=elsewhere, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in wheel.name
