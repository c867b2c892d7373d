"""Two checkouts in turns: what a change does to the rates, as ratios of processor time taken in one run."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.texts import chunks
from bench.worker import Worker, answer

CASES = ("sample", "sample, new text", "sample, 16 per document", "encode", "encode, new text")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("--model", required=True, help="model file")
    parser.add_argument("--text", required=True, help="UTF-8 text, a document per line; some MB for each round")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each case in a round")


def run(arguments: argparse.Namespace) -> None:
    paths = [Path(path).resolve() for path in (arguments.model, arguments.text)]
    workers = [
        Worker("bench.turns", *paths, arguments.alpha, arguments.seconds, root.resolve())
        for root in (arguments.old, arguments.new)
    ]
    ids = [worker.ask("ids") for worker in workers]
    print("the same ids" if ids[0] == ids[1] else "DIFFERENT ids")
    for case in CASES:
        ratios = []
        for i_round in range(arguments.rounds):
            seconds = {worker: float(worker.ask(case)) for worker in workers[:: 1 if i_round % 2 else -1]}
            ratios.append(seconds[workers[1]] / seconds[workers[0]])
        print(f"{case:24}  {statistics.median(ratios):.3f} of the time ({min(ratios):.3f} to {max(ratios):.3f})")
    for worker in workers:
        worker.end()


def _work(model: str, text: str, alpha: float, seconds: float) -> None:
    """Answer each case that is asked for with the processor time of a call, or with a digest of the first ids."""
    import hashlib
    from itertools import cycle

    import pyarrow as pa

    import gpu_lattice as gl

    tokenizer = gl.Tokenizer.from_file(model, device="cpu", threads=1)
    texts = [pa.array(chunk, pa.large_string()) for chunk in chunks(text)]
    new = {"sample": cycle(texts), "encode": cycle(texts)}
    calls: dict[str, Callable[[], object]] = {
        "sample": lambda: tokenizer.sample(texts[0], alpha=alpha, seed=0),
        "sample, new text": lambda: tokenizer.sample(next(new["sample"]), alpha=alpha, seed=0),
        "sample, 16 per document": lambda: tokenizer.sample(texts[0], alpha=alpha, num_samples=16, seed=0),
        "encode": lambda: tokenizer.encode(texts[0]),
        "encode, new text": lambda: tokenizer.encode(next(new["encode"])),
    }
    for call in calls.values():
        call()

    def reply(case: str) -> object:
        if case == "ids":
            out, best = tokenizer.sample(texts[0], alpha=alpha, num_samples=2, seed=0), tokenizer.encode(texts[0])
            return hashlib.sha256(out.ids.tobytes() + best.ids.tobytes()).hexdigest()
        start, n = time.process_time(), 0
        while n < 4 or ("new" not in case and time.process_time() - start < seconds):
            calls[case]()
            n += 1
        return (time.process_time() - start) / n

    answer(reply)


if __name__ == "__main__":
    sys.path[0] = sys.argv[5]
    _work(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
