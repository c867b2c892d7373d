"""Prove the CUDA kernels on this machine's GPU: every gpu test, then compute-sanitizer, into one JSON file.

    python tools/prove_on_gpu.py [results.json]

Needs CuPy, the test extra, and compute-sanitizer (of the CUDA toolkit) on the path. Exits with 1 if anything fails.
"""

import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "cuda_proof.json"

# One batch through every kernel: short and long segments, unknown runs, several samples, scores.
SMALL_RUN = """
import cupy
from gpu_lattice import Tokenizer
from gpu_lattice.kernels.cuda.backend import CudaBackend
from gpu_lattice.kernels.cuda.device import CudaDevice
tokenizer = Tokenizer.default(device="cpu")
backend = CudaBackend(tokenizer._model, CudaDevice())
expected = Tokenizer.default(device="cpu")
tokenizer._backend = backend
# A pool hands out parts of larger blocks, in which no overrun would be seen.
cupy.cuda.set_allocator(None)
texts = ["a new dawn", "", "\\u543e\\u8f29\\u306f\\u732b\\u3067\\u3042\\u308b" * 9, "a" * 700, "\\U0010ffff" * 40]
for call in (lambda t: t.encode(texts), lambda t: t.sample(texts, alpha=0.2, num_samples=3, return_log_prob=True)):
    assert call(tokenizer).ids.get().tolist() == call(expected).ids.tolist()
"""


def main(path: Path = RESULTS) -> int:
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    results: dict[str, Any] = {
        "gpu": properties["name"].decode(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
        "machine": platform.platform(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("numpy", "numba")},
        "cupy": cupy.__version__,
        "commit": output("git", "rev-parse", "HEAD"),
        "changed_files": output("git", "status", "--porcelain", "--untracked-files=no").splitlines(),
        "runs": [],
    }
    results["runs"].append(run("pytest", [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]))
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        if shutil.which("compute-sanitizer") is None:
            results["runs"].append({"name": tool, "passed": False, "output": "compute-sanitizer is not on the path"})
            continue
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SMALL_RUN]
        results["runs"].append(run(tool, command))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    for done in results["runs"]:
        print(f"{done['name']}: {'passed' if done['passed'] else 'FAILED'}")
    return 0 if all(done["passed"] for done in results["runs"]) else 1


def run(name: str, command: list[str]) -> dict[str, Any]:
    start = perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return {
        "name": name,
        "passed": done.returncode == 0,
        "seconds": round(perf_counter() - start, 1),
        "output": (done.stdout + done.stderr)[-2000:],
    }


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
