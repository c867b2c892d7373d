"""Check what is to be released: build wheel and source distribution, and try the wheel under each Python that is named.

    python tools/check_release.py python3.11 python3.12 python3.13 python3.14

Needs the packages build, twine and check-wheel-contents. In a new virtual environment for each Python, the command runs
and some tests pass, from a folder that holds the tests and nothing of the package.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("test_weights.py", "corpus/test_formats.py", "models/test_models_hf.py")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
        wheel, source = *folder.glob("*.whl"), *folder.glob("*.tar.gz")
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
        run(sys.executable, "-m", "check_wheel_contents", wheel)
        tests = folder / "elsewhere"
        shutil.copytree(ROOT / "tests", tests / "tests")
        shutil.copy(ROOT / "pyproject.toml", tests)
        versions = [tried(python, wheel, tests, folder) for python in sys.argv[1:]]
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    missing = [one for one in versions if f"Programming Language :: Python :: {one}" not in promised]
    print(f"tried under {', '.join(versions)}; without a classifier: {', '.join(missing) or 'none'}")


def tried(python: str, wheel: Path, tests: Path, folder: Path) -> str:
    """The version of a Python under which the wheel works; CalledProcessError if it does not."""
    version = subprocess.check_output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True)
    environment = folder / version.strip()
    run(python, "-m", "venv", environment)
    run(environment / "bin" / "python", "-m", "pip", "install", "-q", f"{wheel}[test]")
    run(environment / "bin" / "gpu-lattice", "encode", "--alpha", "0.2", "A new dawn", cwd=tests)
    chosen = [f"tests/{name}" for name in TESTS]
    run(environment / "bin" / "python", "-m", "pytest", "-q", *chosen, cwd=tests)
    return version.strip()


def run(*command: str | Path, cwd: Path | None = None) -> None:
    print("+", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True, cwd=cwd)


if __name__ == "__main__":
    main()
