"""tokenizer.json files of BPE models with other parts than the published ones have, against the package tokenizers."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from bpe_files import BYTE_PIECES, CL100K, trained
from hf_files import added_token, sequence
from tokenizers import Tokenizer as Tool

from gpu_lattice import Tokenizer
from gpu_lattice.models.hf_tokenizers import read
from gpu_lattice.normalizers.pre_tokens import DEEPSEEK, O200K, QWEN35, TIKTOKEN_CL100K

SEED = 22
ATOMS = [
    *" \t\n\r abcdefABC019.,'!é▁_漢字かİßﬁ①½\u0301\u00a0\u3000\u2028👩\u200d🚀١Ǆ",
    "the", " the", "'s", "'LL", "  ", "\r\n", "ing", "and ", "123", "<s>", "<|end|>", "new line", "[X]", "e\u0301",
    "<0x41>", "か\u3099", "\u1100\u1161", "\u212b",
]  # fmt: skip
TEXTS = ["".join(generator.choices(ATOMS, k=3 * i)) for generator in [random.Random(SEED)] for i in range(40)]

TO_MARKS = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
TOKENS = [
    added_token(600, "<s>", special=True),
    added_token(601, "[X]", lstrip=True, rstrip=True),
    added_token(602, "new line", single_word=True),
    added_token(603, "é", normalized=True),
]
STRIP_LEFT = {"type": "Strip", "strip_left": True, "strip_right": False}
AROUND = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"X": {"id": "X", "ids": [3, 4], "tokens": ["p", "q"]}},
}


def byte_level(add_prefix_space: bool = False, use_regex: bool = False) -> dict[str, Any]:
    flags = {"add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}
    return {"type": "ByteLevel", **flags}


def split(regex: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


BYTES = byte_level()


def metaspace(prepend_scheme: str, split: bool = True) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend_scheme, "split": split}


def pre(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"pre_tokenizer": sequence("pretokenizers", *parts)}


def norm(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": sequence("normalizers", *parts)}


# The file that is changed (bpe_files.MODELS), what is set in it, and in its model.
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a space before, GPT-2": ("gpt2", {"pre_tokenizer": byte_level(True, True)}, {"dropout": 0.0}),
    "a space before, cl100k": ("llama3", pre(split(CL100K), byte_level(True)), {"ignore_merges": False}),
    "o200k": ("llama3", pre(split(O200K), BYTES), {"byte_fallback": True}),
    "DeepSeek": ("gpt2", pre(*map(split, DEEPSEEK), BYTES), {}),
    "digits": ("gpt2", pre({"type": "Digits", "individual_digits": True}, byte_level(use_regex=True)), {}),
    "Qwen3.5": ("qwen", pre(split(QWEN35), BYTES), {}),
    "tiktoken's pattern": ("gpt2", pre(split(TIKTOKEN_CL100K), BYTES), {}),
    "digits last": (
        "gpt2",
        pre({"type": "Punctuation", "behavior": "Contiguous"}, byte_level(use_regex=True),
            {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]")),
        {},
    ),
    "behaviors": (
        "gpt4",
        pre(split(r"\s+", "MergedWithNext"), split("[aeiou]", "Contiguous"), split("[^,]+", "Removed", True), BYTES),
        {},
    ),
    "punctuation": ("llama2", pre({"type": "Punctuation", "behavior": "MergedWithPrevious"}, metaspace("always")), {}),
    "NFKC": ("qwen", norm({"type": "NFKC"}, {"type": "Lowercase"}), {}),
    "NFD": ("gpt4", norm({"type": "NFD"}, {"type": "StripAccents"}, STRIP_LEFT), {}),
    "prepend": ("llama2", norm({"type": "NFC"}, {"type": "Prepend", "prepend": "▁"}, TO_MARKS), {}),
    "first": ("llama2", {"normalizer": None, "pre_tokenizer": metaspace("first", split=False)}, {}),
    "first after added tokens": (
        "gemma", {"normalizer": None, "pre_tokenizer": metaspace("first"), "added_tokens": TOKENS}, {}
    ),
    "no bytes": ("llama2", {}, {"byte_fallback": False, "fuse_unk": False}),
    "bytes or nothing": ("gemma", {}, {"unk_token": None}),
    "bytes without pieces": ("fused", {"pre_tokenizer": byte_level(use_regex=True)}, {"unk_token": "a"}),
    "whole pieces": ("unknown", {}, {"ignore_merges": True, "fuse_unk": True, "unk_token": "the"}),
    "whole names": ("llama2", pre({"type": "WhitespaceSplit"}), {"ignore_merges": True}),
    "added tokens": ("qwen", {"added_tokens": TOKENS}, {}),
    "around": ("gpt2", {"post_processor": AROUND}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_files_with_other_parts_encode_as_by_the_tool(name):
    base, parts, settings = CONFIGURATIONS[name]
    file = trained(base)
    text = json.dumps(file | parts | {"model": file["model"] | settings})
    tool, ours = Tool.from_str(text), Tokenizer(read(text.encode(), name), device="cpu", threads=1)
    wanted = [encoding.ids for encoding in tool.encode_batch(TEXTS)]
    assert [
        (doc, own, ids) for doc, own, ids in zip(TEXTS, ours.encode(TEXTS).tolist(), wanted, strict=True) if own != ids
    ] == []


BYTE_FALLBACK = {"byte_fallback": True, "unk_token": "<unk>"}
# Pieces and merges in which the unknown piece is one like others, or byte pieces are, and settings of the model.
MERGED_UNKNOWN: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a symbol": (["a b", "a ab", "ab é", "aab ab"], {"unk_token": "a"}),
    "a run": (["a b", "a ab", "ab é", "aab ab"], {"unk_token": "a", "fuse_unk": True}),
    "what merges make": (["a b", "ab é", "b é", "é ab"], {"unk_token": "ab"}),
    "what merges make beside bytes": (["a b", "ab b"], BYTE_FALLBACK | {"unk_token": "ab"}),
    "bytes": (["<0xA9> a", "<0xC3> <0xA9>", "<0xE6> <0xBC>", "<0xE6><0xBC> <0xA2>", "b <0xE6>"], BYTE_FALLBACK),
}


@pytest.mark.parametrize("name", MERGED_UNKNOWN)
def test_what_merges_make_of_unknown_text_is_that_of_the_tool_and_spells_its_text(name):
    merges, settings = MERGED_UNKNOWN[name]
    pieces = dict.fromkeys(["<unk>", *(BYTE_PIECES if "byte_fallback" in settings else "é"), "a", "b"])
    pieces |= dict.fromkeys(merge.replace(" ", "") for merge in merges)
    file = trained("unknown") | {"pre_tokenizer": None, "added_tokens": []}
    vocab = {piece: i for i, piece in enumerate(pieces)}
    text = json.dumps(file | {"model": file["model"] | settings | {"vocab": vocab, "merges": merges}})
    tool, ours = Tool.from_str(text), Tokenizer(read(text.encode(), name), device="cpu", threads=1)
    texts = ["".join(generator.choices("abéx漢", k=i % 12)) for generator in [random.Random(SEED)] for i in range(200)]
    rows = ours.encode(texts)
    assert rows.tolist() == [encoding.ids for encoding in tool.encode_batch(texts)]
    for out in (rows, *(ours.sample(texts, alpha=0, seed=SEED, rate=rate) for rate in (1, 0.5))):
        assert ours.verify(texts, out) is None
    ends = [text for text in texts if text.endswith("bb")]
    assert [ours.verify([text[:-1] + "é"], ours.encode(text)) for text in ends] == [0] * len(ends) != []


def test_what_a_file_puts_around_a_text_may_be_ids_that_no_piece_has():
    file = trained("unknown") | {"post_processor": AROUND}
    vocab = {piece: i for piece, i in file["model"]["vocab"].items() if i != 4}
    text = json.dumps(file | {"model": file["model"] | {"vocab": vocab, "merges": []}})
    tool, ours = Tool.from_str(text), Tokenizer(read(text.encode(), "gap"), device="cpu", threads=1)
    rows = [encoding.ids for encoding in tool.encode_batch(["", "a b"])]
    assert ours.encode(["", "a b"]).tolist() == rows
    assert ours.decode(rows, skip_special_tokens=False) == tool.decode_batch(rows, skip_special_tokens=False)
