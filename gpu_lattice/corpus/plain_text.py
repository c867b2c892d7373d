"""Documents of plain text: lines, or what a separator separates; and blocks of bytes, which JSONL is read in too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Block(NamedTuple):
    """The bytes of a stream, in order; the last block is empty."""

    data: bytes
    position: int
    is_last: bool


Blocks = Callable[[int], Block]


def blocks(stream: Any, tell: Callable[[], int], block_bytes: int) -> Blocks:
    """A function that reads the next block of about max(block_bytes, its argument) bytes."""
    block_bytes = max(block_bytes, 16)
    is_first = True

    def read(at_least: int) -> Block:
        nonlocal is_first
        data = stream.read(max(block_bytes, at_least))
        is_last = not data
        if is_first:
            data = data.removeprefix(b"\xef\xbb\xbf")
            is_first = False
        return Block(data, tell(), is_last)

    return read


def parts(read: Blocks, separator: bytes | None) -> Iterator[tuple[pa.Array, None, int, int]]:
    """(texts, no ids, the first one's row, the position after them)."""
    if separator == b"":
        raise ValueError("the separator is empty; leave it out to have one document per line")
    rest, is_last, row = b"", False, 0
    while not is_last:
        # For a document longer than a block the next read doubles, so that its bytes are not searched over and over.
        data, position, is_last = read(len(rest))
        texts, rest = _split_lines(rest + data) if separator is None else _split(rest + data, separator)
        if is_last and rest:
            texts, rest = pa.concat_arrays([texts, pa.array([rest], pa.large_binary())]), b""
        if len(texts):
            yield texts, None, row, position
            row += len(texts)


def _split_lines(data: bytes) -> tuple[pa.Array, bytes]:
    """The complete lines without their ends, and the bytes after the last."""
    values = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(values == ord("\n"))
    if len(newlines) == 0:
        return pa.array([], pa.large_binary()), data
    starts = np.concatenate([[0], newlines[:-1] + 1])
    ends = newlines - ((newlines > starts) & (values[newlines - 1] == ord("\r")))
    # Lines and line ends alternate in an array without gaps; every other element is taken.
    bounds = np.stack([starts, ends], axis=1).reshape(-1)
    line_and_end = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    )
    return line_and_end.take(pa.array(np.arange(0, len(bounds), 2))), data[newlines[-1] + 1 :]


def _split(data: bytes, separator: bytes) -> tuple[pa.Array, bytes]:
    texts = pc.split_pattern(pa.array([data], pa.large_binary()), pattern=separator).values
    return texts[:-1], texts[-1].as_py()


def after_separator(file: Any, start: int, separator: bytes) -> int:
    """The first byte from `start` on that follows a separator; 0 if there is none."""
    if start == 0:
        return 0
    at, held = max(0, start - len(separator)), b""
    file.seek(at)
    while block := file.read(1 << 20):
        held += block
        found = held.find(separator)
        if found >= 0:
            begin = at + found + len(separator)
            file.seek(begin)
            return begin if file.read(1) else 0
        # The next block may complete a separator.
        at, held = at + len(held) - len(separator) + 1, held[len(held) - len(separator) + 1 :]
    return 0
