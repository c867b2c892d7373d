"""Resident memory while a large generated file is retokenized, second by second, and whether all counts agree."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

from bench.texts import write_parquet
from gpu_lattice.benchmark.machine import describe, peak_memory
from gpu_lattice.corpus import retokenize as module
from gpu_lattice.corpus.progress import Progress
from gpu_lattice.runtime.threads import default_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "text", nargs="*", default=["shipped"], help="UTF-8 texts, a document per line, .xz or not; or `shipped`"
    )
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the text")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--batch-bytes", type=int, help="as retokenize has it by default")
    parser.add_argument("--threads", type=int, help="all by default")
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    from gpu_lattice import Tokenizer, retokenize

    tokenizer = Tokenizer.default(device="cpu", threads=arguments.threads)
    options = {} if arguments.batch_bytes is None else {"batch_bytes": arguments.batch_bytes}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "text.parquet"
        size, documents = write_parquet(source, arguments.text, arguments.megabytes * 1_000_000)
        stored = source.stat().st_size
        tokenizer.sample(["a"], alpha=arguments.alpha)
        before = _resident()
        curve: list[int] = []
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(curve, ended))
        watch.start()
        start, start_cpu = time.perf_counter(), time.process_time()
        with mock.patch.object(module, "Progress", _Counts):
            summary = retokenize(source, Path(folder) / "out", tokenizer=tokenizer, alpha=arguments.alpha, **options)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        ended.set()
        watch.join()
    shown = {"bytes": _Counts.bytes, "documents": _Counts.documents, "tokens": _Counts.tokens}
    agree = {
        "bytes": summary.num_bytes == size,
        "documents": summary.documents == documents,
        "the bar": shown == {"bytes": stored, "documents": documents, "tokens": summary.tokens},
    }
    result = {
        "machine": describe(),
        "texts": [Path(name).name for name in arguments.text],
        "bytes": size,
        "documents": documents,
        "bytes_stored": stored,
        "bar": shown,
        "summary": str(summary),
        "agree": agree,
        "threads": arguments.threads or default_threads(),
        "batch_bytes": arguments.batch_bytes,
        "seconds": seconds,
        "mb_per_s": size / 1e6 / seconds,
        "mb_per_cpu_s": size / 1e6 / cpu_seconds,
        "before_mb": before / 1e6,
        "peak_mb": peak_memory() / 1e6,
        "resident_mb_each_second": [round(one / 1e6) for one in curve],
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


class _Counts(Progress):
    """What the bar has been told."""

    bytes = documents = tokens = 0

    def advance(self, num_bytes: int, documents: int, tokens: int) -> None:
        super().advance(num_bytes, documents, tokens)
        _Counts.bytes += num_bytes
        _Counts.documents += documents
        _Counts.tokens += tokens


def _watch(curve: list[int], ended: threading.Event) -> None:
    while not ended.wait(1.0):
        curve.append(_resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
