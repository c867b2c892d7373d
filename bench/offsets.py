"""What offsets cost: encoding and sampling with either unit beside ids alone, in turns, on text that is new or not."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

import gpu_lattice as gl
from bench.peers import is_bpe, model_path
from bench.texts import chunks, shipped
from gpu_lattice.benchmark.machine import describe
from gpu_lattice.benchmark.rounds import Case, Timings, in_turns

VERBS = ("encode", "sample")
UNITS = (None, "bytes", "characters")
# Of a call on text that has come before, which is over soon.
LEAST_SECONDS = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="+", help="UTF-8 text, a document per line, .xz or not; or `shipped`")
    parser.add_argument("--model", nargs="+", default=[""], help="model files; the default model if left out")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--max-chunks", type=int, default=9, help="of each text; 256 KB each")
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    ratios: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    columns = [f"{verb}, {unit}" for verb in VERBS for unit in UNITS[1:]]
    print("times the processor time of ids alone, one thread; medians of chunks of 256 KB, once / again\n")
    print(f"{'model':26}{'text':14}" + "".join(f"{column:>20}" for column in columns))
    for model in arguments.model:
        of_model = ratios[model_path(model).name] = {}
        cases = _cases(model, 0.0 if is_bpe(model or None) else arguments.alpha)
        for text in arguments.text:
            name = Path(text).name.partition(".")[0]
            parts = list(islice(chunks(text), arguments.max_chunks))
            once = in_turns(cases, parts, clock=time.process_time)
            again = in_turns(cases, parts[:1] * len(parts), clock=time.process_time, least_seconds=LEAST_SECONDS)
            one = of_model[name] = {"once": _ratios(once), "again": _ratios(again)}
            row = "".join(f"{one['once'][column]:13.2f} / {one['again'][column]:4.2f}" for column in columns)
            print(f"{model_path(model).name[:25]:26}{name:14}{row}", flush=True)
    if arguments.json:
        result = {"machine": describe(), "alpha": arguments.alpha, "ratios": ratios}
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _cases(model: str, alpha: float) -> list[Case]:
    """A tokenizer for each unit, as one would remember for the other; compiled, but nothing remembered."""

    def prepare(documents: list[str]) -> Any:
        return pa.array(documents, pa.large_string())

    calls: dict[tuple[str, str | None], Callable[[Any], Any]] = {}
    for unit in UNITS:
        tok = gl.Tokenizer.from_file(model_path(model), device="cpu", threads=1)
        calls["encode", unit] = partial(tok.encode, return_offsets=unit)  # type: ignore[arg-type]
        calls["sample", unit] = partial(tok.sample, alpha=alpha, seed=0, return_offsets=unit)  # type: ignore[arg-type]
        for verb in VERBS:
            calls[verb, unit](shipped("en", "ja", "zh"))
        tok.backend.forget()
    return [Case((verb, unit), prepare, calls[verb, unit]) for verb in VERBS for unit in UNITS]


def _ratios(timings: dict[Any, Timings]) -> dict[str, float]:
    """Medians of each chunk's own ratio: a shared machine's speed changes between chunks more than within one."""
    return {
        f"{verb}, {unit}": round(
            statistics.median(
                spent / alone
                for spent, alone in zip(timings[verb, unit].seconds, timings[verb, None].seconds, strict=True)
            ),
            3,
        )
        for verb in VERBS
        for unit in UNITS[1:]
    }
