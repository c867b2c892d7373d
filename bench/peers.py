"""The tools that models come with, by the names of the benchmarks' cases."""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpu_lattice.benchmark.peers import Peer, of_tokenizers, peer_of
from gpu_lattice.models import Model
from gpu_lattice.models.detect import model_file, read_model
from gpu_lattice.models.sentencepiece import _parse
from gpu_lattice.vocabulary import Kind

PEERS = ("sentencepiece", "tokenizers", "bytepiece", "tiktoken")
Calls = dict[str, Callable[[list[str]], Any]]


def own_tool(model: str | None, alpha: float) -> Calls:
    """What the tool that the model was made for does on one thread, by "<tool> sample" and "<tool> encode".

    Nothing if the tool is not installed.
    """
    path, of = str(model_path(model)), _read(model)
    peer = peer_of(of.kind, path, alpha, of.merges is not None)
    return {} if peer is None else _calls(peer)


def is_bpe(model: str | None) -> bool:
    """Whether a model's pieces have no scores, so that alpha is 0."""
    return _read(model).merges is not None


def _read(model: str | None) -> Model:
    path = model_file(model_path(model))
    return read_model(path.read_bytes(), path.name)


def of_tiktoken(model: str | None) -> Calls:
    """ "tiktoken encode" of a byte-level tokenizer.json that divides text by one pattern and whose ids are ranks.

    Nothing for any other model, and without the package.
    """
    read = _read(model)
    if read.kind != "huggingface" or read.merges is None or read.vocabulary.symbols != "bytes":
        return {}
    if importlib.util.find_spec("tiktoken") is None or np.any(np.diff(read.merges.pairs[:, 3]) < 0):
        return {}
    import tiktoken

    parts = json.loads(model_path(model).read_text("utf-8"))["pre_tokenizer"].get("pretokenizers", [])
    patterns = [part["pattern"]["Regex"] for part in parts if part["type"] == "Split"]
    if len(patterns) != 1:
        return {}
    ranks = {read.vocabulary.surfaces[i]: int(i) for i in np.flatnonzero(read.vocabulary.in_lattice)}
    tool = tiktoken.Encoding("bench", pat_str=patterns[0], mergeable_ranks=ranks, special_tokens={})
    return {"tiktoken encode": lambda documents: [tool.encode_ordinary(document) for document in documents]}


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
