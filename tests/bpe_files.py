"""BPE models for tests, trained by their own tools on the texts in tests/data, or on the shipped corpus."""

from __future__ import annotations

import base64
import importlib.resources
import io
import json
from functools import cache
from typing import Any

import pyarrow.parquet as pq
import sentencepiece
from conftest import DATA
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from gpu_lattice.normalizers.byte_level import bytes_of
from gpu_lattice.normalizers.pre_tokens import O200K

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
CHAT = ["<|end|>", "<|im_start|>"]
FALLBACK = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
TO_MARKS = normalizers.Replace(" ", "▁")
TEXTS = [(DATA / f"{name}.txt").read_text("utf-8") for name in ("en", "ja", "zh", "odd")]
LINES = [line for text in TEXTS for line in text.split("\n")][::5]

# Of every model: settings of its BPE, normalizer, pre-tokenizer, decoder, special tokens.
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
MODELS: dict[str, tuple[dict[str, Any], Any, Any, Any, list[str]]] = {
    "gpt2": ({}, None, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), ["<|end|>"]),
    "llama3": (
        {"ignore_merges": True},
        None,
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CL100K), "isolated"), BYTES]),
        decoders.ByteLevel(),
        CHAT,
    ),
    "gpt4": (
        {},
        None,
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CL100K), "removed", invert=True), BYTES]),
        decoders.ByteLevel(),
        CHAT,
    ),
    "gpt4o": (
        {},
        None,
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(O200K), "removed", invert=True), BYTES]),
        decoders.ByteLevel(),
        CHAT,
    ),
    "qwen": (
        {},
        normalizers.NFC(),
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CL100K.replace("{1,3}", "")), "isolated"), BYTES]),
        decoders.ByteLevel(),
        CHAT,
    ),
    "llama2": (
        FALLBACK,
        normalizers.Sequence([normalizers.Prepend("▁"), TO_MARKS]),
        None,
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
        ["<unk>", "<s>", *BYTE_PIECES],
    ),
    "gemma": (
        FALLBACK,
        TO_MARKS,
        pre_tokenizers.Split(" ", "merged_with_previous"),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
        ["<unk>", "<pad>", *BYTE_PIECES],
    ),
    "unknown": ({"unk_token": "<unk>"}, None, pre_tokenizers.Whitespace(), None, ["<unk>"]),
    "fused": ({"unk_token": "<unk>", "fuse_unk": True}, None, None, None, ["<unk>"]),
}


@cache
def corpus() -> list[str]:
    """Every fourth document of the shipped corpus."""
    with (importlib.resources.files("gpu_lattice.data") / "corpus.parquet").open("rb") as file:
        texts: list[str] = pq.read_table(file)["text"].to_pylist()[::4]
    return texts


@cache
def trained(name: str, size: int = 600) -> dict[str, Any]:
    """The tokenizer.json of a model by its name in MODELS; above 600 pieces it is trained on `corpus()`."""
    settings, normalizer, pre_tokenizer, decoder, specials = MODELS[name]
    tool = Tokenizer(models.BPE(**settings))
    trained_by = pre_tokenizer or pre_tokenizers.Split("▁", "merged_with_next")
    tool.pre_tokenizer = trained_by
    if normalizer is not None:
        tool.normalizer = normalizer
    if decoder is not None:
        tool.decoder = decoder
    is_bytes = isinstance(decoder, decoders.ByteLevel)
    trainer = trainers.BpeTrainer(
        vocab_size=size + len(specials),
        show_progress=False,
        special_tokens=specials,
        limit_alphabet=256 if is_bytes else max(100, size // 4),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if is_bytes else [],
    )
    texts = corpus() if size > 600 else [(DATA / f"{text}.txt").read_text("utf-8") for text in ("en", "ja", "zh")]
    tool.train_from_iterator(texts, trainer)
    file: dict[str, Any] = json.loads(tool.to_str())
    if pre_tokenizer is None:
        file["pre_tokenizer"] = None
    file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] not in BYTE_PIECES]
    return file


def ranks() -> dict[bytes, int]:
    """The tokens of "gpt2" in the order in which a trainer made them."""
    pieces = [bytes_of(piece) for piece in trained("gpt2")["model"]["vocab"] if piece != "<|end|>"]
    return {token: rank for rank, token in enumerate(pieces) if token is not None}


def tiktoken_file() -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks().items())


def tekken_file(**parts: Any) -> bytes:
    vocab = [
        {"rank": i, "token_bytes": base64.b64encode(token).decode(), "token_str": None} for token, i in ranks().items()
    ]
    config = {
        "pattern": CL100K,
        "num_vocab_tokens": len(vocab),
        "default_vocab_size": 420,
        "default_num_special_tokens": 20,
    }
    return json.dumps({"config": config, "vocab": vocab} | parts).encode()


def trained_bpe(**options: Any) -> bytes:
    """A SentencePiece BPE model."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=written,
        model_type="bpe",
        vocab_size=700,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return written.getvalue()
