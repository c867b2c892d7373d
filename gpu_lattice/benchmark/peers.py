"""The tools that models come with, as functions of documents."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

from gpu_lattice.benchmark.machine import version_of

# What BPE's own samplers take in place of alpha, as in their paper (Provilkov et al. 2020).
DROPOUT = 0.1
PACKAGE_OF = {"sentencepiece": "sentencepiece", "huggingface": "tokenizers", "bytepiece": "bytepiece"}

Call = Callable[[list[str], int], Any]


class Peer(NamedTuple):
    """A model's own tool at its best settings.

    sample, encode   (documents, threads) to an output for each document; `ids_of` reads it
    is_threaded      whether it can use more threads than one
    megabytes        what it does in a second, roughly, for a fair share of the time
    """

    package: str
    sample: Call
    encode: Call
    is_threaded: bool
    megabytes: float

    @property
    def name(self) -> str:
        """With its version."""
        return f"{self.package} {version_of(self.package)}"


def peer_of(kind: str, path: str, alpha: float, is_bpe: bool = False) -> Peer | None:
    """The tool for a model of this kind (models.Model.kind); None if there is none, or it is not installed.

    alpha: of its sampler; a BPE model's takes DROPOUT instead.
    """
    make = {"sentencepiece": _sentencepiece, "huggingface": _tokenizers, "bytepiece": _bytepiece}.get(kind)
    if make is None or version_of(PACKAGE_OF[kind]) is None:
        return None
    return make(path, DROPOUT if is_bpe else alpha)


def ids_of(rows: Any) -> list[list[int]]:
    """The ids of each document, of whatever a peer returns."""
    return [getattr(row, "ids", row) for row in rows]


def _sentencepiece(path: str, alpha: float) -> Peer:
    import sentencepiece

    tool = sentencepiece.SentencePieceProcessor(model_file=path)
    options: dict[str, Any] = {"enable_sampling": True, "nbest_size": -1, "alpha": alpha}
    return Peer(
        "sentencepiece",
        lambda documents, threads: tool.encode(documents, num_threads=threads, **options),
        lambda documents, threads: tool.encode(documents, num_threads=threads),
        is_threaded=True,
        megabytes=2.0,
    )


def _tokenizers(path: str, alpha: float) -> Peer:
    import tokenizers

    best, sampler = (tokenizers.Tokenizer.from_file(path) for _ in range(2))
    return of_tokenizers(best, sampler, alpha)


def of_tokenizers(best: Any, sampler: Any, alpha: float) -> Peer:
    """Two tokenizers.Tokenizer of one model; the second one is made to sample."""
    if hasattr(sampler.model, "dropout"):
        sampler.model.dropout = alpha
    else:
        sampler.model.alpha = alpha
    for tool in best, sampler:
        tool.no_truncation()
        tool.no_padding()

    def call(tool: Any, documents: list[str], threads: int) -> Any:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
        return tool.encode_batch_fast(documents)

    return Peer(
        "tokenizers",
        lambda documents, threads: call(sampler, documents, threads),
        lambda documents, threads: call(best, documents, threads),
        is_threaded=True,
        megabytes=1.0,
    )


def _bytepiece(path: str, alpha: float) -> Peer:
    import bytepiece

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            tool = bytepiece.Tokenizer(archive.extract(archive.namelist()[0], folder))
    else:
        tool = bytepiece.Tokenizer(path)
    return Peer(
        "bytepiece",
        lambda documents, threads: [tool.encode(document, alpha=alpha) for document in documents],
        lambda documents, threads: [tool.encode(document) for document in documents],
        is_threaded=False,
        megabytes=1.0,
    )
