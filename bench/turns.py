"""Two checkouts in turns: what a change does to the rates, as ratios of processor time taken in one run."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PART_BYTES = 1 << 18
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
    command = [sys.executable, __file__, arguments.model, arguments.text, str(arguments.alpha), str(arguments.seconds)]
    workers = [
        subprocess.Popen([*command, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for root in (arguments.old, arguments.new)
    ]
    ids = [_ask(worker, "ids") for worker in workers]
    print("the same ids" if ids[0] == ids[1] else "DIFFERENT ids")
    for case in CASES:
        ratios = []
        for i_round in range(arguments.rounds):
            seconds = {worker: float(_ask(worker, case)) for worker in workers[:: 1 if i_round % 2 else -1]}
            ratios.append(seconds[workers[1]] / seconds[workers[0]])
        print(f"{case:24}  {statistics.median(ratios):.3f} of the time ({min(ratios):.3f} to {max(ratios):.3f})")
    for worker in workers:
        worker.communicate()


def _ask(worker: subprocess.Popen[str], case: str) -> str:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{case}\n")
    worker.stdin.flush()
    return worker.stdout.readline().strip()


def _work(model: str, text: str, alpha: float, seconds: float) -> None:
    """Answer each case that is asked for with the processor time of a call, or with a digest of the first ids."""
    import hashlib
    from itertools import cycle

    import pyarrow as pa

    import gpu_lattice as gl

    tokenizer = gl.Tokenizer.from_file(model, device="cpu", threads=1)
    parts, n_bytes = [[]], 0
    for line in Path(text).read_text("utf-8").split("\n"):
        parts[-1].append(line)
        n_bytes += len(line.encode())
        if n_bytes > PART_BYTES * len(parts):
            parts.append([])
    texts = [pa.array(part, pa.large_string()) for part in parts]
    new = {"sample": cycle(texts), "encode": cycle(texts)}
    calls: dict[str, Callable[[], object]] = {
        "sample": lambda: tokenizer.sample(texts[0], alpha=alpha),
        "sample, new text": lambda: tokenizer.sample(next(new["sample"]), alpha=alpha),
        "sample, 16 per document": lambda: tokenizer.sample(texts[0], alpha=alpha, num_samples=16),
        "encode": lambda: tokenizer.encode(texts[0]),
        "encode, new text": lambda: tokenizer.encode(next(new["encode"])),
    }
    for call in calls.values():
        call()
    for case in map(str.strip, sys.stdin):
        if case == "ids":
            out, best = tokenizer.sample(texts[0], alpha=alpha, num_samples=2), tokenizer.encode(texts[0])
            print(hashlib.sha256(out.ids.tobytes() + best.ids.tobytes()).hexdigest(), flush=True)
            continue
        start, n = time.process_time(), 0
        while n < 4 or ("new" not in case and time.process_time() - start < seconds):
            calls[case]()
            n += 1
        print((time.process_time() - start) / n, flush=True)


if __name__ == "__main__":
    sys.path[0] = sys.argv[5]
    _work(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
