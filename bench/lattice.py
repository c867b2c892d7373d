"""Operations on lattices, one by one; beside those of another checkout in turns, if one is given."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.texts import chunks, num_bytes
from bench.worker import Worker, answer

ALPHA = 0.2
ROOT = Path(__file__).resolve().parents[1]
# Tensors, results for each text or for all of them, rows of ids.
TENSORS: dict[str, dict[str, Any]] = {
    name: {"alpha": ALPHA} for name in ("forward_scores", "backward_scores", "marginals")
}
OPERATIONS = TENSORS | {
    "log_partition": {"alpha": ALPHA},
    "entropy": {"alpha": ALPHA},
    "expected_counts": {"alpha": ALPHA},
    "viterbi": {},
    "sample": {"alpha": ALPHA},
    "nbest": {"n": 8},
}
CASES = ("lattice", "to_ragged", *OPERATIONS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="model file")
    parser.add_argument("--text", required=True, help="UTF-8 text, a document per line, .xz or not; or `shipped`")
    parser.add_argument("--beside", type=Path, help="another checkout, which is measured in turns with this one")
    parser.add_argument("--bytes", type=int, default=500_000, help="of text in a lattice, about")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    from gpu_lattice.benchmark.machine import describe

    paths = [Path(path).resolve() if path != "shipped" else path for path in (arguments.model, arguments.text)]
    roots = [ROOT, *([arguments.beside.resolve()] if arguments.beside else [])]
    workers = [Worker("bench.lattice", *paths, arguments.bytes, root) for root in roots]
    size = int(workers[0].ask("bytes"))
    result: dict[str, Any] = {
        "machine": describe(),
        "model": Path(arguments.model).name,
        "text": Path(arguments.text).name.partition(".")[0],
        "alpha": ALPHA,
        "bytes": size,
        "median_mb_per_s": {},
        "times_the_other": {},
    }
    print(f"{result['model']}, {result['text']}: a lattice of {size / 1e6:.2f} MB, alpha {ALPHA}, tensors by buckets;")
    print("processor time on one thread\n")
    for case in CASES:
        seconds: list[list[float]] = [[] for _ in workers]
        for i in range(arguments.rounds):
            for k in range(len(workers))[:: 1 if i % 2 else -1]:
                seconds[k].append(float(workers[k].ask(case)))
        rate = result["median_mb_per_s"][case] = round(size / 1e6 / statistics.median(seconds[0]), 2)
        print(f"{case:18}{rate:9.1f} MB/s", end="")
        if len(workers) > 1:
            ratio = statistics.median(other / own for own, other in zip(*seconds, strict=True))
            result["times_the_other"][case] = round(ratio, 2)
            print(f"{ratio:9.2f} times the other's", end="")
        print(flush=True)
    for worker in workers:
        worker.end()
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _work(model: str, text: str, size: int) -> None:
    """Answer each case that is asked for with the processor time of a call."""
    import pyarrow as pa

    import gpu_lattice as gl

    tokenizer = gl.Tokenizer.from_file(model, device="cpu", threads=1)
    documents: list[str] = []
    for chunk in chunks(text):
        if num_bytes(documents) >= size:
            break
        documents += chunk
    texts = pa.array(documents, pa.large_string())
    lattice = tokenizer.lattice(texts)
    buckets = [part for _, part in lattice.buckets()]
    calls: dict[str, Callable[[], object]] = {
        "lattice": lambda: tokenizer.lattice(texts),
        "to_ragged": lambda: tokenizer.lattice(texts).to_ragged(),
    }
    for name, options in OPERATIONS.items():
        parts = buckets if name in TENSORS else [lattice]
        calls[name] = partial(_call, parts, name, options)
    for call in calls.values():
        call()

    def reply(case: str) -> object:
        if case == "bytes":
            return num_bytes(documents)
        start = time.process_time()
        calls[case]()
        return time.process_time() - start

    answer(reply)


def _call(parts: list[Any], name: str, options: dict[str, Any]) -> None:
    for part in parts:
        getattr(part, name)(**options)


if __name__ == "__main__":
    sys.path[0] = sys.argv[4]
    _work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
