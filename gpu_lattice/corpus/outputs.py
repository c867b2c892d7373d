"""Output files: their formats, names and ids; each is complete or not there at all, and its content has a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, cast, get_args

import pyarrow as pa

from gpu_lattice.corpus.columnar_files import ColumnarFile, schema_of
from gpu_lattice.corpus.sequences import Packer, Rows, cut, surrounded
from gpu_lattice.corpus.token_files import DatatroveFile, FlatFile, LlmcFile, MegatronFile
from gpu_lattice.runtime.arguments import checked_integer

if TYPE_CHECKING:
    from gpu_lattice.corpus.bad_rows import BadRows
    from gpu_lattice.corpus.manifest import Manifest, Record
    from gpu_lattice.tokenizer import Tokenizer

Format = Literal["parquet", "arrow", "megatron", "datatrove", "bin", "llmc"]
FORMATS: tuple[Format, ...] = get_args(Format)
# The files of an output, the first to be named last: by it, readers see that it is complete.
ENDINGS = {
    "parquet": [".parquet"], "arrow": [".arrow"], "megatron": [".idx", ".bin"],
    "datatrove": [".ds.metadata", ".ds.index", ".ds"], "bin": [".bin"], "llmc": [".bin"],
}  # fmt: skip
DTYPES = {
    "parquet": ["int32", "uint16"], "arrow": ["int32", "uint16"], "megatron": ["uint16", "int32"],
    "datatrove": ["uint16", "uint32"], "bin": ["uint16", "uint32"], "llmc": ["uint16", "uint32"],
}  # fmt: skip
# Megatron itself takes uint16 for vocabularies below this.
MEGATRON_UINT16 = 65500
BAD_ROWS = "_bad_rows"


@dataclass(frozen=True)
class OutputOptions:
    """What is written.

    dtype                of the ids; see `resolved`
    prepend_id, append_id   ids around every document, unless it has them already
    pack                 length of sequences that documents are joined into; None: a row for each sample
    pack_whole, pad_id   whether documents are kept whole, and what sequences are padded with; see Packer
    max_tokens_per_file  None: all rows of an input go into one file
    """

    format: Format = "parquet"
    dtype: str = "int32"
    prepend_id: int | None = None
    append_id: int | None = None
    pack: int | None = None
    pack_whole: bool = False
    pad_id: int | None = None
    max_tokens_per_file: int | None = None


def resolved(
    tokenizer: Tokenizer,
    *,
    format: str,
    dtype: str | None,
    prepend_bos: bool,
    append_eos: bool,
    prepend_id: int | None,
    append_id: int | None,
    pack: int | None,
    pack_whole: bool,
    pad_id: int | None,
    max_tokens_per_file: int | None,
) -> OutputOptions:
    """The options, checked against the model; ValueError for what does not fit.

    dtype: by default int32 for Parquet and Arrow; uint16 for the others if the ids fit, else int32 (Megatron) or
    uint32, but nanoGPT's .bin is always uint16 unless users say otherwise.
    """
    if format not in FORMATS:
        raise ValueError(f"the format is {format!r:.60}; choose one of {', '.join(FORMATS)}")
    for flag, number, name in ((prepend_bos, prepend_id, "prepend"), (append_eos, append_id, "append")):
        if flag and number is not None:
            raise ValueError(f"both the model's id and the number {number} are to be {name}ed; choose one")
    before = _special_id(tokenizer, "bos_id", "prepend_id") if prepend_bos else _checked_id("prepend_id", prepend_id)
    after = _special_id(tokenizer, "eos_id", "append_id") if append_eos else _checked_id("append_id", append_id)
    pad = _checked_id("pad_id", pad_id)
    if pack is None and (pack_whole or pad is not None):
        raise ValueError("documents are packed whole, or padded, only into sequences of a length; give --pack too")
    if pack_whole and pad is None:
        raise ValueError("sequences of whole documents have rests; give --pad-id, the id that fills them")
    largest = max(tokenizer.vocab_size - 1, *(i for i in (before, after, pad, 0) if i is not None))
    return OutputOptions(
        format,
        _dtype(format, dtype, largest),
        before,
        after,
        None if pack is None else checked_integer("pack", pack, 1, 2**31 - 1),
        pack_whole,
        pad,
        None if max_tokens_per_file is None else checked_integer("max_tokens_per_file", max_tokens_per_file, 1, 2**62),
    )


def _special_id(tokenizer: Tokenizer, name: str, option: str) -> int:
    i: int | None = getattr(tokenizer, name)
    if i is None:
        raise ValueError(f"this model has no {name}; give the number with {option}")
    return i


def _checked_id(name: str, number: int | None) -> int | None:
    return None if number is None else checked_integer(name, number, 0, 2**31 - 1)


def _dtype(format: Format, dtype: str | None, largest: int) -> str:
    choices = DTYPES[format]
    if dtype is None:
        small = largest < (MEGATRON_UINT16 if format == "megatron" else 2**16)
        dtype = choices[0] if small or format in ("parquet", "arrow", "bin") else choices[1]
    if dtype not in choices:
        raise ValueError(f"the dtype is {dtype!r:.60}; the format {format} has {' or '.join(choices)}")
    if dtype == "uint16" and largest >= 2**16:
        other = next(choice for choice in choices if choice != "uint16")
        raise ValueError(f"ids go up to {largest}, which uint16 does not hold; give --dtype {other}")
    return dtype


class TokenFile(Protocol):
    """What a format's writer does."""

    def write(self, rows: Rows) -> None: ...

    def close(self) -> None:
        """Write what is left; the files are closed by others."""


