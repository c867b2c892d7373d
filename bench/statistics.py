"""Expected counts and statistics of texts beside sampling them, and what fitting scores to a corpus takes."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

import gpu_lattice as gl
from bench.texts import chunks, num_bytes, shipped
from gpu_lattice.benchmark.machine import describe, peak_memory
from gpu_lattice.runtime.threads import default_threads

BATCH_LINES = 50_000
CALLS = ("sample", "expected counts", "token statistics")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="+", help="UTF-8 text, a document per line, .xz or not: tools/make_streams.py")
    parser.add_argument("--model", help="model file; the default model if left out")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--iterations", type=int, default=5, help="steps of fitting")
    parser.add_argument("--fit-bytes", type=int, default=0, help="also fit to the texts, in turns, up to so many bytes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    model = arguments.model
    tokenizer = gl.Tokenizer.from_file(model, device="cpu", threads=1) if model else gl.Tokenizer.default(
        device="cpu", threads=1
    )  # fmt: skip
    texts: dict[str, Any] = {}
    print(f"{Path(model or 'default.model').name}: processor time on one thread\n")
    print(f"{'':16}{'MB':>6}{'sample':>9}{'counts':>8}{'statistics':>12} MB/s  {'counts/sample':>14}   a step of fit")
    for path in arguments.text:
        name = Path(path).name.partition(".")[0]
        one = texts[name] = _measure(tokenizer, path, arguments)
        rates, fit = one["median_mb_per_s"], one["fit"]
        print(f"{name:16}{one['bytes'] / 1e6:6.1f}{rates['sample']:9.1f}{rates['expected counts']:8.1f}", end="")
        print(f"{rates['token statistics']:12.1f}       {one['counts to sample']:14.2f}", end="   ")
        print(f"{fit['seconds_per_step']:.2f} s for {fit['segments']} segments")
    large = None
    if arguments.fit_bytes:
        large = _fit_large(model, arguments)
        print(f"\nfit: {large['bytes'] / 1e6:.0f} MB, {large['seconds']:.0f} s on {large['threads']} threads, ", end="")
        print(f"{large['segments']} segments, {large['steps']} steps, peak {large['peak_mb']:.0f} MB")
    if arguments.json:
        result = {
            "machine": describe(),
            "model": Path(model or "default.model").name,
            "alpha": arguments.alpha,
            "texts": texts,
            "fit": large,
        }
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _measure(tokenizer: gl.Tokenizer, path: str, arguments: argparse.Namespace) -> dict[str, Any]:
    documents = [line for part in chunks(path) for line in part]
    given, size, alpha = pa.array(documents, pa.large_string()), num_bytes(documents) / 1e6, arguments.alpha
    calls = {
        "sample": lambda texts: tokenizer.sample(texts, alpha=alpha, seed=0),
        "expected counts": lambda texts: tokenizer.expected_counts(texts, alpha=alpha),
        "token statistics": lambda texts: tokenizer.token_statistics(texts, alpha=alpha),
    }
    for call in calls.values():
        call(shipped("en")[:20])
    seconds: dict[str, list[float]] = {name: [] for name in CALLS}
    for i in range(arguments.rounds):
        for name in CALLS if i % 2 else CALLS[::-1]:
            tokenizer.backend.forget()
            seconds[name].append(_seconds(lambda name=name: calls[name](given)))
    ratios = [a / b for a, b in zip(seconds["sample"], seconds["expected counts"], strict=True)]
    return {
        "bytes": round(size * 1e6),
        "median_mb_per_s": {name: size / statistics.median(spent) for name, spent in seconds.items()},
        "counts to sample": statistics.median(ratios),
        "fit": _fit(tokenizer, given, arguments.iterations),
        "seconds": seconds,
    }


def _fit(tokenizer: gl.Tokenizer, texts: Any, iterations: int) -> dict[str, Any]:
    """By two runs of different length, counting the segments apart from a step."""
    found = None
    spent = []
    for steps in (1, 1 + iterations):
        start = time.process_time()
        found = tokenizer.fit(texts, iterations=steps, tolerance=0.0)
        spent.append(time.process_time() - start)
    assert found is not None
    step = (spent[1] - spent[0]) / iterations
    return {
        "segments": found.num_segments,
        "log_likelihood": found.log_likelihood,
        "seconds_per_step": step,
        "seconds_to_count": spent[0] - 2 * step,
    }


def _fit_large(model: str | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """One call on all CPUs, from files to scores. The texts come again and again: few segments are new after once."""
    tokenizer = gl.Tokenizer.from_file(model, device="cpu") if model else gl.Tokenizer.default(device="cpu")
    read = 0

    def batches() -> Iterator[Any]:
        nonlocal read
        while read < arguments.fit_bytes:
            for path in arguments.text:
                held: list[str] = []
                for part in chunks(path):
                    held += part
                    read += num_bytes(part)
                    if len(held) > BATCH_LINES:
                        yield pa.array(held, pa.large_string())
                        held = []
                yield pa.array(held, pa.large_string())

    start, spent = time.perf_counter(), time.process_time()
    found = tokenizer.fit(batches(), iterations=arguments.iterations, tolerance=0.0)
    return {
        "bytes": read,
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - spent,
        "threads": default_threads(),
        "segments": found.num_segments,
        "pruned": found.num_pruned,
        "steps": len(found.log_likelihood) - 1,
        "log_likelihood": found.log_likelihood,
        "peak_mb": peak_memory() / 1e6,
    }


def _seconds(call: Any) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
