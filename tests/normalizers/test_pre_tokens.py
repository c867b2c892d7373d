"""Compiled pre-tokenizer patterns against those of the package tokenizers."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hf_files import chunks, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from pre_token_texts import ALL, BYTES, NAMES, SAMPLE, branches, recipe, rules
from tokenizers import Regex, normalizers, pre_tokenizers

from gpu_lattice.kernels.cpu.machine import BOUNDS
from gpu_lattice.normalizers.code_points import class_table
from gpu_lattice.normalizers.hf_tokenizers import CompiledNormalizer, ToolNormalizer
from gpu_lattice.normalizers.pre_token_states import (
    AT_MARK,
    BEFORE_LAST,
    HERE,
    LETTER,
    LOWER,
    NEWLINE,
    NUMBER,
    SET_MARK,
    SPACE,
    STATE_SHIFT,
    SYMBOL,
    UPPER,
    Pattern,
    actions_of,
    character_classes,
)
from gpu_lattice.normalizers.pre_tokens import (
    CL100K,
    DEEPSEEK,
    GPT2,
    PATTERNS,
    SEQUENCES,
    TIKTOKEN,
    TIKTOKEN_CL100K,
    automaton_of,
    divide,
)
from gpu_lattice.text_batch import TextBatch

DIGITS = {"type": "Digits", "individual_digits": True}
WHOLE = list(dict.fromkeys([*PATTERNS.values(), *TIKTOKEN.values(), *SEQUENCES.values()]))
DIVIDING = [*WHOLE, *(one._replace(apart=True, most_digits=min(3, one.most_digits)) for one in WHOLE[:-1])]
# A run of these is of one class, or alternates.
runs = st.tuples(
    st.sampled_from(
        ["a", "A", "b ", "Ab", "aB", " ", "1", ".", ". ", "(a", "'", "'a", "'ll ", "\n", "\t", "\x00", "é", "中"]
    ),
    st.integers(1, 70),
)
mixed = st.lists(runs.map(lambda run: run[0] * run[1]) | st.text("aA1 .", max_size=70), max_size=8).map("".join)


def splitter(*patterns: str) -> Callable[[str], list[str]]:
    """The tool's, or the package regex where it would read $ and {1,3}+ otherwise."""
    if "$" in patterns[0]:
        regex = pytest.importorskip("regex", reason="regex is absent: pip install 'gpu_lattice[test]'")
        return regex.compile(patterns[0].replace("$", r"\Z")).findall
    tool = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns])
    return lambda text: [part for part, _ in tool.pre_tokenize_str(text)]


def pre_tokens(normalizer, docs: list[str]) -> list[list[str]]:
    return [[text for text, _ in doc] for doc in chunks(normalizer(TextBatch.from_texts(docs)))]


def by_steps(pattern: Pattern, docs: list[str]) -> list[int]:
    """The ends of the pre-tokens of documents, by the automaton alone."""
    actions, classes = actions_of(pattern).tolist(), character_classes()[0]
    ends, state, at = [], 0, 0
    for doc in docs:
        mark = last = at
        for character in [*doc, ""]:
            action = actions[state + (int(classes[ord(character)]) if character else 0)]
            places = ((AT_MARK, mark), (BEFORE_LAST, last), (HERE, at))
            ends += [place for bit, place in places if action & bit]
            mark = at if action & SET_MARK else mark
            state, last, at = action >> STATE_SHIFT, at, at + len(character.encode())
    return ends


def divided(pattern: Pattern, docs: list[str]) -> list[int]:
    values = np.frombuffer("".join(docs).encode(), np.uint8)
    ends = np.cumsum([len(doc.encode()) for doc in docs])
    return divide(*automaton_of(pattern), values, ends, np.empty((0, 2), np.int64))[0].tolist()


@pytest.mark.parametrize("pattern", DIVIDING)
def test_masks_tell_the_boundaries_that_the_automaton_does(pattern):
    fives = ["".join(five) for five in product("aA1 .", repeat=5)]
    endless = [(character * 5000 + " a 'll b") * 2 for character in "aA1 .'\n中"]
    of_any_length = [("bb c. 12  " * 15)[:length] for length in range(2 * BOUNDS + 9)]
    for docs in (fives, ["".join(fives)], endless, of_any_length):
        assert divided(pattern, docs) == by_steps(pattern, docs)

    @settings(max_examples=100)
    @given(st.lists(mixed, max_size=4))
    def check(docs):
        docs.append("a" * BOUNDS)  # so that there is a block from each place on
        assert divided(pattern, docs) == by_steps(pattern, docs)

    check()


def test_documents_are_divided_beside_others_and_added_tokens():
    normalizer, docs = rules(recipe(CL100K)), ["Ab, c 12345 d'll   e. " * 9, "", "中 a"] * 3
    batch = normalizer(TextBatch.from_texts(docs).slice(1, 8))
    assert batch.chunk_bounds.tolist() == [0, *by_steps(PATTERNS[CL100K], docs[1:8])]

    values, ends = np.full(202, ord("a"), np.uint8), np.arange(3, 203)
    hits = np.array([(chunk, 5) for chunk in range(1, 200)])
    found, found_hits = divide(*automaton_of(PATTERNS[CL100K]), values, ends, hits)
    assert (found.tolist(), found_hits.tolist()) == (ends.tolist(), hits.tolist())


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
