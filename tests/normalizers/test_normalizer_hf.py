"""Hugging Face's normalizers, pre-tokenizers and added tokens against the package tokenizers itself."""

from __future__ import annotations

import base64
import json
import pickle
import random
import struct
import sys
from itertools import pairwise

import numpy as np
import pytest
from handmade import charsmap_blob, from_first_leaf
from hf_files import (
    COLLAPSE,
    MARK,
    METASPACE,
    STRIP_RIGHT,
    TOKENS,
    ToolPreTokens,
    added_token,
    charsmap,
    chunks,
    sequence,
    texts,
    tokenizer_file,
    tool,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import NFC

from gpu_lattice.normalizers.hf_tokenizers import AddedToken, hf_normalizer, tool_errors
from gpu_lattice.text_batch import TextBatch

NO_SPLIT = METASPACE | {"split": False}
NEVER = METASPACE | {"prepend_scheme": "never"}
FIRST = METASPACE | {"prepend_scheme": "first"}
OLD_METASPACE = {"type": "Metaspace", "replacement": MARK, "add_prefix_space": True, "str_rep": MARK}
OTHER_MARK = METASPACE | {"replacement": "_"}
WHITESPACE = {"type": "WhitespaceSplit"}
TO_SPACE = COLLAPSE | {"content": " "}
QUOTES = {"type": "Replace", "pattern": {"String": "''"}, "content": '"'}
LONG_CONTENT = {"type": "Replace", "pattern": {"String": "ab"}, "content": "  ▁ longer than it was ▁ "}
STRIP_BOTH = {"type": "Strip", "strip_left": True, "strip_right": True}
PREPEND = {"type": "Prepend", "prepend": "▁é"}
PRECOMPILED = {"type": "Precompiled"}
CUSTOM = {"type": "Precompiled", "custom": True}

SPECIALS = [added_token(10, "<s>", special=True), added_token(11, "</s>", special=True)]
MASK = [*SPECIALS, added_token(12, "<mask>", special=True, lstrip=True)]
NORMALIZED = [*MASK, added_token(13, "<sé>", normalized=True), added_token(14, "ab", normalized=True, rstrip=True)]
GREEDY = [added_token(20 + i, token, lstrip=i % 2 == 0, rstrip=i % 3 == 0) for i, token in enumerate(TOKENS)]
COOKED = [added_token(20 + i, token, normalized=True, lstrip=i % 3 == 0) for i, token in enumerate(TOKENS[:5])]


def precompiled_of(rules):
    """A Precompiled with a character map of these keys and replacements, or of these bytes."""
    blob = rules if isinstance(rules, bytes) else charsmap_blob(rules)
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}


def steps(*parts):
    return sequence("normalizers", *parts)


def cutters(*parts):
    return sequence("pretokenizers", *parts)


COMPILED = {
    "nothing": (None, None, []),
    "today": (steps(PRECOMPILED, STRIP_RIGHT, COLLAPSE), METASPACE, SPECIALS),
    "today, one chunk": (steps(PRECOMPILED, STRIP_RIGHT, COLLAPSE), NO_SPLIT, MASK),
    "older": (steps(PRECOMPILED, TO_SPACE), OLD_METASPACE, MASK),
    "oldest": (PRECOMPILED, cutters(WHITESPACE, METASPACE), SPECIALS),
    "no charsmap": (steps(STRIP_RIGHT, COLLAPSE), METASPACE, []),
    "collapse alone": (COLLAPSE, METASPACE, GREEDY),
    "collapse uncut": (COLLAPSE, None, MASK),
    "collapse to nothing": (steps(COLLAPSE | {"content": ""}, PRECOMPILED), METASPACE, MASK),
    "never": (steps(PRECOMPILED, TO_SPACE), NEVER, NORMALIZED),
    "first": (steps(PRECOMPILED, STRIP_RIGHT, COLLAPSE), FIRST, MASK),
    "first, one chunk": (steps(PRECOMPILED), NO_SPLIT | {"prepend_scheme": "first"}, SPECIALS),
    "another mark": (steps(PRECOMPILED, COLLAPSE), OTHER_MARK, MASK),
    "a space as mark": (TO_SPACE, METASPACE | {"replacement": " "}, MASK),
    "a wide mark": (None, METASPACE | {"replacement": "👍"}, []),
    "replace": (steps(QUOTES, PRECOMPILED, LONG_CONTENT, STRIP_BOTH, TO_SPACE), METASPACE, NORMALIZED),
    "prepend": (steps(PREPEND, STRIP_BOTH, PREPEND), cutters(WHITESPACE), MASK),
    "two charsmaps": (steps(CUSTOM, PRECOMPILED), METASPACE, []),
    "custom charsmap": (CUSTOM, METASPACE, MASK),
    "greedy tokens": (steps(PRECOMPILED, STRIP_BOTH), METASPACE, GREEDY),
    "cooked tokens": (steps(PRECOMPILED, STRIP_RIGHT, COLLAPSE), METASPACE, COOKED),
    "cooked tokens, words": (steps(PRECOMPILED, COLLAPSE), cutters(cutters(WHITESPACE), NO_SPLIT), COOKED),
}  # fmt: skip
NOT_COMPILED = {
    "albert": (
        steps(QUOTES, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, PRECOMPILED, TO_SPACE),
        METASPACE,
        MASK,
    ),
    "nmt": (steps({"type": "Nmt"}, {"type": "NFKC"}, TO_SPACE), METASPACE, NORMALIZED),
    "punctuation": (PRECOMPILED, cutters({"type": "Punctuation", "behavior": "Isolated"}, METASPACE), SPECIALS),
    "single words": (PRECOMPILED, METASPACE, [added_token(10, "ab", single_word=True)]),
    "first after strip": (steps(PRECOMPILED, STRIP_BOTH), FIRST, []),
    "first, cooked tokens": (PRECOMPILED, FIRST, COOKED),
    "equal when cooked": (
        {"type": "Lowercase"},
        METASPACE,
        [added_token(10, "q", normalized=True), added_token(11, "<s>", normalized=True)],
    ),
    "another regex": (steps(TO_SPACE | {"pattern": {"Regex": "[ab]+"}}, PRECOMPILED), METASPACE, []),
}


