"""Peak resident memory and speed of retokenizing a large generated file."""

from __future__ import annotations

import argparse
import importlib.resources
import json
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.machine import describe, peak_memory

# The copy is numbered, so that no two documents are the same.
GENERATE_ROWS = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the text")
    parser.add_argument("--alpha", type=float, default=0.2)
    parser.add_argument("--json", help="write the results to this file")


def run(arguments: argparse.Namespace) -> None:
    from gpu_lattice import Tokenizer
    from gpu_lattice.corpus.retokenize import retokenize

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "text.parquet"
        size = _generate(source, arguments.megabytes * 1_000_000)
        before = peak_memory()
        start = time.perf_counter()
        summary = retokenize(
            [source], Path(folder) / "out", tokenizer=Tokenizer.default(device="cpu"), alpha=arguments.alpha
        )
        seconds = time.perf_counter() - start
    result = {
        "machine": describe(),
        "bytes": size,
        "seconds": seconds,
        "mb_per_s": size / 1e6 / seconds,
        "peak_before_mb": before / 1e6,
        "peak_mb": peak_memory() / 1e6,
        "summary": str(summary),
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


def _generate(path: Path, size: int) -> int:
    """Write the shipped corpus over and over, each document with its number, until it has `size` bytes of text."""
    with (importlib.resources.files("gpu_lattice.data") / "corpus.parquet").open("rb") as file:
        texts = pq.read_table(file, columns=["text"])["text"].to_pylist()
    written = row = 0
    with pq.ParquetWriter(path, pa.schema([("text", pa.large_string())])) as writer:
        while written < size:
            documents = [f"{row + i} {texts[(row + i) % len(texts)]}" for i in range(GENERATE_ROWS)]
            column = pa.array(documents, pa.large_string())
            written += column.nbytes
            row += GENERATE_ROWS
            writer.write_table(pa.table({"text": column}))
    return written
