"""Prove the CUDA kernels on this machine's GPU: every gpu test, then compute-sanitizer's tools, into one JSON file.

    python tools/prove_on_gpu.py [results.json]

Runs from a checkout, in ten minutes at most. Needs CuPy, the test extra (a test without its package is skipped, and the
file says so) and compute-sanitizer (of the CUDA toolkit) on the path. Exits with 1 if anything fails, with 2 where no
device answers.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "cuda_proof.json"
PACKAGES = ("numpy", "numba", "pyarrow", "sentencepiece", "hypothesis", "torch")
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
TESTS_TAKE, SANITIZER_TAKES = 400, 180

# Through every kernel of the bulk path: characters and bytes, sums in floats and doubles, short and long segments,
# tokens, resets, unknown runs of every kind, several samples and batches, scores.
SMALL_RUN = """
import dataclasses
import cupy
import numpy as np
from gpu_lattice import Tokenizer
from gpu_lattice.backends import cuda as cuda
# A pool hands out parts of larger blocks, in which no overrun would be seen.
cupy.cuda.set_allocator(None)
cuda.STRETCH, cuda.LONGEST, cuda.DEVICE_BATCH_BYTES = 64, 40, 3000
texts = ["a new dawn", "", "\\u543e\\u8f29\\u306f\\u732b\\u3067\\u3042\\u308b" * 9, "a" * 700, "\\U0010ffff" * 40] * 2
names = ["ja_bytes.model", "en_symbols.model", "ja_whole.tokenizer.json", "en_split.tokenizer.json", "bytepiece.json"]
for name in names:
    expected = Tokenizer.from_file("tests/data/" + name, device="cpu")
    vocabulary = expected.model.vocabulary
    if vocabulary.best_scores.dtype == np.float32:
        vocabulary = dataclasses.replace(vocabulary, best_scores=vocabulary.best_scores * np.float32(1e4))
        expected = Tokenizer(dataclasses.replace(expected.model, vocabulary=vocabulary), device="cpu")
    tokenizer = Tokenizer(expected.model, device="cuda")
    for call in (lambda t: t.encode(texts), lambda t: t.sample(texts, alpha=0.2, num_samples=3, return_log_prob=True)):
        got, want = call(tokenizer), call(expected)
        assert got.ids.get().tolist() == want.ids.tolist()
        assert want.log_prob is None or got.log_prob.get().tolist() == want.log_prob.tolist()
"""


def main(path: Path = RESULTS) -> int:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    device = describe_device()
    if device is None:
        print("tools/prove_on_gpu.py: no CUDA device answers through CuPy")
        return 2
    results: dict[str, Any] = {
        **device,
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": {"python": platform.python_version()} | {name: version_of(name) for name in PACKAGES},
        "commit": output("git", "rev-parse", "HEAD"),
        "changed_files": output("git", "status", "--porcelain", "--untracked-files=no").splitlines(),
    }
    # -m here takes the place of the one in pyproject.toml, which leaves slow tests out.
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--durations=10", "-p", "no:cacheprovider", "tests"]
    runs = [run("pytest -m gpu", tests, TESTS_TAKE)]
    small = [sys.executable, "-c", SMALL_RUN]
    with ThreadPoolExecutor(len(SANITIZERS)) as pool:
        runs += pool.map(lambda tool: sanitize(tool, small), SANITIZERS)
    results["passed"] = all(done["passed"] for done in runs)
    results["runs"] = runs
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    for done in runs:
        print(f"{done['name']}: {'passed' if done['passed'] else 'FAILED'} in {done['seconds']} s")
        if not done["passed"]:
            print(done["output"])
    return 0 if results["passed"] else 1


def describe_device() -> dict[str, Any] | None:
    sys.path.insert(0, str(ROOT))
    from gpu_lattice.backends.cuda_device import device_count

    if device_count() == 0:
        return None
    import cupy

    return {
        "gpu": cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
        "cupy": cupy.__version__,
    }


def sanitize(tool: str, command: list[str]) -> dict[str, Any]:
    if shutil.which("compute-sanitizer") is None:
        return {"name": tool, "passed": False, "seconds": 0.0, "output": "compute-sanitizer is not on the path"}
    return run(tool, ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *command], SANITIZER_TAKES)


def run(name: str, command: list[str], limit: int) -> dict[str, Any]:
    """The run's outcome; one that takes longer than `limit` seconds is stopped, and has failed."""
    start = perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        text, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text = process.communicate()[0] + f"\nstopped after {limit} seconds"
    passed, seconds = process.returncode == 0, round(perf_counter() - start, 1)
    return {"name": name, "passed": passed, "seconds": seconds, "output": text[-4000:]}


def output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
