"""Prove and measure the CUDA kernels on a machine that is lent for minutes, whatever is most worth knowing first.

    python tools/prove_on_gpu.py --prepare prepared --model M --text NAME=FILE    # anywhere: no GPU is needed
    python tools/prove_on_gpu.py results --prepared prepared --minutes 9          # there

The first collects models and texts in a folder to be carried, with what the CPU makes of them. The second runs
stages, each in a process of its own with a limit of its own, and appends every result to results/results.jsonl at once:
a run that is killed keeps what it has. What takes part is CuPy and the test extra; a tool that is not there, or that
this machine refuses, is recorded as absent. Exits with 1 if a stage fails, with 2 where no device answers. With --host
all of it runs on the host build of the kernels (tests/cuda_on_cpu), whose figures mean nothing.
"""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench import gpu, texts  # noqa: E402
from gpu_lattice import Tokenizer  # noqa: E402
from gpu_lattice.backends import cuda  # noqa: E402
from gpu_lattice.backends.cuda_device import CudaDevice, device_count  # noqa: E402
from gpu_lattice.backends.cuda_launcher import THREADS_PER_BLOCK  # noqa: E402
from gpu_lattice.benchmark.machine import describe  # noqa: E402
from gpu_lattice.cli import parse_size  # noqa: E402
from gpu_lattice.kernels.cuda.loader import FILES, define_options, kernels_in  # noqa: E402
from gpu_lattice.runtime.on_host import on_host  # noqa: E402

Row = dict[str, Any]
# Text of a smoke test; seconds that a stage must have to be begun, and that it has to end when it is told to.
SMOKE_BYTES, LEAST, GRACE = 1_000_000, 5, 3
PREPARED = "prepared.json"
# Where NVIDIA's tools are if they are not on the path.
TOOLS = "/usr/local/cuda/bin"
# What tools say where a machine does not let them look.
REFUSALS = ("Device not supported", "ERR_NVGPUCTRPERM", "not supported on this")
# Tuned by measuring: the text of a thread, and how many warps a multiprocessor may hold.
SWEPT = {"STRETCH": (256, 128, 64, 32), "resident": (64, 48, 32, 16)}
# Of an H100 or H200: the most warps of a multiprocessor, and the sizes that its shared memory may have.
MOST_WARPS = 64
SHARED_SIZES = [kilobytes << 10 for kilobytes in (8, 16, 32, 64, 100, 132, 164, 196, 228)]
# Constants that bring every boundary into short texts: those of the sanitizers' runs, and those of the tests.
SMALL, TINY = {"STRETCH": 64, "LONGEST": 40}, {"STRETCH": 8, "LONGEST": 5}
# One of each kind that kernels and Numba compile anew for.
MODELS = ("ja_bytes.model", "ja_whole.tokenizer.json", "bytepiece.json")
CALLS: dict[str, Callable[[Tokenizer, Any], Any]] = {
    "encode": lambda tok, texts: tok.encode(texts),
    "sample": lambda tok, texts: tok.sample(texts, alpha=0.2, seed=1),
    "sample 3": lambda tok, texts: tok.sample(texts, alpha=0.2, seed=2, num_samples=3, return_log_prob=True),
}


NUM_SAMPLES = {"sample 3": 3}


class Stage(NamedTuple):
    """A command with a limit in seconds; `tool` must be on the path."""

    name: str
    limit: int
    command: list[str]
    tool: str = ""


def main() -> int:
    options = arguments()
    if options.prepare:
        return prepare(options)
    if options.run:
        return run_here(options)
    if not options.host and device_count() == 0:
        print("tools/prove_on_gpu.py: no CUDA device answers through CuPy")
        return 2
    end = perf_counter() + 60 * options.minutes
    options.results.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["PATH"] += os.pathsep + TOOLS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    warming = [start(command, options.results / "warm.log") for command in warm_ups(options)]
    outcomes = {}
    try:
        for stage in stages(options):
            row = carry_out(options, stage, end - perf_counter())
            append(options, stage.name, row)
            print(f"{stage.name}: {row['outcome']}, {row['seconds']} s", flush=True)
            if row["outcome"] == "failed":
                print(row["output"][-1000:], flush=True)
            outcomes[stage.name] = row["outcome"]
    finally:
        for process in warming:
            stop(process, grace=0)
    return int("failed" in outcomes.values())