@pytest.fixture(scope="session")
def charsmaps(tmp_path_factory):
    """The trainer's map, and one with keys of one and several characters, deletions and growth."""
    rules = {
        "a": "xyz", "ab": "Q", "\r\n": "N", "\n": "", "e\u0301\u0323": "E", "\u0301": "", "\u1100\u1161": "ga",
        "ｶ": "カ",
        "  ": " ", "👍": "", "क": "ka" * 20, "\u0600": "!", "\u200d": "", "\U0001f1eb": "F", "\x01": "\U000e0020",
    }  # fmt: skip
    path = tmp_path_factory.mktemp("rules") / "rules.tsv"
    codes = {key: " ".join(f"{ord(c):X}" for c in key) for key in [*rules, *rules.values()]}
    path.write_text("".join(f"{codes[key]}\t{codes[value]}\n" for key, value in rules.items()))
    return {"Precompiled": charsmap("nmt_nfkc"), "custom": charsmap(rules=path)}


def with_charsmaps(part, charsmaps):
    """The part with charsmaps in place of CUSTOM and PRECOMPILED."""
    if isinstance(part, dict) and part.get("type") == "Precompiled":
        return charsmaps["custom" if "custom" in part else "Precompiled"]
    if isinstance(part, dict):
        return {key: with_charsmaps(value, charsmaps) for key, value in part.items()}
    return [with_charsmaps(value, charsmaps) for value in part] if isinstance(part, list) else part


def build(recipe, charsmaps):
    """(the rule object, the tool's pre-tokens, the ids of added tokens) of a recipe."""
    normalizer, pre_tokenizer, added = recipe
    normalizer = with_charsmaps(normalizer, charsmaps)
    file = tokenizer_file(normalizer=normalizer, pre_tokenizer=pre_tokenizer, added_tokens=added)
    rules = hf_normalizer(normalizer, pre_tokenizer, [AddedToken(**token) for token in added], "tokenizer.json")
    return rules, ToolPreTokens(file), {token["content"]: token["id"] for token in added}


def expected(tool_pre_tokens, ids, text):
    return [(chunk, ids[chunk] if is_added else -1) for chunk, is_added in tool_pre_tokens(text)]


@pytest.fixture(scope="session")
def built(charsmaps):
    """Every recipe, built once."""
    return {name: build(recipe, charsmaps) for name, recipe in (COMPILED | NOT_COMPILED).items()}


@pytest.mark.parametrize("name", COMPILED)
@settings(max_examples=60)
@given(docs=st.lists(texts, min_size=1, max_size=4))
def test_compiled_recipes_cut_texts_as_the_tool(built, name, docs):
    rules, tool_pre_tokens, ids = built[name]
    assert chunks(rules(TextBatch.from_texts(docs))) == [expected(tool_pre_tokens, ids, doc) for doc in docs]


@pytest.mark.parametrize("name", NOT_COMPILED)
@settings(max_examples=20)
@given(docs=st.lists(texts, min_size=1, max_size=4))
def test_other_recipes_cut_texts_as_the_tool(built, name, docs):
    rules, tool_pre_tokens, ids = built[name]
    assert chunks(rules(TextBatch.from_texts(docs))) == [expected(tool_pre_tokens, ids, doc) for doc in docs]


