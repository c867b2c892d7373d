"""Texts to measure with: a UTF-8 file, .xz or not, a document per line, whole or by chunks."""

from __future__ import annotations

import importlib.resources
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

CHUNK_BYTES = 1 << 18
GROUP_ROWS = 20_000


def shipped(*languages: str) -> list[str]:
    """The documents of these languages in the corpus that ships with the package."""
    with (importlib.resources.files("gpu_lattice.data") / "corpus.parquet").open("rb") as file:
        table = pq.read_table(file)
    rows = zip(table["language"].to_pylist(), table["text"].to_pylist(), strict=True)
    return [text for language, text in rows if language in languages]


def lines(path: str) -> list[str]:
    with _open(path) as file:
        return file.read().split("\n")


def chunks(path: str) -> Iterator[list[str]]:
    """The lines of a file, or for "shipped" the documents of the package, some CHUNK_BYTES of them at a time."""
    chunk, n_bytes = [], 0
    for document in _documents(path):
        chunk.append(document)
        n_bytes += len(document.encode()) + 1
        if n_bytes >= CHUNK_BYTES:
            yield chunk
            chunk, n_bytes = [], 0
    if chunk:
        yield chunk


def _documents(path: str) -> Iterator[str]:
    if path == "shipped":
        yield from shipped("en", "ja", "zh")
        return
    with _open(path) as file:
        for line in file:
            yield line.removesuffix("\n")


def write_parquet(target: Path, sources: str | Sequence[str], size: int) -> tuple[int, int]:
    """Write the documents of texts, as `chunks` has them, in turns and over and over, until there are `size` bytes.

    Each begins with its number, so that no two are the same. Returns (bytes of text, documents).
    """
    texts = [list(_documents(source)) for source in ([sources] if isinstance(sources, str) else sources)]
    written = row = 0
    with pq.ParquetWriter(target, pa.schema([("text", pa.large_string())])) as writer:
        while written < size:
            rows = range(row, row + GROUP_ROWS)
            mixed = ((i, texts[i % len(texts)], i // len(texts)) for i in rows)
            column = pa.array([f"{i} {text[at % len(text)]}" for i, text, at in mixed], pa.large_string())
            written += pc.sum(pc.binary_length(column)).as_py()
            row += GROUP_ROWS
            writer.write_table(pa.table({"text": column}))
    return written, row


def num_bytes(documents: list[str]) -> int:
    return sum(len(document.encode()) for document in documents)


def _open(path: str) -> TextIO:
    if Path(path).suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8", newline="\n")
    return Path(path).open(encoding="utf-8", newline="\n")
