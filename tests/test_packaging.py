"""Wheel, source distribution and editable install hold everything, wherever they are made, and nothing else."""

import importlib.metadata
import os
import site
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

LEAST_SETUPTOOLS = 77
SUFFIXES = (".py", ".cu", ".cuh")

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


def copy_sources(target: Path, has_links: bool) -> Path:
    """A copy of the sources; without links it has what Git writes where core.symlinks is off: the path in a file."""
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, tracked.stdout.decode().split("\0")):
        source, copy = ROOT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() and has_links:
            copy.symlink_to(source.readlink())
        elif source.is_symlink():
            copy.write_text(str(source.readlink()))
        elif source.is_file():
            copy.write_bytes(source.read_bytes())
    return target


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def without_links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build", reason="the package build is not installed")
    version = importlib.metadata.version("setuptools")
    if int(version.split(".")[0]) < LEAST_SETUPTOOLS:
        pytest.skip(f"setuptools {version} is older than {LEAST_SETUPTOOLS}, which pyproject.toml asks for")
    sources = copy_sources(tmp_path_factory.mktemp("without_links") / "sources", has_links=False)
    stale = sources / "build" / "lib" / "gpu_lattice" / "stale.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("left by an earlier version")
    return sources


@pytest.fixture(scope="module")
def built(without_links: Path) -> dict[str, Path]:
    """The wheel and the source distribution, each made from a clone without links, after another build."""
    run("-m", "build", "--wheel", "--sdist", "--no-isolation", without_links)
    wheel, sdist = sorted((without_links / "dist").iterdir())
    return {"wheel": wheel, "sdist": sdist}


def install(target: Path, *what: str | Path) -> None:
    run("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--target", target, *what)


def test_the_packages_listed_are_those_that_exist() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    files = [path.relative_to(ROOT / "gpu_lattice").parent for path in (ROOT / "gpu_lattice").rglob("*.py")]
    files += [path.relative_to(ROOT).parent for path in (ROOT / "kernels").rglob("*.*") if path.suffix in SUFFIXES]
    assert listed == sorted({".".join(("gpu_lattice", *folder.parts)) for folder in files})


def test_a_wheel_holds_kernels_and_data_and_nothing_else(built: dict[str, Path]) -> None:
    names = set(zipfile.ZipFile(built["wheel"]).namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kernels").rglob("*.py")}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "kernels").rglob("*.cu*")}
    assert {f"gpu_lattice/{name}" for name in expected} <= names
    data = {path.name for path in (ROOT / "gpu_lattice" / "data").iterdir() if path.is_file()}
    assert {f"gpu_lattice/data/{name}" for name in data} <= names
    assert {"gpu_lattice/py.typed", "gpu_lattice/__init__.py", "gpu_lattice/tokenizer.py"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"gpu_lattice"}
    assert not [name for name in names if name.endswith((".pyc", ".nbi", ".nbc"))]
    assert "gpu_lattice/stale.py" not in names


def test_a_wheel_is_the_same_with_and_without_links(built: dict[str, Path], tmp_path: Path) -> None:
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, copy_sources(tmp_path / "sources", True))
    (wheel,) = tmp_path.glob("*.whl")
    assert zipfile.ZipFile(wheel).namelist() == zipfile.ZipFile(built["wheel"]).namelist()


def test_a_source_distribution_has_no_tests(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        folders = {name.split("/")[1] for name in archive.getnames() if name.count("/") > 1}
    assert folders == {"gpu_lattice", "gpu_lattice.egg-info", "kernels"}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_was_built_works_without_the_sources(built: dict[str, Path], kind: str, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install(target, built[kind])
    script = f"import sys\nsys.path.insert(0, sys.argv[1])\n{USED}"
    # What is tested is what the wheel holds: plain Python tells it without compiling everything anew.
    version = run("-c", script, target, cwd=elsewhere, NUMBA_DISABLE_JIT="1", PYTHONWARNINGS="ignore")
    assert version.strip() in built[kind].name


def test_a_clone_without_links_says_what_to_do_and_then_works(without_links: Path, tmp_path: Path) -> None:
    # Without what site does for another clone that is installed in the same environment.
    tried = "try: import gpu_lattice\nexcept ImportError as error: print(error)"
    assert "run `python -m pip install -e .` in it" in run("-S", "-c", tried, cwd=without_links)
    install(tmp_path, "-e", without_links)
    script = f"import site, sys\nsite.addsitedir(sys.argv[2])\nsys.path += sys.argv[3:]\n{USED}"
    options = {"NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    run("-S", "-c", script, without_links, tmp_path, *site.getsitepackages(), cwd=without_links, **options)
