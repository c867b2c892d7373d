"""Rows into flat files of ids, which trainers map into memory: Megatron, datatrove, nanoGPT, llm.c.

All numbers are little-endian. The formats are those of megatron/core/datasets/indexed_dataset.py, datatrove's
pipeline/tokens/tokenizer.py, nanoGPT's data/openwebtext/prepare.py and llm.c's dev/data/data_common.py.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from typing import IO, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpu_lattice.corpus.sequences import Rows

MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_CODES = {"uint16": 8, "int32": 4}
# (magic, version) of llm.c's formats for GPT-2 and Llama 3.
LLMC_HEADS = {"uint16": (20240520, 1), "uint32": (20240801, 7)}
LLMC_HEADER_INTS = 256
LLMC_MOST_TOKENS = 2**31 - 1


class FlatFile:
    """.bin: the ids of all rows, one after another, and nothing else (nanoGPT)."""

    def __init__(self, files: dict[str, BinaryIO], dtype: str) -> None:
        self.file: IO[bytes] = files[".bin"]
        self.dtype = np.dtype(dtype).newbyteorder("<")

    def write(self, rows: Rows) -> None:
        self.file.write(np.ascontiguousarray(rows.flat_tokens().astype(self.dtype, copy=False)).data)

    def close(self) -> None:
        pass


class LlmcFile(FlatFile):
    """.bin with a header of 256 int32: magic, version, number of ids (llm.c), which is known last: the ids wait."""

    def __init__(self, files: dict[str, BinaryIO], dtype: str) -> None:
        super().__init__(files, dtype)
        self._target, self._dtype_name = files[".bin"], dtype
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close, or with the object
        self._num_tokens = 0

    def write(self, rows: Rows) -> None:
        super().write(rows)
        self._num_tokens += int(rows.offsets[-1] - rows.offsets[0])
        if self._num_tokens > LLMC_MOST_TOKENS:
            raise ValueError(f"llm.c's files have at most {LLMC_MOST_TOKENS} tokens; give --max-tokens-per-file")

    def close(self) -> None:
        header = np.zeros(LLMC_HEADER_INTS, "<i4")
        header[:3] = *LLMC_HEADS[self._dtype_name], self._num_tokens
        self._target.write(header.tobytes())
        with self.file:
            self.file.seek(0)
            shutil.copyfileobj(self.file, self._target, 1 << 20)


class MegatronFile(FlatFile):
    """.bin and .idx of megatron.core's IndexedDataset; a row is a sequence and a document. As in Megatron's own tool,
    a row without ids is left out."""

    def __init__(self, files: dict[str, BinaryIO], dtype: str) -> None:
        super().__init__(files, dtype)
        self._index, self._dtype_name = files[".idx"], dtype
        self._lengths: list[NDArray[np.int32]] = []

    def write(self, rows: Rows) -> None:
        super().write(rows)
        self._lengths.append(rows.lengths[rows.lengths > 0].astype("<i4"))

    def close(self) -> None:
        lengths = np.concatenate([np.empty(0, "<i4"), *self._lengths])
        n = len(lengths)
        ends = np.cumsum(lengths, dtype="<i8") * self.dtype.itemsize
        head = struct.pack("<QBQQ", 1, MEGATRON_CODES[self._dtype_name], n, n + 1)
        starts = np.concatenate([[0], ends[:-1]])[:n].astype("<i8")
        for part in (MEGATRON_MAGIC, head, lengths, starts, np.arange(n + 1, dtype="<i8")):
            self._index.write(part if isinstance(part, bytes) else part.tobytes())


class DatatroveFile(FlatFile):
    """.ds with the ids, .ds.index with the end of each document in tokens, .ds.metadata with the tokenizer's name."""

    def __init__(self, files: dict[str, BinaryIO], dtype: str, tokenizer: str) -> None:
        super().__init__({".bin": files[".ds"]}, dtype)
        self._index, self._metadata, self._tokenizer = files[".ds.index"], files[".ds.metadata"], tokenizer
        self._num_tokens = 0

    def write(self, rows: Rows) -> None:
        super().write(rows)
        ends = self._num_tokens + (rows.offsets[1:] - rows.offsets[0])
        self._index.write(ends.astype("<u8").tobytes())
        self._num_tokens += int(rows.offsets[-1] - rows.offsets[0])

    def close(self) -> None:
        name = f"{self._tokenizer}|{self.dtype.itemsize}"
        self._metadata.write(f"{name}\n{self._num_tokens}\n{_human(self._num_tokens)}".encode())


def _human(number: int) -> str:
    """The number with three digits and a unit, which people read.

    Example:
        >>> _human(0), _human(1234567)
        ('0.00 T', '1.23 MT')
    """
    power = min(4, max(0, (len(str(number)) - 1) // 3))
    digits = len(str(number)) - 3 * power
    return f"{number / 1000**power:.{max(0, 3 - digits)}f} {['', 'k', 'M', 'G', 'T'][power]}T"
