"""What decides a draw besides text and seed: the ids of documents; and which run does what."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gpu_lattice.runtime.seeds import splitmix

if TYPE_CHECKING:
    from numpy.typing import NDArray


def row_ids(path: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The 64-bit doc ids of rows of a file, for files without an id column. path: below the root of the inputs.

    Example:
        >>> row_ids("a.txt", np.array([0, 1])).tolist()
        [1918901513515248343, -1166288238653905234]
    """
    key = int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")
    return splitmix(key, rows).view(np.int64)


def document_ids(ids: pa.Array, path: Path | str = "the id column") -> NDArray[np.int64]:
    """The 64-bit doc ids of an id column: integers as they are (modulo 2^64), strings by BLAKE2b.

    A string's doc id is the 8-byte BLAKE2b digest of its UTF-8, read little-endian. Raises ValueError for a null.

    Example:
        >>> document_ids(pa.array([7, -1])).tolist()
        [7, -1]
        >>> document_ids(pa.array(["a"])).tolist()
        [3405396810240292928]
    """
    if ids.null_count:
        row = ids.is_null().to_numpy(zero_copy_only=False).argmax()
        raise ValueError(f"{path}: an id is null (row {row} of its batch); give every document an id")
    if pa.types.is_integer(ids.type):
        return np.asarray(ids.to_numpy()).astype(np.int64)
    unique = ids.dictionary_encode()
    names = unique.dictionary.cast(pa.large_binary()).to_pylist()
    digests = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in names)
    hashes = np.frombuffer(digests, "<i8").astype(np.int64)
    return np.take(hashes, np.asarray(unique.indices))


def checked_shard(shard: str | tuple[int, int]) -> tuple[int, int]:
    """(I, N) of "I/N", I from 0.

    Example:
        >>> checked_shard("0/2")
        (0, 2)
    """
    parts = shard.split("/") if isinstance(shard, str) else list(shard)
    try:
        i, n = map(int, parts)
    except (TypeError, ValueError):
        raise ValueError(f"the shard is {shard!r:.60}; give I/N, as in 0/2, with I from 0 to N - 1") from None
    if not 0 <= i < n:
        raise ValueError(f"the shard is {i}/{n}; give I/N, as in 0/2, with I from 0 to N - 1")
    return i, n


def deal(sizes: Sequence[int], n: int) -> list[int]:
    """Which of n runs does each item: the largest first, each to the run that has least.

    Example:
        >>> deal([5, 9, 4, 1], 2)
        [1, 0, 1, 0]
    """
    loads = [(0, i) for i in range(n)]
    dealt = [0] * len(sizes)
    for i_item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        load, run = heapq.heappop(loads)
        dealt[i_item] = run
        # An empty file is work, too.
        heapq.heappush(loads, (load + sizes[i_item] + 1, run))
    return dealt