def absolute(path: str) -> Path:
    return Path(path).resolve()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prove and measure the CUDA kernels on this machine's GPU.")
    parser.add_argument("results", nargs="?", type=absolute, help="the folder for results")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="collect models and texts there, and do no more")
    parser.add_argument("--model", action="append", default=[], type=Path)
    parser.add_argument(
        "--text", action="append", default=[], metavar="NAME=FILE", help="UTF-8 text, a document a line"
    )
    parser.add_argument("--prepared", type=absolute, metavar="FOLDER", help="what --prepare made")
    parser.add_argument("--minutes", type=float, default=9.0, help="what does not fit is left out; default: 9")
    parser.add_argument("--stages", nargs="+", help="only these, to go on where another run ended")
    parser.add_argument("--size", type=parse_size, default="64MB", help="text of a measured call; default: 64MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--host", action="store_true", help="on the host build, with little of everything")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.prepare and not (options.results and options.prepared):
        parser.error("give a folder for results and --prepared FOLDER, or --prepare FOLDER")
    if options.prepared and not (options.prepared / PREPARED).is_file():
        parser.error(f"{options.prepared} has no {PREPARED}; --prepare makes it")
    return options


def prepare(options: argparse.Namespace) -> int:
    """Models and texts into one folder, and what the CPU makes of them."""
    folder, named = options.prepare, [text.rpartition("=") for text in options.text]
    folder.mkdir(parents=True, exist_ok=True)
    for path in options.model:
        shutil.copy(path, folder / path.name)
    if not options.model:
        shutil.copy(ROOT / "gpu_lattice" / "data" / "default.model", folder)
    for name, _, path in named:
        (folder / f"{name or Path(path).stem}.txt").write_text("\n".join(texts.lines(path)), "utf-8")
    if not named:
        (folder / "shipped.txt").write_text("\n".join(texts.shipped("en", "ja", "zh")), "utf-8")
    models = sorted(path.name for path in options.model) or ["default.model"]
    for model, text in product(models, sorted(folder.glob("*.txt"))):
        for call, arrays in outputs(Tokenizer.from_file(folder / model, device="cpu"), text):
            np.savez_compressed(expected(folder, model, text, call), **arrays)
    (folder / PREPARED).write_text(json.dumps({"commit": describe()["commit"], "models": models}) + "\n", "utf-8")
    return 0


def expected(folder: Path, model: str, text: Path, call: str) -> Path:
    """Where what the CPU gives is kept."""
    return folder / f"{model}, {text.stem}, {call}.npz"


