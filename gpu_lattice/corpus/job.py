"""What a process needs to know to do its part of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gpu_lattice.corpus.bad_rows import BadRows, OnError
from gpu_lattice.corpus.documents import Documents, ReaderOptions, Span
from gpu_lattice.corpus.inputs import InputFile
from gpu_lattice.corpus.manifest import Manifest
from gpu_lattice.corpus.outputs import OutputOptions

if TYPE_CHECKING:
    from gpu_lattice.tokenizer import Tokenizer


@dataclass(frozen=True)
class Shard:
    """What one input file gives, or some row groups of it.

    stem    the path of its files below the output folder, without what their format appends
    size    bytes of the input, as stored
    """

    number: int
    file: InputFile
    span: Span | None
    stem: str
    size: int


@dataclass(frozen=True)
class Draw:
    """How documents become tokens; alpha None: the best segmentation."""

    alpha: float | None
    nbest_size: int
    num_samples: int
    seed: int
    verify: bool
    token_penalty: float
    rate: float


@dataclass(frozen=True)
class Job:
    """Everything that a process needs to do shards."""

    tokenizer: Tokenizer
    manifest: Manifest
    reading: ReaderOptions
    draw: Draw
    output: OutputOptions
    on_error: OnError


class Piece(NamedTuple):
    """Documents of one shard, None after its last; bad: the shard's bad rows so far; consumed: bytes of its file."""

    shard: Shard
    documents: Documents | None
    bad: BadRows
    consumed: int

    @property
    def num_documents(self) -> int:
        return 0 if self.documents is None else len(self.documents.texts)
