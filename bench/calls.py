"""Texts per call, 1 to 100,000: sampling and best segmentation beside the model's own tool, in turns in one process.

The first row is of a str, not of a list of one: sentencepiece starts a thread for a list.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench.peers import converted, model_path, own_tool
from bench.texts import lines, shipped
from gpu_lattice.benchmark.machine import describe

# A str in place of a list.
BARE = 0
SIZES = (BARE, 1, 10, 100, 1_000, 10_000, 100_000)
VERBS = ("sample", "encode")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="SentencePiece .model or tokenizer.json; the default model if left out")
    parser.add_argument(
        "--text", help="UTF-8 text, a document per line; the English that ships with the package if left out"
    )
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="texts per call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a measurement, at least")
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    texts = lines(arguments.text) if arguments.text else shipped("en")
    calls = _calls(arguments.model, arguments.alpha)
    result: dict[str, Any] = {
        "machine": describe(),
        "model": model_path(arguments.model).name,
        "alpha": arguments.alpha,
        "microseconds_per_text": {},
    }
    for call in calls.values():
        call(texts[:100])
    print(f"{result['model']}, alpha {arguments.alpha}; processor time on one thread, us per text\n")
    print(f"{'texts per call':>16}" + "".join(f"{name:>22}" for name in calls))
    for size in (size for size in SIZES if size <= arguments.most):
        seconds = _measure(calls, texts, size, arguments.rounds, arguments.seconds)
        one = {name: round(statistics.median(spent) * 1e6, 3) for name, spent in seconds.items()}
        row = "a str" if size == BARE else str(size)
        result["microseconds_per_text"][row] = one
        print(f"{row:>16}" + "".join(f"{spent:22.2f}" for spent in one.values()), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _calls(model: str | None, alpha: float) -> dict[str, Callable[[Any], Any]]:
    import gpu_lattice as gl

    tok = gl.Tokenizer.from_file(model_path(model), device="cpu", threads=1)
    ours = {
        "ours sample": lambda texts: tok.sample(texts, alpha=alpha, seed=0),
        "ours encode": tok.encode,
        "ours encode, offsets": lambda texts: tok.encode(texts, return_offsets="characters"),
    }
    peers = own_tool(model, alpha)
    if not str(model).endswith(".json"):
        peers |= converted(str(model_path(model)), alpha)
    return ours | {name: _of_lists(name, call) for name, call in peers.items() if name.partition(" ")[2] in VERBS}


def _of_lists(name: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The call; tokenizers' takes a str as a list of one, which costs it as much."""
    takes_str = name.startswith("sentencepiece")
    return call if takes_str else lambda texts: call([texts] if isinstance(texts, str) else texts)


def _measure(
    calls: dict[str, Callable[[Any], Any]], texts: list[str], size: int, rounds: int, least: float
) -> dict[str, list[float]]:
    """Seconds per text, of each round; all get the same batches, one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    batches: Iterator[Any] = _batches(texts, size) if size != BARE else (text for [text] in _batches(texts, 1))
    size = max(1, size)
    for _ in range(rounds):
        spent, n_texts = dict.fromkeys(calls, 0.0), 0
        while not n_texts or min(spent.values()) < least / rounds:
            given = list(islice(batches, max(1, 200 // size)))
            for name, call in calls.items():
                start = time.process_time()
                for batch in given:
                    call(batch)
                spent[name] += time.process_time() - start
            n_texts += size * len(given)
        for name, total in spent.items():
            seconds[name].append(total / n_texts)
    return seconds


def _batches(texts: list[str], size: int) -> Iterator[list[str]]:
    at = 0
    while True:
        yield [texts[(at + i) % len(texts)] for i in range(size)]
        at += size