class ShardOutput:
    """The files of one shard, written under temporary names until each is complete.

    `write`, then `write_rest`, then `finish`, which waits for the disk and may be called in another thread; or `abort`
    after an error, which removes what was written.
    """

    def __init__(
        self,
        manifest: Manifest,
        options: OutputOptions,
        stem: str,
        columns: dict[str, pa.DataType],
        metadata: Mapping[str, str],
        begin: Callable[[], None],
    ) -> None:
        """columns: those besides input_ids and num_tokens. begin: called before the first file gets its name."""
        self._manifest, self._options, self._stem = manifest, options, stem
        self._begin = begin
        self._columns = {"document_lengths": pa.list_(pa.int32())} if options.pack else columns
        self._metadata = dict(metadata)
        self._pack = None if options.pack is None else Packer(options.pack, options.pack_whole, options.pad_id)
        self._opened = ExitStack()
        self._file: TokenFile | None = None
        self._digested: dict[str, _Digested] = {}
        self._files: list[dict[str, Any]] = []
        self._room = 0
        self._rows = self._tokens = self._file_rows = self._file_tokens = 0

    def write(self, rows: Rows) -> None:
        rows = surrounded(rows, self._options.prepend_id, self._options.append_id)
        self._write(rows if self._pack is None else self._pack(rows))

    def write_rest(self) -> None:
        """All that the last file still lacks."""
        if self._pack is not None:
            self._write(self._pack.last())
        if self._file is None:
            self._open()
        assert self._file is not None
        self._file.close()

    def finish(self, number: int, bad: BadRows, file: str, **counts: int) -> Record:
        """The shard's record, which is still to be noted."""
        self._name_files()
        if len(bad):
            self._write_bad_rows(bad, file)
        dropped = {} if self._pack is None else {"dropped_tokens": self._pack.dropped}
        sums = {"rows": self._rows, "tokens": self._tokens, "bad_rows": len(bad), **dropped}
        return {"shard": number, "input": file, **counts, **sums, "files": self._files}

    def abort(self) -> None:
        if self._file is not None:
            with suppress(Exception):  # what it cannot write now does not matter
                self._file.close()
        with suppress(RuntimeError):
            self._opened.__exit__(RuntimeError, RuntimeError("the shard is given up"), None)
        for file in self._files:
            self._manifest.storage.remove(self._manifest.path(file["path"]))

    def _write(self, rows: Rows) -> None:
        most = self._options.max_tokens_per_file
        parts = [(rows, False)] if most is None else cut(rows, most, most - self._file_tokens)
        for part, is_new in parts:
            if is_new:
                assert self._file is not None
                self._file.close()
                self._name_files()
            self._append(part)

    def _append(self, rows: Rows) -> None:
        if self._file is None:
            self._open()
        assert self._file is not None
        self._file.write(rows)
        self._file_rows += len(rows)
        self._file_tokens += int(rows.offsets[-1] - rows.offsets[0])

    def _open(self) -> None:
        most = self._options.max_tokens_per_file
        stem = self._stem if most is None else f"{self._stem}-{len(self._files) // self._num_files:05d}"
        folder = stem.rpartition("/")[0]
        self._manifest.storage.make_folder(self._manifest.path(folder) if folder else self._manifest.folder)
        self._digested = {}
        for ending in ENDINGS[self._options.format]:
            name = f"{stem}{ending}"
            file = self._opened.enter_context(self._manifest.storage.whole_file(self._manifest.path(name)))
            self._digested[ending] = _Digested(name, file)
        self._file = self._token_file(cast("dict[str, BinaryIO]", self._digested))
        self._file_rows = self._file_tokens = 0

    @property
    def _num_files(self) -> int:
        return len(ENDINGS[self._options.format])

    def _token_file(self, files: dict[str, BinaryIO]) -> TokenFile:
        format, dtype = self._options.format, self._options.dtype
        if format in ("parquet", "arrow"):
            return ColumnarFile(files, schema_of(self._columns, dtype, self._metadata), format == "parquet")
        if format == "datatrove":
            return DatatroveFile(files, dtype, json.loads(self._metadata["gpu_lattice"])["model"]["sha256"])
        return {"megatron": MegatronFile, "bin": FlatFile, "llmc": LlmcFile}[format](files, dtype)

    def _name_files(self) -> None:
        """Give the files, whose content is complete, their names."""
        for file in self._digested.values():
            file.flush()
        self._begin()
        for file in reversed(self._digested.values()):
            self._files.append({"path": file.name, "bytes": file.size, "sha256": file.digest.hexdigest()})
        self._opened.close()
        self._file = None
        # What flat formats leave out is no row of theirs, but was one of the shard's.
        self._rows += self._file_rows
        self._tokens += self._file_tokens

    def _write_bad_rows(self, bad: BadRows, file: str) -> None:
        name = f"{BAD_ROWS}/{self._stem}.jsonl"
        self._manifest.storage.make_folder(self._manifest.path(name.rpartition("/")[0]))
        data = bad.lines(file)
        with self._manifest.storage.whole_file(self._manifest.path(name)) as target:
            target.write(data)
        self._files.append({"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})


class _Digested:
    """A file that knows the size and the digest of what has been written to it."""

    closed = False

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name, self._file = name, file
        self.size, self.digest = 0, hashlib.sha256()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.digest.update(view)
        self._file.write(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """The file is closed by whoever opened it."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
