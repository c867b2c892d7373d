"""Small BPE models for tests, trained by the package tokenizers on the texts in tests/data."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from conftest import DATA
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
CHAT = ["<|end|>", "<|im_start|>"]
FALLBACK = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
TO_MARKS = normalizers.Replace(" ", "▁")

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
def trained(name: str, size: int = 600) -> dict[str, Any]:
    """The tokenizer.json of a model by its name in MODELS."""
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
        limit_alphabet=256 if is_bytes else 100,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if is_bytes else [],
    )
    tool.train_from_iterator([(DATA / f"{text}.txt").read_text("utf-8") for text in ("en", "ja", "zh")], trainer)
    file: dict[str, Any] = json.loads(tool.to_str())
    if pre_tokenizer is None:
        file["pre_tokenizer"] = None
    file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] not in BYTE_PIECES]
    return file
