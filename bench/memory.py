"""Resident memory and speed of retokenizing a large generated file, beside sampling a part of it in memory."""

from __future__ import annotations

import argparse
import importlib.resources
import json
import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpu_lattice.benchmark.machine import describe, peak_memory
from gpu_lattice.runtime.threads import default_threads

# The copy is numbered, so that no two documents are the same.
GENERATE_ROWS = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the text")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--batch-bytes", type=int, default=64_000_000)
    parser.add_argument("--threads", type=int, help="all by default")
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    from gpu_lattice import Tokenizer, retokenize

    tokenizer = Tokenizer.default(device="cpu", threads=arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "text.parquet"
        size = _generate(source, arguments.megabytes * 1_000_000)
        in_memory = _in_memory(source, tokenizer, arguments.alpha)
        before = _resident()
        curve: list[int] = []
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(curve, ended))
        watch.start()
        start, start_cpu = time.perf_counter(), time.process_time()
        summary = retokenize(
            source,
            Path(folder) / "out",
            tokenizer=tokenizer,
            alpha=arguments.alpha,
            batch_bytes=arguments.batch_bytes,
            progress=False,
        )
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        ended.set()
        watch.join()
    result = {
        "machine": describe(),
        "bytes": size,
        "threads": arguments.threads or default_threads(),
        "seconds": seconds,
        "batch_bytes": arguments.batch_bytes,
        "mb_per_s": size / 1e6 / seconds,
        "mb_per_cpu_s": size / 1e6 / cpu_seconds,
        "in_memory": in_memory,
        "before_mb": before / 1e6,
        "peak_mb": peak_memory() / 1e6,
        "resident_mb_each_second": [round(one / 1e6) for one in curve],
        "summary": str(summary),
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _in_memory(source: Path, tokenizer: Any, alpha: float) -> dict[str, float]:
    """Rates of sampling the first row groups, the second time."""
    with pq.ParquetFile(source) as file:
        texts = file.read_row_group(0)["text"]
    size = texts.nbytes / 1e6
    for _ in range(2):
        start, start_cpu = time.perf_counter(), time.process_time()
        tokenizer.sample(texts, alpha=alpha, seed=0)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    return {"mb_per_s": size / seconds, "mb_per_cpu_s": size / cpu_seconds}


def _watch(curve: list[int], ended: threading.Event) -> None:
    while not ended.wait(1.0):
        curve.append(_resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _generate(path: Path, size: int) -> int:
    """Write the shipped corpus over and over, each document with its number, until it has `size` bytes of text."""
    with (importlib.resources.files("gpu_lattice.data") / "corpus.parquet").open("rb") as file:
        texts = pq.read_table(file, columns=["text"])["text"].to_pylist()
    written = row = 0
    with pq.ParquetWriter(path, pa.schema([("text", pa.large_string())])) as writer:
        while written < size:
            documents = [f"{row + i} {texts[(row + i) % len(texts)]}" for i in range(GENERATE_ROWS)]
            column = pa.array(documents, pa.large_string())
            written += column.nbytes
            row += GENERATE_ROWS
            writer.write_table(pa.table({"text": column}))
    return written
