"""The tools that models come with, as functions of documents."""

from __future__ import annotations

import importlib.resources
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpu_lattice.models.sentencepiece import _parse
from gpu_lattice.vocabulary import Kind

PEERS = ("sentencepiece", "tokenizers", "bytepiece")
Calls = dict[str, Callable[[list[str]], Any]]


def own_tool(model: str | None, alpha: float) -> Calls:
    """What the tool that the model was made for does on one thread, by "<tool> sample" and "<tool> encode".

    Nothing if the tool is not installed.
    """
    if model is None or model.endswith(".model"):
        return _sentencepiece(str(model_path(model)), alpha)
    if model.endswith(".json"):
        return converted(model, alpha)
    return _bytepiece(model, alpha)


def model_path(model: str | None) -> Path:
    return Path(model or str(importlib.resources.files("gpu_lattice.data") / "default.model"))


def converted(model: str, alpha: float) -> Calls:
    """tokenizers with a tokenizer.json, or with a SentencePiece model as Hugging Face converts it.

    The ids are the model's, but where a text spells a control piece.
    """
    import tokenizers

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    best, sampler = (
        tokenizers.Tokenizer.from_file(model) if model.endswith(".json") else _convert(Path(model)) for _ in range(2)
    )
    sampler.model.alpha = alpha
    return {"tokenizers sample": sampler.encode_batch_fast, "tokenizers encode": best.encode_batch_fast}


def _convert(path: Path) -> Any:
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


def _sentencepiece(model: str, alpha: float) -> Calls:
    import sentencepiece

    peer = sentencepiece.SentencePieceProcessor(model_file=model)
    options = {"enable_sampling": True, "nbest_size": -1, "alpha": alpha}
    return {
        "sentencepiece sample": lambda documents: peer.encode(documents, num_threads=1, **options),
        "sentencepiece encode": lambda documents: peer.encode(documents, num_threads=1),
        "sentencepiece encode to numpy": lambda documents: peer.encode_as_numpy(documents, num_threads=1),
    }


def _bytepiece(model: str, alpha: float) -> Calls:
    try:
        import bytepiece
    except ImportError:
        return {}
    path = model
    if zipfile.is_zipfile(model):
        with zipfile.ZipFile(model) as archive:
            path = archive.extract(archive.namelist()[0], tempfile.mkdtemp())
    peer = bytepiece.Tokenizer(path)
    return {
        "bytepiece sample": lambda documents: [peer.encode(document, alpha=alpha) for document in documents],
        "bytepiece encode": lambda documents: [peer.encode(document) for document in documents],
    }
