"""Small tokenizer.json files for tests, and what the package tokenizers makes of them."""

from __future__ import annotations

import base64
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gpu_lattice.normalizers import NormalizedBatch

MARK = "▁"
METASPACE = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
COLLAPSE = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": MARK}
STRIP_RIGHT = {"type": "Strip", "strip_left": False, "strip_right": True}
PIECES = [["<unk>", 0.0], [MARK, -2.0], ["a", -1.5], ["b", -2.5], ["ab", -3.0], [MARK + "a", -2.25], ["<0x41>", -8.0]]

COMBINING = "\u0301\u0323\u3099\u309a\u200d\ufe0f\u0903\u093f\u094d\u0bcd\u200c\u0e33"
JAMO = "\u1100\u1161\u11a8\uac00\uac01\ud7b0\ud7cb"
KANA = "ｶﾞﾊﾟカが"
EMOJI = "👍\U0001f3fd👩🚀\u2640\U0001f1eb\U0001f1f7©"
DEVANAGARI = "क्षहि\u0600\u0915\u094d\u200d\u0937\u1b0b\u1b44"
SPACES = " \t\n\r\v\f\x1c\x85\xa0\u1680\u2000\u200b\u2028\u202f\u3000\ufeff"
OTHER = "abAB1<>/sé½ﬁ™①\x00\x01\x7f\xad\ufffd▁_`'\"\u0130ßſ,。\U000e0020"
TOKENS = ["<s>", "</s>", "<mask>", "<sé>", "ab", "  ", "\u0301x", "▁▁"]

atoms = st.one_of(
    st.sampled_from(list(COMBINING + JAMO + KANA + EMOJI + DEVANAGARI + SPACES + OTHER)),
    st.sampled_from([*TOKENS, "  ", "   ", "\r\n", "e\u0301\u0323", "👩\u200d🚀", "ﬁ\u0301", "Ａ", "｡ﾞ", "  ▁ "]),
    st.characters(codec="utf-8"),
)
texts = st.lists(atoms, max_size=14).map("".join)


def tokenizer_file(**parts: Any) -> dict[str, Any]:
    """A tokenizer.json with the given parts."""
    empty = dict.fromkeys(["truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"])
    model = {"type": "Unigram", "unk_id": 0, "vocab": PIECES, "byte_fallback": False}
    return {"version": "1.0", "added_tokens": [], "model": model} | empty | parts


def added_token(i: int, content: str, **flags: bool) -> dict[str, Any]:
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": i, "content": content} | dict.fromkeys(names, False) | flags


def sequence(members: str, *parts: Any) -> dict[str, Any]:
    return {"type": "Sequence", members: list(parts)}


def charsmap(rule: str = "nmt_nfkc", rules: Path | None = None) -> dict[str, Any]:
    """A Precompiled with the character map that SentencePiece's trainer puts into a model."""
    written = io.BytesIO()
    option = {"normalization_rule_name": rule} if rules is None else {"normalization_rule_tsv": str(rules)}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g h"] * 20),
        model_writer=written,
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
        **option,
    )
    blob = _field(_field(written.getvalue(), 3), 2)
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}


def _field(message: bytes, number: int) -> bytes:
    """The first length-delimited field of a number in a protobuf message."""
    i = 0
    while True:
        key, i = _varint(message, i)
        size, i = _varint(message, i) if key & 7 in (0, 2) else ({1: 8, 5: 4}[key & 7], i)
        if key >> 3 == number:
            return message[i : i + size]
        i += size if key & 7 else 0


def _varint(message: bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[i] & 0x7F) << shift
        i, shift = i + 1, shift + 7
        if message[i - 1] < 0x80:
            return value, i


def tool(file: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(file))


class ToolPreTokens:
    """The tool's own pre-tokens: with a model that knows nothing, each is one token, and that is its text."""

    def __init__(self, file: dict[str, Any]) -> None:
        vocab = [["\x00 nothing \x00", 0.0]]
        self._tool = tool(file | {"model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}, "post_processor": None})
        self._contents = {self._tool.token_to_id(token["content"]): token["content"] for token in file["added_tokens"]}

    def __call__(self, text: str) -> list[tuple[str, bool]]:
        """(text, whether it is an added token) of every pre-token; an added token as its content."""
        encoding = self._tool.encode(text, add_special_tokens=False)
        pairs = zip(encoding.ids, encoding.tokens, strict=True)
        return [(self._contents.get(i, token), i in self._contents) for i, token in pairs]


def chunks(batch: NormalizedBatch) -> list[list[tuple[str, int]]]:
    """(text, id or -1) of every chunk, by document."""
    assert batch.chunk_offsets is not None
    assert set(batch.offsets.tolist()) <= set(batch.chunk_offsets.tolist())
    assert np.all(np.diff(batch.chunk_offsets) > 0)
    assert batch.offsets[-1] == batch.chunk_offsets[-1] == len(batch.values)
    values, ends = batch.values.tobytes(), batch.chunk_offsets.tolist()
    strings = [values[start:stop].decode() for start, stop in pairwise(ends)]
    ids = [-1] * len(strings) if batch.chunk_ids is None else batch.chunk_ids.tolist()
    bounds = np.searchsorted(batch.chunk_offsets, batch.offsets).tolist()
    pairs = list(zip(strings, ids, strict=True))
    return [pairs[start:stop] for start, stop in pairwise(bounds)]
