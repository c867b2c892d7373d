"""Compiled pre-tokenizer patterns against those of the package tokenizers."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hf_files import chunks, texts
from hypothesis import given, settings
from pre_token_texts import ALL, BYTES, NAMES, SAMPLE, branches, recipe, rules
from tokenizers import Regex, normalizers, pre_tokenizers

from gpu_lattice.normalizers.code_points import class_table
from gpu_lattice.normalizers.hf_tokenizers import CompiledNormalizer, ToolNormalizer
from gpu_lattice.normalizers.pre_token_states import LETTER, LOWER, NEWLINE, NUMBER, SPACE, SYMBOL, UPPER
from gpu_lattice.normalizers.pre_tokens import CL100K, DEEPSEEK, GPT2, PATTERNS, TIKTOKEN_CL100K
from gpu_lattice.text_batch import TextBatch

DIGITS = {"type": "Digits", "individual_digits": True}


def splitter(*patterns: str) -> Callable[[str], list[str]]:
    """The tool's, or the package regex where it would read $ and {1,3}+ otherwise."""
    if "$" in patterns[0]:
        regex = pytest.importorskip("regex", reason="regex is absent: pip install 'gpu_lattice[test]'")
        return regex.compile(patterns[0].replace("$", r"\Z")).findall
    tool = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns])
    return lambda text: [part for part, _ in tool.pre_tokenize_str(text)]


def pre_tokens(normalizer, docs: list[str]) -> list[list[str]]:
    return [[text for text, _ in doc] for doc in chunks(normalizer(TextBatch.from_texts(docs)))]


@pytest.mark.parametrize("patterns", ALL, ids=NAMES)
def test_pre_tokens_are_the_tools(patterns):
    normalizer, split = rules(recipe(*patterns), by_tiktoken="$" in patterns[0]), splitter(*patterns)
    assert isinstance(normalizer, CompiledNormalizer)
    docs = branches()
    assert pre_tokens(normalizer, docs) == list(map(split, docs))

    if "$" in patterns[0]:  # the package regex has other classes of characters
        return

    @settings(max_examples=100)
    @given(texts)
    def check(text):
        assert pre_tokens(normalizer, [text]) == [split(text)]

    check()


@pytest.mark.parametrize(
    ("bit", "members"),
    [
        (UPPER, r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"),
        (LOWER, r"\p{Ll}\p{Lm}\p{Lo}\p{M}"),
        (LETTER, r"\p{L}"),
        (NUMBER, r"\p{N}"),
        (SPACE, r"\s"),
        (NEWLINE, r"\r\n"),
        (SYMBOL, r"\p{P}\p{S}"),
    ],
)
def test_the_classes_of_all_code_points_are_the_tools(bit, members):
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    found = normalizers.Replace(Regex(f"[^{members}]+"), "").normalize_str(every)
    assert list(map(ord, found)) == np.flatnonzero(class_table("categories.npz") & bit).tolist()


@pytest.mark.parametrize("numbers", [DIGITS, DIGITS | {"individual_digits": False}, r"\p{N}{1,3}", r"\p{N}"])
@pytest.mark.parametrize("pattern", [GPT2, *list(PATTERNS)[1:7:2]])
def test_numbers_may_be_divided_from_other_text_first(numbers, pattern):
    inner = [part for part in recipe(pattern)["pretokenizers"] if pattern != GPT2] or [BYTES | {"use_regex": True}]
    first = numbers if isinstance(numbers, dict) else recipe(numbers)["pretokenizers"][0]
    normalizer = rules({"type": "Sequence", "pretokenizers": [first, *inner]})
    assert isinstance(normalizer, CompiledNormalizer)
    tool = pre_tokenizers.Digits(first["individual_digits"]) if first is numbers else splitter(numbers)
    split = splitter(pattern)
    draw = random.Random(22)
    docs = ["".join(draw.choices(SAMPLE + "123²Ⅷ", k=draw.randrange(3, 24))) for _ in range(1000)]
    parts = [tool(doc) if callable(tool) else [part for part, _ in tool.pre_tokenize_str(doc)] for doc in docs]
    assert pre_tokens(normalizer, docs) == [[piece for part in doc for piece in split(part)] for doc in parts]


def test_every_character_after_an_apostrophe_is_matched_as_by_the_tool():
    tool, normalizer = pre_tokenizers.Split(Regex(CL100K), "isolated"), rules(recipe(CL100K))
    codes = [*range(0x3000), *range(0xFB00, 0xFB10)]
    docs = [f"'{chr(a)}x'r{chr(a)}'{chr(a)}l'{chr(a)}e" for a in codes]
    assert pre_tokens(normalizer, docs) == [[part for part, _ in tool.pre_tokenize_str(doc)] for doc in docs]


def test_recipes_that_mean_the_same_are_compiled_and_others_are_not():
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    assert isinstance(rules(byte_level), CompiledNormalizer)
    assert isinstance(rules(recipe(CL100K, behavior="Removed", invert=True)), CompiledNormalizer)
    assert pre_tokens(rules(byte_level), ["I'm a  b"]) == pre_tokens(rules(recipe(GPT2)), ["I'm a  b"])
    for other in (
        recipe(CL100K, behavior="Removed"),
        recipe(CL100K, behavior="MergedWithNext"),
        recipe(CL100K + "|x"),
        recipe(*DEEPSEEK, behavior="Removed", invert=True),
        recipe(*DEEPSEEK[1:]),
        recipe(TIKTOKEN_CL100K),
        recipe(r"\p{N}+", CL100K),
        byte_level | {"add_prefix_space": True},
        {"type": "Sequence", "pretokenizers": [byte_level, {"type": "Digits", "individual_digits": True}]},
    ):
        assert isinstance(rules(other), ToolNormalizer)
        assert "not compiled, run by the package tokenizers" in repr(rules(other))
    assert isinstance(rules(recipe(CL100K), to_bytes=False), ToolNormalizer)