def test_a_recipe_is_compiled_or_not_and_its_repr_says_which(built):
    compiled = {name for name, (rules, _, _) in built.items() if repr(rules).endswith("; compiled)")}
    by_tool = {
        name for name, (rules, _, _) in built.items() if "not compiled, run by the package tokenizers" in repr(rules)
    }
    assert compiled == set(COMPILED)
    assert by_tool == set(NOT_COMPILED)


def test_every_character_joins_the_one_before_as_in_the_tool(charsmaps):
    # "ª" becomes "a" together with all that is in its cluster, if the cluster is short.
    normalizer = tool(tokenizer_file(normalizer=charsmaps["Precompiled"])).normalizer
    rules = hf_normalizer(charsmaps["Precompiled"], None, [], "t.json")
    codes = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000 and (c < 0x30000 or 0xE0000 <= c < 0xE1000)]
    docs = [f"ª{chr(c)}\u0600{chr(c)}ª" for c in codes]
    batch = rules(TextBatch.from_texts(docs))
    assert TextBatch(batch.values, batch.offsets).tolist() == [normalizer.normalize_str(doc).encode() for doc in docs]


def test_sequences_of_every_grapheme_class_are_cut_as_in_the_tool(charsmaps):
    normalizer = tool(tokenizer_file(normalizer=charsmaps["custom"])).normalizer
    rules = hf_normalizer(charsmaps["custom"], None, [], "t.json")
    alphabet = "a\r\n\x01\u0301\u200d\U0001f1eb\u0600\u0903\u1100\u1161\u11a8\uac00\uac01©👍क\u094d\u200c\u0915\u1b44"
    random.seed(1)
    docs = ["".join(random.choices(alphabet, k=random.randrange(1, 9))) for _ in range(20_000)]
    batch = rules(TextBatch.from_texts(docs))
    assert TextBatch(batch.values, batch.offsets).tolist() == [normalizer.normalize_str(doc).encode() for doc in docs]


@pytest.mark.parametrize("name", ["today", "albert"])
def test_bytes_that_are_no_text_become_replacement_characters(built, name):
    rules, tool_pre_tokens, ids = built[name]
    docs = [b"a\xffb", b"\xe3\x81", b"\xed\xa0\x80 \xc0\xaf", "é".encode(), b"\xf5\x80" * 50, b""]
    repaired = ["a\ufffdb", "\ufffd\ufffd", "\ufffd\ufffd\ufffd \ufffd\ufffd", "é", "\ufffd\ufffd" * 50, ""]
    assert chunks(rules(TextBatch.from_texts(docs))) == [expected(tool_pre_tokens, ids, doc) for doc in repaired]


@pytest.mark.parametrize("name", ["today", "albert"])
def test_null_and_empty_documents_come_out_empty(built, name):
    rules = built[name][0]
    batch = rules(TextBatch.from_texts([None, "", "a", None, "\x01", "<s>"]))
    assert [len(doc) for doc in chunks(batch)] == [0, 0, 1, 0, 0, 1]
    assert len(rules(TextBatch.from_texts([]))) == 0


@pytest.mark.parametrize("name", ["today", "cooked tokens"])
def test_threads_and_ranges_do_not_change_anything(built, name):
    rules = built[name][0]
    random.seed(2)
    docs = ["".join(random.choices("ab  <s>é▁\u0301", k=random.randrange(200))) for _ in range(5000)]
    batch = TextBatch.from_texts([*docs, b"\xff", "x" * 400_000])
    alone, together = rules(batch), rules(batch, threads=4)
    assert batch.num_bytes > 700_000
    for field in ("values", "offsets", "chunk_offsets", "chunk_ids"):
        np.testing.assert_array_equal(getattr(alone, field), getattr(together, field))
    halves = [chunks(rules(batch.slice(*half))) for half in ((0, 2500), (2500, len(batch)))]
    assert chunks(alone) == halves[0] + halves[1]


@pytest.mark.parametrize("name", ["today", "cooked tokens", "albert"])
def test_a_rule_object_survives_pickling(built, name):
    rules = built[name][0]
    batch = TextBatch.from_texts(["a  b<s>é ab", "x"])
    assert chunks(pickle.loads(pickle.dumps(rules))(batch)) == chunks(rules(batch))


