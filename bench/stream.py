"""Text that comes once: sampling and best segmentation beside the model's own tool, in turns by chunks of a stream."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.peers import is_bpe
from bench.texts import chunks, num_bytes, shipped
from bench.worker import Worker, answer
from gpu_lattice.benchmark.machine import describe, peak_memory
from gpu_lattice.benchmark.rounds import Case, in_turns

VERBS = ("sample", "encode")
SIDES = ("ours", "peer")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "text", nargs="+", help="UTF-8 text, a document per line, .xz or not (tools/make_streams.py); or `shipped`"
    )
    parser.add_argument("--model", help="model file; the default model if left out")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--max-chunks", type=int, default=1 << 30, help="of each text; 256 KB each")
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    model = arguments.model or ""
    alpha = 0.0 if is_bpe(model or None) else arguments.alpha
    options = (str(Path(model).resolve()) if model else "", alpha)
    # Compiling takes memory that the process of a stream shall not be charged with.
    _start("ours", *options, arguments.text[0]).end()
    streams: dict[str, Any] = {}
    result = {
        "machine": describe(),
        "model": Path(model).name or "default.model",
        "alpha": alpha,
        "streams": streams,
    }
    print(f"{result['model']}, alpha {alpha}; processor time on one thread, medians of chunks of 256 KB\n")
    print(f"{'':16}{'MB':>6}{'sample':>9}{'encode':>8} MB/s   {'sample':>6}{'encode':>8} of the tool's {'peak MB':>12}")
    for text in arguments.text:
        name = Path(text).name.partition(".")[0]
        one = streams[name] = _measure(text, options, arguments.max_chunks)
        rates, ratios = one["median_mb_per_s"], one["ratios"]
        print(f"{name:16}{one['bytes'] / 1e6:6.1f}", end="")
        print(f"{rates['ours sample']:9.1f}{rates['ours encode']:8.1f}", end="        ")
        print(f"{ratios.get('sample', 0):6.2f}{ratios.get('encode', 0):8.2f}", end="               ")
        print(f"{one['peak_mb']['ours']:12.0f}", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _start(side: str, model: str, alpha: float, text: str) -> Worker:
    worker = Worker("bench.stream", side, model, alpha, text if text == "shipped" else Path(text).resolve())
    worker.ask("start")
    return worker


def _measure(text: str, options: tuple[str, float], max_chunks: int) -> dict[str, Any]:
    workers = {side: _start(side, *options, text) for side in SIDES}
    sizes: list[int] = []
    seconds: dict[str, list[float]] = {}
    while len(sizes) < max_chunks:
        order = SIDES if len(sizes) % 2 else SIDES[::-1]
        answers = {side: json.loads(workers[side].ask("chunk")) for side in order}
        if not answers["ours"]:
            break
        sizes.append(answers["ours"]["bytes"])
        for side in SIDES:
            for verb, spent in answers[side]["seconds"].items():
                seconds.setdefault(f"{side} {verb}", []).append(spent)
    peaks = {side: round(int(workers[side].ask("peak")) / 1e6, 1) for side in SIDES}
    for worker in workers.values():
        worker.end()
    return {
        "bytes": sum(sizes),
        "chunks": len(sizes),
        "median_mb_per_s": {
            name: statistics.median(size / 1e6 / one for size, one in zip(sizes, spent, strict=True))
            for name, spent in seconds.items()
        },
        # Of each chunk's own ratio: a shared machine's speed changes between chunks more than within one.
        "ratios": {
            verb: statistics.median(
                peer / ours for peer, ours in zip(seconds[f"peer {verb}"], seconds[f"ours {verb}"], strict=True)
            )
            for verb in VERBS
            if f"peer {verb}" in seconds
        },
        "peak_mb": peaks,
        "seconds": seconds,
    }


def _work(side: str, model: str, alpha: float, text: str) -> None:
    """Answer "chunk" with the processor time of each call on the next chunk, or with {} at the end of the text."""
    cases = (_our_cases if side == "ours" else _peer_cases)(model or None, alpha)
    parts = chunks(text)

    def reply(question: str) -> object:
        if question != "chunk":
            return peak_memory()
        documents = next(parts, None)
        if documents is None:
            return "{}"
        timings = in_turns(cases, [documents], clock=time.process_time)
        seconds = {verb: round(one.seconds[0], 6) for verb, one in timings.items()}
        return json.dumps({"bytes": num_bytes(documents), "seconds": seconds})

    answer(reply)


def _our_cases(model: str | None, alpha: float) -> list[Case]:
    """A tokenizer for each, as one would remember for the other; compiled and with tables, but nothing remembered."""
    import pyarrow as pa

    import gpu_lattice as gl

    def load() -> gl.Tokenizer:
        if model is None:
            return gl.Tokenizer.default(device="cpu", threads=1)
        return gl.Tokenizer.from_file(model, device="cpu", threads=1)

    def prepare(documents: list[str]) -> Any:
        return pa.array(documents, pa.large_string())

    sampler, encoder = load(), load()
    other = prepare(shipped("en", "ja", "zh"))
    sampler.sample(other, alpha=alpha, seed=0)
    encoder.encode(other)
    sampler.backend.forget()
    encoder.backend.forget()
    return [
        Case("sample", prepare, lambda texts: sampler.sample(texts, alpha=alpha, seed=0)),
        Case("encode", prepare, encoder.encode),
    ]


def _peer_cases(model: str | None, alpha: float) -> list[Case]:
    from bench.peers import own_tool

    calls = own_tool(model, alpha)
    other = shipped("en")[:100]
    for call in calls.values():
        call(other)
    verbs = {name.partition(" ")[2]: call for name, call in calls.items()}
    return [Case(verb, list, verbs[verb]) for verb in VERBS if verb in verbs]


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4])
