"""`python -m tests.fuzz --seconds N`: model files without end, in processes that may die."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.models import model_file

ROOT = Path(__file__).parents[2]


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Read damaged model files.")
    options.add_argument("--seconds", type=float, default=60.0, help="how long")
    options.add_argument("--inputs", type=int, default=sys.maxsize, help="how many files at most")
    options.add_argument("--seed", type=int, default=0, help="another number, other files")
    options.add_argument("--start", type=int, default=0, help="the number of the first file")
    options.add_argument("--findings", type=Path, help="a folder for the files that something went wrong with")
    arguments = options.parse_args()
    stop, i_next = arguments.start + arguments.inputs, arguments.start
    end = time.monotonic() + arguments.seconds
    outcomes: Counter[str] = Counter()
    found: list[tuple[int, str]] = []
    while i_next < stop and time.monotonic() < end:
        for i_input, outcome in run_worker(arguments.seed, i_next, stop, end):
            i_next = i_input + 1
            outcomes[outcome if outcome in ("read", "refused") else "wrong"] += 1
            if outcome not in ("read", "refused"):
                found.append((i_input, outcome))
                print(f"input {i_input} of seed {arguments.seed}: {outcome}", flush=True)
    for i_input, _ in found if arguments.findings else []:
        arguments.findings.mkdir(parents=True, exist_ok=True)
        (arguments.findings / f"{arguments.seed}-{i_input}").write_bytes(model_file(arguments.seed, i_input))
    print(f"{sum(outcomes.values())} files: " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items())))
    return 1 if found else 0


def run_worker(seed: int, start: int, stop: int, end: float) -> list[tuple[int, str]]:
    """(number, outcome) of the files that one process read, until it died, or up to number `stop` or the time `end`."""
    command = [sys.executable, "-m", "tests.fuzz.worker", "--seed", str(seed), "--start", str(start)]
    environment = os.environ | {"RUST_BACKTRACE": "0", "TOKENIZERS_PARALLELISM": "false"}
    outcomes = []
    i_begun = None
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            what, i_input, *rest = json.loads(line)
            i_begun = i_input if what == "begin" else None
            if what == "end":
                outcomes.append((i_input, rest[0]))
            if i_begun is None and (i_input + 1 >= stop or time.monotonic() >= end):
                worker.kill()
                return outcomes
    if i_begun is None:
        raise RuntimeError(f"the worker ended with {worker.returncode} and read nothing; run it by hand: {command}")
    died = signal.Signals(-worker.returncode).name if worker.returncode < 0 else f"exit status {worker.returncode}"
    return [*outcomes, (i_begun, f"the process died of {died}, which is SIGPROF or SIGALRM if it took too long")]


if __name__ == "__main__":
    sys.exit(main())
