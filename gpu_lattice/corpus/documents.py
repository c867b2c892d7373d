"""Batches of documents, with the row that each one is in its file; and what readers take from files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from gpu_lattice.runtime.arguments import shown

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

# How much is read from a file at a time; batches are assembled from such parts.
PART_BYTES = 16 << 20
# The cost of a document besides its text, so that batches of empty lines are bounded too.
DOCUMENT_OVERHEAD = 16


@dataclass(frozen=True)
class ReaderOptions:
    """What to take from the files.

    text_column, id_column   columns of all formats but plain text; "a.b" is the field b of the column a
    batch_bytes              most bytes of text in a batch, unless a single document is longer
    separator                what separates the documents of a plain text file; None: "\\n" or "\\r\\n"
    input_format             "auto": told by content; or one of formats.KINDS for all files
    """

    text_column: str = "text"
    id_column: str | None = None
    batch_bytes: int = 64 << 20
    separator: bytes | None = None
    input_format: str = "auto"

    @property
    def part_bytes(self) -> int:
        return min(PART_BYTES, self.batch_bytes)

    @property
    def roles(self) -> list[tuple[str, str]]:
        """(what a column is for, its name)."""
        return [("text", self.text_column), *([] if self.id_column is None else [("id", self.id_column)])]


def as_separator(separator: Any) -> bytes | None:
    """A separator of documents as bytes; TypeError unless it is a str, bytes or None, ValueError if it is empty."""
    given = separator.encode() if isinstance(separator, str) else separator
    if given is not None and not isinstance(given, bytes):
        raise TypeError(f"the separator is {shown(separator)}; give a str or bytes")
    if given == b"":
        raise ValueError("the separator is empty; leave it out to have one document per line")
    return given


class Documents(NamedTuple):
    """Consecutive documents of a file.

    texts     large_string or large_binary, null where the file has a null (or a JSONL line lacks the column)
    ids       the id column's values, None if no id column is requested
    rows      int64, the number of each in its file, from 0; bad rows that are skipped count too
    position  bytes of the file, as stored, that have been consumed so far
    """

    texts: pa.Array
    ids: pa.Array | None
    rows: NDArray[np.int64]
    position: int


class Span(NamedTuple):
    """Row groups of a Parquet file: the first, the one after the last, the number of the first row in them, and what
    they count of the file's bytes."""

    start: int
    stop: int
    first_row: int
    size: int
