"""Recipes of pre-tokenizer patterns, and texts that go through every branch of them."""

from __future__ import annotations

import itertools
import random
from typing import Any

from conftest import DATA

from gpu_lattice.normalizers.hf_tokenizers import CompiledNormalizer, ToolNormalizer, hf_normalizer
from gpu_lattice.normalizers.pre_tokens import DEEPSEEK, PATTERNS, TIKTOKEN

SAMPLE = "aAsSlLtvVrRmDdeE\u01c5\u02b0\u0301中ſ1٣½ \u00a0\t\n\r'/!😀\x00\u2028"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
NAMES = [
    "gpt2", "cl100k", "qwen", "minicpm", "qwen3.5", "o200k", "tekken", "superbpe", "minbpe's gpt2", "minbpe",
    "nanochat", "two digits", "words", "words, two digits", "tiktoken's gpt2", "tiktoken's", "deepseek",
]  # fmt: skip
ALL = [*((pattern,) for pattern in PATTERNS | TIKTOKEN), DEEPSEEK]
ENDS = [
    "'s'S'T'll'LL'lL're'RE'vE'm'D't",
    "don't DON'T I'ſ x'ſ a'll b'LLx",
    "a" * 50 + "'" * 50,
    "HELLOworld HelloWORLDs aBcD",
]


def recipe(*patterns: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert} for pattern in patterns
    ]
    return {"type": "Sequence", "pretokenizers": [*splits, BYTES]}


def rules(
    pre_tokenizer: dict[str, Any], to_bytes: bool = True, by_tiktoken: bool = False
) -> CompiledNormalizer | ToolNormalizer:
    return hf_normalizer(None, pre_tokenizer, [], "t.json", to_bytes, by_tiktoken)


def branches() -> list[str]:
    draw = random.Random(22)
    return [
        *map("".join, itertools.product("aAs中\u0301\u02b01 \n'!/ー·\x00", repeat=4)),
        *("".join(draw.choices(SAMPLE, k=draw.randrange(3, 24))) for _ in range(5000)),
        *((DATA / f"{name}.txt").read_text("utf-8") for name in ("en", "ja", "zh", "odd")),
        *ENDS,
    ]
