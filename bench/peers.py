"""The tools that models come with, by the names of the benchmarks' cases."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gpu_lattice as gl
from gpu_lattice.benchmark.peers import Peer, of_tokenizers, peer_of
from gpu_lattice.models.sentencepiece import _parse
from gpu_lattice.vocabulary import Kind

PEERS = ("sentencepiece", "tokenizers", "bytepiece")
Calls = dict[str, Callable[[list[str]], Any]]


def own_tool(model: str | None, alpha: float) -> Calls:
    """What the tool that the model was made for does on one thread, by "<tool> sample" and "<tool> encode".

    Nothing if the tool is not installed.
    """
    path = str(model_path(model))
    of = gl.Tokenizer.from_file(path, device="cpu", threads=1).model
    peer = peer_of(of.kind, path, alpha, of.merges is not None)
    return {} if peer is None else _calls(peer)


def model_path(model: str | None) -> Path:
    return Path(model or str(importlib.resources.files("gpu_lattice.data") / "default.model"))


def converted(model: str, alpha: float) -> Calls:
    """tokenizers with a SentencePiece unigram model as Hugging Face converts it.

    The ids are the model's, but where a text spells a control piece.
    """
    return _calls(of_tokenizers(convert(Path(model)), convert(Path(model)), alpha))


def _calls(peer: Peer) -> Calls:
    return {
        f"{peer.package} sample": partial(peer.sample, threads=1),
        f"{peer.package} encode": partial(peer.encode, threads=1),
    }


def convert(path: Path) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    proto = _parse(path.read_bytes())
    vocabulary = [(piece.decode(), score) for piece, score in zip(proto.pieces, proto.scores.tolist(), strict=True)]
    unk_id = int(np.flatnonzero(proto.kinds == Kind.UNKNOWN)[0])
    charsmap = proto.normalizer.get(2)
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id, bool(proto.trainer.get(35, 0))))
    tokenizer.normalizer = normalizers.Sequence(
        ([normalizers.Precompiled(charsmap)] if charsmap else [])
        + [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer
