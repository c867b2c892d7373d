"""A job's shards: one for each input file, several for a large Parquet file; and where the files of each go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from gpu_lattice.corpus.columns import row_group_sizes
from gpu_lattice.corpus.documents import ReaderOptions, Span
from gpu_lattice.corpus.formats import opened
from gpu_lattice.corpus.inputs import InputFile, stem_of
from gpu_lattice.corpus.job import Shard
from gpu_lattice.corpus.outputs import ENDINGS, OutputOptions
from gpu_lattice.corpus.readers import check_columns, errors_name

# Files are looked into at the same time, since each look into a remote one takes a while.
LOOKS = 16


def plan(files: Sequence[InputFile], reading: ReaderOptions, output: OutputOptions, split_bytes: int) -> list[Shard]:
    """The shards, whatever runs will do them. ValueError for a file that cannot be used, before any is worked on.

    split_bytes: Parquet files that are larger are divided at row groups, into shards of about this size.
    """
    with ThreadPoolExecutor(LOOKS, "gpu-lattice-look") as pool:
        spans = list(pool.map(lambda file: _spans(file, reading, split_bytes), files))
    shards: list[Shard] = []
    for file, parts in zip(files, spans, strict=True):
        stem = stem_of(file.relative)
        for i_part, span in enumerate(parts):
            name = stem if len(parts) == 1 else f"{stem}-{i_part:05d}"
            shards.append(Shard(len(shards), file, span, name, file.size if span is None else span.size))
    _refuse_twins(shards, output)
    return shards


def _spans(file: InputFile, reading: ReaderOptions, split_bytes: int) -> list[Span] | list[None]:
    check_columns(file, reading)
    if file.size <= split_bytes or file.is_stdin:
        return [None]
    with errors_name(file), opened(file.open(), file.path, reading.input_format) as content:
        if content.kind != "parquet":
            return [None]
        rows, sizes = np.array(row_group_sizes(content.file, reading)).reshape(-1, 2).T
    return _divided(rows, sizes, file.size, -(-file.size // split_bytes)) or [None]


def _divided(rows: np.ndarray, sizes: np.ndarray, file_size: int, n: int) -> list[Span]:
    """About n spans of row groups with about as much text in each."""
    total, ends = max(1, int(sizes.sum())), np.cumsum(sizes)
    inner = np.searchsorted(ends, total * np.arange(1, n) / n) + 1
    bounds = sorted({0, *(int(bound) for bound in inner if bound < len(sizes)), len(sizes)})
    first_rows = np.concatenate([[0], np.cumsum(rows)])
    done = [file_size * int(ends[bound - 1]) // total if bound else 0 for bound in bounds]
    return [
        Span(start, stop, int(first_rows[start]), done[i + 1] - done[i])
        for i, (start, stop) in enumerate(pairwise(bounds))
    ]


def _refuse_twins(shards: Sequence[Shard], output: OutputOptions) -> None:
    """Raise ValueError if two shards would be written to one file, or share the ids of their rows."""
    shard_of: dict[str, Shard] = {}
    for shard in shards:
        if shard.stem in shard_of:
            first, second = shard_of[shard.stem].file.url, shard.file.url
            raise ValueError(
                f"{first} and {second} would both be written to {shard.stem}{ENDINGS[output.format][0]}; rename one of "
                "them, or name a folder that holds both (--root)"
            )
        shard_of[shard.stem] = shard
    if output.max_tokens_per_file is not None:
        for stem in shard_of:
            if (other := re.sub(r"-\d{5}$", "", stem)) != stem and other in shard_of:
                raise ValueError(f"files of {other} may be named as those of {stem}; rename one of the inputs")