def test_without_the_package_a_recipe_that_needs_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert hf_normalizer(None, METASPACE, [], "t.json") is not None
    with pytest.raises(ImportError, match=r"t\.json needs the package tokenizers.*NFKD.*gpu-lattice\[hf\]"):
        hf_normalizer({"type": "NFKD"}, METASPACE, [], "t.json")


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "message"),
    [
        ({"type": "NFKX"}, None, "normalizer has a component of the unknown type 'NFKX'"),
        (None, cutters({"type": "Spaces"}), "pre-tokenizer has a component of the unknown type 'Spaces'"),
        (7, None, "the normalizer is 7, not an object"),
        ({"type": "Sequence"}, None, "a Sequence without a list 'normalizers'"),
        ({"type": "Strip", "strip_left": 1, "strip_right": True}, None, "Strip has strip_left = 1"),
        ({"type": "Replace", "pattern": " "}, None, "Replace has pattern = ' '"),
        ({"type": "Prepend"}, None, "Prepend has prepend = None"),
        ({"type": "Prepend", "prepend": ""}, None, "Prepend has prepend = ''"),
        ({"type": "Precompiled", "precompiled_charsmap": ""}, None, "no precompiled_charsmap"),
        ({"type": "Precompiled", "precompiled_charsmap": "a?"}, None, "not base64"),
        ({"type": "Precompiled", "precompiled_charsmap": "AAAA"}, None, "character map is broken"),
        (precompiled_of({b"a": b"\xff"}), None, "character map is broken: its replacements are not UTF-8"),
        (precompiled_of(from_first_leaf({b"a": "é".encode()}, 1)), None, "a leaf points into a character"),
        (precompiled_of(struct.pack("<I", 1 << 31) + bytes(1024)), None, "an array of 2147483648 bytes, of which 1024"),
        (precompiled_of({b"a" * 513: b""}), None, "character map is broken: it has keys of more than 512 bytes"),
        (steps({"type": "NFC"}, precompiled_of({b"a": b"\xc3"})), None, "character map is broken"),
        (steps(*[precompiled_of({b"a": b"a" * 999})] * 2), None, "more than 262144 characters from one"),
        (None, METASPACE | {"replacement": "ab"}, "replacement 'ab'; it must be one character"),
        (None, METASPACE | {"prepend_scheme": "once"}, "prepend_scheme 'once'"),
        (None, OLD_METASPACE | {"add_prefix_space": False}, 'set prepend_scheme to "never"'),
        ({"type": "BertNormalizer"}, METASPACE, "tokenizers cannot load"),
    ],
)
def test_broken_parts_are_named(normalizer, pre_tokenizer, message):
    with pytest.raises(ValueError, match=message) as error:
        hf_normalizer(normalizer, pre_tokenizer, [], "t.json")
    assert str(error.value).startswith("t.json")


def test_nfc_of_every_code_point_and_of_what_combines_with_it_is_the_tools():
    rules, tool_rules = hf_normalizer({"type": "NFC"}, None, [], "t.json"), NFC()
    points = [chr(c) for c in (*range(0xD800), *range(0xE000, 0x110000))]
    docs = ["a".join(points[i : i + 64]) for i in range(0, len(points), 64)]
    docs += ["".join(f"{a}{b}" for a in "eかᄀ가" for b in points[i : i + 64]) for i in range(0, 0x2000, 64)]
    found = rules(TextBatch.from_texts(docs))
    values = found.values.tobytes()
    assert [values[a:b].decode() for a, b in pairwise(found.offsets)] == list(map(tool_rules.normalize_str, docs))


def test_panics_of_the_tool_are_value_errors_and_interrupts_are_not():
    class PanicException(BaseException):
        """Of pyo3, whose panics are no Exceptions."""

    with pytest.raises(ValueError, match=r"^t: index out of bounds; take the part"), tool_errors("t"):
        raise PanicException("index out of bounds")
    with pytest.raises(KeyboardInterrupt), tool_errors("t"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("model", ["en8k", "ja8k_nosplit"])
@pytest.mark.parametrize("text", ["wikitext2_valid", "shakespeare", "botchan", "wagahai", "chinese_msr", "code_python"])
def test_real_texts_are_cut_as_by_the_tool(shared_data, model, text):
    file = json.loads((shared_data / "models" / f"{model}.tokenizer.json").read_text())
    parts = file["normalizer"], file["pre_tokenizer"], [AddedToken(**token) for token in file["added_tokens"]]
    lines = (shared_data / "text" / f"{text}.txt").read_bytes().decode().split("\n")
    normalizer, pre_tokenizer = tool(file).normalizer, tool(file).pre_tokenizer
    found = chunks(hf_normalizer(*parts, model)(TextBatch.from_texts(lines)))
    for line, pairs in zip(lines, found, strict=True):
        pre_tokens = pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(line))
        assert [chunk for chunk, _ in pairs] == [pre_token for pre_token, _ in pre_tokens]