def outputs(tokenizer: Tokenizer, text: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of every call, and the arrays that it gives for the first SMOKE_BYTES of a text."""
    lines = text.read_text("utf-8")[:SMOKE_BYTES].split("\n")
    for name, call in CALLS.items():
        yield name, arrays_of(call(tokenizer, lines))


def arrays_of(out: Any) -> dict[str, Any]:
    arrays = {"offsets": out.offsets, "ids": out.ids, "log_prob": out.log_prob}
    return {name: on_host(array) for name, array in arrays.items() if array is not None}


def difference(got: dict[str, Any], want: dict[str, Any], num_samples: int) -> Row:
    """Whether all arrays are the same; if not, where one differs first, and what is there."""
    for name in ("ids", "log_prob", "offsets"):
        one, other = got.get(name, np.empty(0)), want.get(name, np.empty(0))
        if one.tobytes() == other.tobytes():
            continue
        n = min(len(one), len(other))
        at = int(np.argmax(np.append(one[:n] != other[:n], True)))
        is_id = name == "ids"
        row = int(np.searchsorted(want["offsets"], at, side="right")) - 1 if is_id else at
        row = min(row, len(want["offsets"]) - 2)
        place = {"document": row // num_samples, "sample": row % num_samples}
        place |= {"position": at - int(want["offsets"][row])} if is_id else {}
        near = {"got": one[at : at + 5].tolist(), "expected": other[at : at + 5].tolist()}
        return {"same": False, "array": name} | place | near
    return {"same": True}


def stages(options: argparse.Namespace) -> list[Stage]:
    """All, the most valuable first; or those asked for."""
    results, host = options.results, options.host
    # Warnings of other versions than the tests are written for are no failures here.
    pytest = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-W", "default"]
    pytest += ["-n", "1" if host else "6"]
    parity = "tests/cuda/test_cuda_parity.py"
    # Only what is collected takes time: six processes would import all that the other tests need.
    marked = [str(path) for path in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    some = ["-k", "nothing and host and not last", parity] if host else [parity, *marked]
    counters = ["--csv", "--log-file", str(results / "ncu.csv"), "-k", "regex:^(forward|trace|viterbi)$", "-c", "6"]
    sections = ("SpeedOfLight", "Occupancy", "MemoryWorkloadAnalysis", "LaunchStats", "WarpStateStats")
    counters += [option for section in sections for option in ("--section", section)]

    def tests(name: str, mark: str, limit: int) -> Stage:
        junit = ["--junitxml", str(results / f"{name}.xml")]
        return Stage(name, limit, [*pytest, *junit, "-m", "not slow" if host else mark, *some])

    def sanitizer(name: str, limit: int) -> Stage:
        command = ["compute-sanitizer", "--tool", name, "--error-exitcode", "9", *itself(options, "small")]
        return Stage(name, limit, command, "compute-sanitizer")

    plan = [
        Stage("machine", 30, itself(options, "machine")),
        Stage("nvidia-smi", 10, ["nvidia-smi"], "nvidia-smi"),
        Stage("smoke", 150, itself(options, "smoke")),
        Stage("rates", 100, itself(options, "rates")),
        Stage("sweep", 120, itself(options, "sweep")),
        Stage("ncu", 60, ["ncu", *counters, *itself(options, "one")], "ncu"),
        tests("pytest", "gpu and not slow", 240),
        sanitizer("memcheck", 60),
        sanitizer("initcheck", 60),
        Stage("whole", 90, itself(options, "whole")),
        sanitizer("racecheck", 60),
        sanitizer("synccheck", 60),
        tests("slow", "gpu and slow", 120),
    ]
    return [stage for stage in plan if options.stages is None or stage.name in options.stages]


def warm_ups(options: argparse.Namespace) -> list[list[str]]:
    """Commands that fill the caches of compiled kernels, CuPy's and Numba's, for the stages and the tests."""
    commands = [itself(options, "compile")]
    if not options.host:
        commands += [itself(options, "warm", model, call) for model, call in product(MODELS, CALLS)]
    return commands


def itself(options: argparse.Namespace, *work: str) -> list[str]:
    """The command for a part of the work (run_here)."""
    given = ["--size", f"{options.size}B", "--rounds", str(options.rounds), *["--host"] * options.host]
    command = [sys.executable, str(Path(__file__).resolve()), str(options.results)]
    return [*command, "--prepared", str(options.prepared), *given, "--run", *work]


def carry_out(options: argparse.Namespace, stage: Stage, left: float) -> Row:
    """What came of a stage. It writes to a file of its own, the end of which is kept."""
    if stage.tool and shutil.which(stage.tool) is None:
        return {"outcome": "absent", "seconds": 0.0, "output": f"{stage.tool} is not on the path"}
    limit = min(stage.limit, left)
    if limit < LEAST:
        return {"outcome": "left out", "seconds": 0.0}
    log, began = options.results / f"{stage.name}.log", perf_counter()
    log.unlink(missing_ok=True)
    process = start(stage.command, log)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(limit - GRACE)
        outcome = {None: "stopped", 0: "passed"}.get(process.returncode, "failed")
    finally:
        stop(process)
    output = log.read_text("utf-8", "replace")
    if outcome == "failed" and any(words in output for words in REFUSALS):
        outcome = "absent"
    return {"outcome": outcome, "seconds": round(perf_counter() - began, 1), "limit": limit, "output": output[-3000:]}


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)


def stop(process: subprocess.Popen[bytes], grace: float = GRACE) -> None:
    """End it and all that it started; pytest, given some seconds, first writes what it has."""
    with suppress(subprocess.TimeoutExpired):
        process.send_signal(signal.SIGINT)
        process.wait(grace)
    with suppress(subprocess.TimeoutExpired, ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(GRACE)


def append(options: argparse.Namespace, run: str, row: Row) -> None:
    """Keep a result of what `run` names: the machine, a stage, or what is warmed up."""
    with (options.results / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"run": run} | row) + "\n")


def run_here(options: argparse.Namespace) -> int:
    """One of the functions below, in this process: every row is kept as soon as it is there."""
    name, *others = options.run
    is_well = True
    for row in WORKS[name](options, *others):
        append(options, name, row)
        if not row.get("same", True):
            is_well = False
            print(json.dumps(row), flush=True)
    return 0 if is_well else 1


def new_device(options: argparse.Namespace) -> Any:
    if not options.host:
        return CudaDevice()
    from cuda_on_cpu.host_device import HostDevice

    return HostDevice()


def on(device: Any, cpu: Tokenizer) -> Tokenizer:
    return cpu.on(cuda.CudaBackend(cpu.model, device))


def prepared(options: argparse.Namespace) -> Any:
    return json.loads((options.prepared / PREPARED).read_text("utf-8"))


def machine(options: argparse.Namespace) -> Iterator[Row]:
    yield describe() | {"device": gpu.describe_device(new_device(options)), "prepared": prepared(options)["commit"]}


def smoke(options: argparse.Namespace) -> Iterator[Row]:
    """Whether ids, offsets and probabilities are those that the CPU gave beforehand."""
    device = new_device(options)
    for model in prepared(options)["models"]:
        tokenizer = on(device, Tokenizer.from_file(options.prepared / model, device="cpu"))
        for text in sorted(options.prepared.glob("*.txt")):
            began = perf_counter()
            for call, arrays in outputs(tokenizer, text):
                labels = {"model": model, "text": text.stem, "call": call, "seconds": round(perf_counter() - began, 2)}
                with np.load(expected(options.prepared, model, text, call)) as want:
                    yield labels | difference(arrays, dict(want), NUM_SAMPLES.get(call, 1))
                began = perf_counter()


def measured(
    options: argparse.Namespace, *parts: str, size: int, few: bool = False, device: Any = None
) -> Iterator[Row]:
    """Rows of `python -m bench gpu`; few: for the first model and text alone."""
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    models = [str(options.prepared / model) for model in prepared(options)["models"]]
    files = [f"{path.stem}={path}" for path in sorted(options.prepared.glob("*.txt"))]
    if few:
        models, files = models[:1], files[:1]
    given = parser.parse_args(["--parts", *parts, "--size", f"{size}B", "--rounds", str(options.rounds)])
    given.model, given.text = models, files
    given.largest, given.largest_cpu = 4 * size, size // 4
    if options.host:
        gpu.LOADS_PER_THREAD = 1
    for table, row in gpu.measured(given, device or new_device(options)):
        yield {"table": table} | row


def rates(options: argparse.Namespace) -> Iterator[Row]:
    yield from measured(options, "stages", size=options.size, few=True)
    yield from measured(options, "gathers", "stages", size=2 * options.size, few=True)
    yield from measured(options, "stages", size=options.size)


def whole(options: argparse.Namespace) -> Iterator[Row]:
    """From Arrow to Arrow and from file to file, and by size of a call."""
    yield from measured(options, "whole", "curve", size=4 * options.size, few=True)


def sweep(options: argparse.Namespace) -> Iterator[Row]:
    """The stages under every combination of the constants; the first values of all are as shipped."""
    for values in product(*(values[:2] if options.host else values for values in SWEPT.values())):
        setting = dict(zip(SWEPT, values, strict=True))
        cuda.STRETCH = setting["STRETCH"]
        device = None if options.host else Uncrowded(setting["resident"])
        for row in measured(options, "stages", size=options.size, few=True, device=device):
            yield setting | row


class Uncrowded(CudaDevice):
    """With at most so many warps a multiprocessor, by shared memory that no kernel uses.

    The driver is asked for the least of it that does, so that the L1 cache stays large. Kernels of one warp a block are
    left as they are.
    """

    def __init__(self, warps: int) -> None:
        super().__init__()
        self._blocks = warps * self.warp_threads // THREADS_PER_BLOCK if warps < MOST_WARPS else None

    def kernel(self, file: str, name: str, options: tuple[str, ...]) -> Any:
        kernel = super().kernel(file, name, options)
        if self._blocks is None:
            kernel.preferred_shared_memory_carveout = -1  # what the driver thinks best
            return kernel
        size, unused = shared_memory(self._blocks, kernel.shared_size_bytes)
        kernel.preferred_shared_memory_carveout = 100 * size // SHARED_SIZES[-1]

        def launch(grid: tuple[int], block: tuple[int], args: tuple[Any, ...]) -> None:
            kernel(grid, block, args, shared_mem=unused if block[0] == THREADS_PER_BLOCK else 0)

        return launch


def shared_memory(blocks: int, used: int) -> tuple[int, int]:
    """The least size of a multiprocessor's shared memory, and how much of it a block takes beside what it uses, so that
    it holds so many blocks, if it holds as many at all. The system takes 1 KB a block.
    """
    size = next((size for size in SHARED_SIZES if size >= blocks * (used + 1024)), SHARED_SIZES[-1])
    return size, max(0, size // blocks - used - 1024) // 128 * 128


def one(options: argparse.Namespace) -> Iterator[Row]:
    """Two calls on a batch that fills the device, for a profiler."""
    tokenizer = Tokenizer.from_file(options.prepared / prepared(options)["models"][0], device="cpu")
    unit = sorted(options.prepared.glob("*.txt"))[0].read_text("utf-8")
    lines = (unit * max(1, options.size // 4 // len(unit.encode()))).split("\n")
    for call in (CALLS["sample"], CALLS["encode"]):
        call(on(new_device(options), tokenizer), lines)
    yield {"bytes": len(unit)}


def small(options: argparse.Namespace) -> Iterator[Row]:
    """Through every kernel of the bulk path, for sanitizers, with the results of the CPU.

    Characters and bytes, sums in floats and doubles, short and long segments, tokens, resets, unknown runs of every
    kind, several samples and batches, scores.
    """
    if not options.host:
        import cupy

        # A pool hands out parts of larger blocks, in which no overrun would be seen.
        cupy.cuda.set_allocator(None)
    cuda.STRETCH, cuda.LONGEST, cuda.DEVICE_BATCH_BYTES = SMALL["STRETCH"], SMALL["LONGEST"], 3000
    some = ["a new dawn", "", "吾輩は猫である" * 9, "a" * 700, "\U0010ffff" * 40] * 2
    for name in (*MODELS, "en_symbols.model", "en_split.tokenizer.json"):
        cpu = Tokenizer.from_file(ROOT / "tests" / "data" / name, device="cpu")
        vocabulary = cpu.model.vocabulary
        if vocabulary.best_scores.dtype == np.float32:
            vocabulary = dataclasses.replace(vocabulary, best_scores=vocabulary.best_scores * np.float32(1e4))
            cpu = Tokenizer(dataclasses.replace(cpu.model, vocabulary=vocabulary), device="cpu")
        tokenizer = on(new_device(options), cpu)
        for label, call in CALLS.items():
            got, want = arrays_of(call(tokenizer, some)), arrays_of(call(cpu, some))
            yield {"model": name, "call": label} | difference(got, want, NUM_SAMPLES.get(label, 1))


def warm(options: argparse.Namespace, model: str, call: str) -> Iterator[Row]:
    """Numba's code for one call with one kind of model."""
    began = perf_counter()
    CALLS[call](Tokenizer.from_file(ROOT / "tests" / "data" / model, device="cpu"), ["A new dawn.", "a" * 100] * 9)
    yield {"model": model, "call": call, "seconds": round(perf_counter() - began, 1)}


def compile_all(options: argparse.Namespace) -> Iterator[Row]:
    """Every .cu file, for every kind of model and all constants that it reads; what is shipped comes first."""
    sizes = [{"STRETCH": cuda.STRETCH}, SMALL, TINY, *({"STRETCH": stretch} for stretch in SWEPT["STRETCH"])]
    kinds = [{"IS_BYTES": i, "NUMBER": number} for i, number in ((0, "float"), (0, "double"), (1, "double"))]
    constants = [
        {"LONGEST": cuda.LONGEST, "BLOCK": THREADS_PER_BLOCK} | size | kind for size in sizes for kind in kinds
    ]
    todo = dict.fromkeys((file, define_options(file, one)) for one in constants for file in FILES)
    chosen = list(todo)[:1] if options.host else list(todo)
    with ProcessPoolExecutor(1 if options.host else 6, get_context("spawn")) as pool:
        yield from pool.map(compiled, [options] * len(chosen), chosen)


def compiled(options: argparse.Namespace, what: tuple[str, tuple[str, ...]]) -> Row:
    file, defines = what
    began = perf_counter()
    new_device(options).kernel(file, next(iter(kernels_in(file))), defines)
    return {"file": file, "options": defines, "seconds": round(perf_counter() - began, 2)}


WORKS: dict[str, Callable[..., Iterator[Row]]] = {
    "machine": machine,
    "smoke": smoke,
    "rates": rates,
    "sweep": sweep,
    "one": one,
    "small": small,
    "whole": whole,
    "warm": warm,
    "compile": compile_all,
}


if __name__ == "__main__":
    sys.exit(main())
