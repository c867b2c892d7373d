"""Sampling and best segmentation on the CPU beside the model's own tool, alternating in one process."""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import gpu_lattice as gl
from bench.peers import PEERS, converted, is_bpe, model_path, of_tiktoken, own_tool
from bench.texts import lines as read_lines
from bench.texts import num_bytes, shipped
from gpu_lattice.benchmark.machine import describe
from gpu_lattice.benchmark.rounds import Case, Timings, in_turns
from gpu_lattice.runtime.threads import default_threads

LEAST_SECONDS = 0.3
APART = "sample, a tokenizer on each CPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="model file; the default model if left out")
    parser.add_argument("--text", help="UTF-8 text, a document per line; the shipped English if left out")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=7, help="every case runs once per round")
    parser.add_argument("--peer-lines", type=int, default=2000, help="lines given to peers slower than 2 MB/s")
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    lines = read_lines(arguments.text) if arguments.text else shipped("en")
    if is_bpe(arguments.model):
        arguments.alpha = 0.0
    cases = sorted([*_ours(arguments.model, arguments.alpha), *_peers(arguments, len(lines))], key=_turn)
    in_turns(cases, [lines])
    timings = in_turns(cases, [lines] * arguments.rounds, least_seconds=LEAST_SECONDS)
    rates = {name: _rates(name, one) for name, one in timings.items()}
    result = {
        "machine": describe(),
        "model": Path(arguments.model or "default.model").name,
        "text": Path(arguments.text or "corpus.parquet").name,
        "bytes": num_bytes(lines),
        "documents": len(lines),
        "alpha": arguments.alpha,
        "rounds": arguments.rounds,
        "median_mb_per_s": {name: statistics.median(one) for name, one in rates.items()},
        "seconds": {name: one.seconds for name, one in timings.items()},
        "ratios": _ratios(rates),
    }
    _show(result)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _turn(case: Case) -> int:
    """What is compared runs one after the other: the peers' sampling, our own, our encoding, the peers'."""
    name = str(case.name)
    is_encoding, is_peer = "encode" in name, name.split(" ")[0] in PEERS
    return 2 + is_peer if is_encoding else 1 - is_peer


def _rates(name: str, one: Timings) -> NDArray[np.float64]:
    return np.array(one.rates) * (default_threads() if name == APART else 1)


def _ours(model: str | None, alpha: float) -> list[Case]:
    def load(threads: int | None) -> gl.Tokenizer:
        if model is None:
            return gl.Tokenizer.default(device="cpu", threads=threads)
        return gl.Tokenizer.from_file(model, device="cpu", threads=threads)

    one, cold, every = load(1), load(1), load(None)
    apart = [load(1) for _ in range(default_threads())]
    pool = ThreadPoolExecutor(len(apart))

    def sample(tokenizer: gl.Tokenizer, texts: pa.Array, num_samples: int = 1) -> Any:
        return tokenizer.sample(texts, alpha=alpha, num_samples=num_samples, seed=0)

    def first_time(texts: pa.Array) -> Any:
        cold.backend.forget()
        return sample(cold, texts)

    calls = {
        "normalize": one.normalize,
        "sample": lambda texts: sample(one, texts),
        "sample, tables cold": first_time,
        "sample, 16 per document": lambda texts: sample(one, texts, 16),
        "sample, all threads": lambda texts: sample(every, texts),
        APART: lambda texts: list(pool.map(lambda tokenizer: sample(tokenizer, texts), apart)),
        "encode": one.encode,
        "encode, all threads": every.encode,
    }
    return [Case(name, lambda lines: pa.array(lines, pa.large_string()), call) for name, call in calls.items()]


def _peers(arguments: argparse.Namespace, num_lines: int) -> list[Case]:
    model, alpha = arguments.model, arguments.alpha
    calls = own_tool(model, alpha) | of_tiktoken(model)
    if "sentencepiece sample" in calls and not is_bpe(model):
        calls = converted(str(model_path(model)), alpha) | calls
    few = min(1.0, arguments.peer_lines / num_lines)
    return [
        Case(name, list, call, share=1.0 if name.startswith(("sentencepiece", "tiktoken")) else few)
        for name, call in calls.items()
    ]


def _ratios(rates: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Medians of the ratios of every round: a shared machine's speed changes between rounds more than within one."""
    pairs = {
        f"{ours} / {peer}": (rates[ours], rates[peer])
        for peer in rates
        for ours in ("sample", "encode")
        if peer.split(" ")[0] in PEERS and peer.split(" ")[1] == ours
    }
    pairs["sample, tables cold / sample"] = (rates["sample, tables cold"], rates["sample"])
    pairs["time of 16 samples / time of 1"] = (rates["sample"], rates["sample, 16 per document"])
    pairs["sample, all threads / one"] = (rates["sample, all threads"], rates["sample"])
    # What the CPUs give at the moment, to work of which no part waits for another.
    pairs["sample, a tokenizer on each CPU / one"] = (rates["sample, a tokenizer on each CPU"], rates["sample"])
    pairs["encode, all threads / one"] = (rates["encode, all threads"], rates["encode"])
    return {name: float(np.median(over / under)) for name, (over, under) in pairs.items()}


def _show(result: dict[str, Any]) -> None:
    machine = result["machine"]
    print(f"{machine['processor']}, {machine['cpus']} CPUs, Python {machine['python']}, commit {machine['commit']}")
    print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    print(
        f"{result['model']} on {result['text']}: {result['documents']} documents, {result['bytes'] / 1e6:.2f} MB, ",
        end="",
    )
    print(f"alpha {result['alpha']}, medians of {result['rounds']} rounds\n")
    for name, rate in result["median_mb_per_s"].items():
        print(f"  {name:32s} {rate:9.2f} MB/s")
    print()
    for name, ratio in result["ratios"].items():
        print(f"  {name:48s} {ratio:7.2f}")
