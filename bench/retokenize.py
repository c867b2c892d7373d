"""Parquet to Parquet beside sampling in memory: what reading and writing cost, and how busy the cores are."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from bench.texts import write_parquet
from gpu_lattice.benchmark.machine import describe

# How often it is looked how many threads have something to do.
LOOK_SECONDS = 0.005


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", default="shipped", help="UTF-8 text, a document per line, .xz or not; or `shipped`")
    parser.add_argument("--model", help="model file; the default model if left out")
    parser.add_argument("--megabytes", type=int, default=120, help="size of the text, which is repeated")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--batch-bytes", type=int, help="as retokenize has it by default")
    parser.add_argument("--threads", type=int, help="all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    import gpu_lattice as gl

    options = {"device": "cpu", "threads": arguments.threads}
    model = arguments.model
    tokenizer = gl.Tokenizer.from_file(model, **options) if model else gl.Tokenizer.default(**options)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "text.parquet"
        size, _ = write_parquet(source, arguments.text, arguments.megabytes * 1_000_000)
        work = _Work(tokenizer, source, Path(folder) / "out", arguments.alpha, arguments.batch_bytes)
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append(_terms(work, size / 1e6, cores))
            print(_line(rounds[-1]), file=sys.stderr, flush=True)
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    result = {
        "machine": describe(),
        "model": Path(model).name if model else "default.model",
        "text": Path(arguments.text).name,
        "bytes": size,
        "alpha": arguments.alpha,
        "batch_bytes": arguments.batch_bytes,
        "threads": tokenizer.backend.threads,
        "cores": cores,
        "medians": medians,
        "rounds": rounds,
    }
    print(f"{size / 1e6:.0f} MB, {cores} cores; medians of {len(rounds)} rounds:\n{_line(medians)}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


class _Work:
    """The three kinds of work on one file: all of it, all but sampling, and sampling alone, in the same batches."""

    def __init__(self, tokenizer: Any, source: Path, out: Path, alpha: float, batch_bytes: int | None) -> None:
        from gpu_lattice.corpus import pipeline

        self._pipeline = pipeline
        self._tokenizer, self._source, self._out, self._alpha = tokenizer, source, out, alpha
        self._batch_bytes = {} if batch_bytes is None else {"batch_bytes": batch_bytes}
        self._calls: list[tuple[Any, Any, Any]] = []
        segment = pipeline.segmented
        with mock.patch.object(pipeline, "segmented", lambda *call: self._noted(call, segment(*call))):
            self.job()

    def _noted(self, call: Any, rows: Any) -> Any:
        self._calls.append((*call, rows))
        return rows

    def job(self) -> None:
        from gpu_lattice import retokenize

        retokenize(
            self._source, self._out, tokenizer=self._tokenizer, alpha=self._alpha, progress=False, overwrite=True,
            **self._batch_bytes,
        )  # fmt: skip

    def files(self) -> None:
        with mock.patch.object(self._pipeline, "segmented", side_effect=[rows for *_, rows in self._calls]):
            self.job()

    def sample(self) -> None:
        for job, group, _ in self._calls:
            self._pipeline.segmented(job, group)


def _terms(work: _Work, megabytes: float, cores: int) -> dict[str, float]:
    """Milliseconds of processor time for each MB of text, and shares.

    busy       cores that the job would use if it had them: threads that run, or wait for nothing but a core
    share      the job's rate, with so many cores busy, to the rate of sampling on the cores that its reading and
               writing leave
    by_clock   the same by wall time, of the cores that other processes left
    """
    sample, files = (_spent(one) / megabytes * 1e3 for one in (work.sample, work.files))
    watch = subprocess.Popen(
        [sys.executable, "-m", "bench.retokenize", str(os.getpid()), str(cores)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[1],
    )  # fmt: skip
    assert watch.stdout is not None
    watch.stdout.readline()
    start, before = time.perf_counter(), _processor_seconds()
    job = _spent(work.job) / megabytes * 1e3
    wall = (time.perf_counter() - start) / megabytes * 1e3
    others = max(0.0, (_processor_seconds() - before) / megabytes * 1e3 - job)
    busy = float(watch.communicate("end\n")[0])
    return {
        "sample": sample,
        "files": files,
        "job": job,
        "wall": wall,
        "others": others / wall,
        "busy": busy,
        "share": sample / (cores * job / busy - files),
        "by_clock": sample / (cores * wall - others - files),
    }


def _line(terms: dict[str, float]) -> str:
    return (
        "ms of a core per MB: sampling {sample:.1f}, files {files:.1f}, the job {job:.1f}; by the clock {wall:.1f}, "
        "others on {others:.2f} cores; {busy:.2f} cores busy: {share:.2f} of the rate in memory on the cores left "
        "({by_clock:.2f} by the clock)"
    ).format(**terms)


def _spent(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _processor_seconds() -> float:
    """Of all processes: user, nice, system, and interrupts."""
    user, nice, system, _, _, hard, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + hard + soft + steal) / os.sysconf("SC_CLK_TCK")


def _watch(process: int, cores: int) -> None:
    """Print how many cores a process keeps busy on average, until something is on stdin."""
    import select

    folder, looks = Path(f"/proc/{process}/task"), []
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        looks.append(min(cores, sum(_is_runnable(task) for task in folder.iterdir())))
    print(sum(looks) / len(looks))


def _is_runnable(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    except OSError:  # it has ended
        return False


if __name__ == "__main__":
    _watch(int(sys.argv[1]), int(sys.argv[2]))
