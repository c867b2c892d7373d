"""Cases of the tools' own test suites, where they can be expressed: inputs and expected values.

Sources: tokenizers 0.23.3 (models/unigram, pre_tokenizers/{metaspace,byte_level}, processors), transformers 5 (tests of
T5, ALBERT and subword regularization), sentencepiece 0.2.3 (python/test), tf-text (sentencepiece_tokenizer_test).
"""

import json
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import DATA
from hf_files import METASPACE, added_token, tokenizer_file

from gpu_lattice import Tokenizer
from gpu_lattice.normalizers.byte_level import CHARACTERS

# Of unigram/model.rs, test_encode2.
ENCODE2 = [
    ["<unk>", 0.0], ["ab", 0.0], ["cd", -0.1], ["abc", -0.2], ["a", -0.3], ["b", -0.4], ["c", -0.5], ["ABC", -0.5],
    ["abcdabcd", 20.0], ["q", 20.5], ["r", 20.5], ["qr", -0.5],
]  # fmt: skip


def unigram(pieces: list[Any], **parts: Any) -> Tokenizer:
    model = {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False} | parts.pop("model", {})
    return Tokenizer.from_bytes(json.dumps(tokenizer_file(model=model, **parts)).encode(), device="cpu")


def spans(out: Any) -> list[tuple[int, ...]]:
    return list(map(tuple, out.spans.tolist()))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("abc", ["abc"]),
        ("AB", ["AB"]),
        ("abcd", ["ab", "cd"]),
        ("abcc", ["abc", "c"]),
        ("xabcabaabcdd", ["x", "abc", "ab", "a", "ab", "cd", "d"]),
        ("xyz東京", ["xyz東京"]),
        ("ABC", ["ABC"]),
        ("abABCcd", ["ab", "ABC", "cd"]),
        ("ababcdabcdcd", ["ab", "abcdabcd", "cd"]),
        ("abqrcd", ["ab", "q", "r", "cd"]),
    ],
)
def test_unigram_encodes_as_in_its_own_tests(text: str, pieces: list[str]) -> None:
    assert unigram(ENCODE2).encode(text).pieces() == [pieces]


def test_unigram_prefers_the_long_piece() -> None:
    vocab = [
        ["<unk>", 0.0],
        *([letter, 0.0] for letter in "abcd"),
        ["cd", 1.0],
        ["ab", 2.0],
        ["abc", 5.0],
        ["abcd", 10.0],
    ]
    assert unigram(vocab).encode("abcd").pieces() == [["abcd"]]


def test_unigram_falls_back_to_bytes_if_it_has_them_all() -> None:
    tok = unigram([["<unk>", 0.0], ["<0xC3>", -0.01], ["<0xA9>", -0.03]], model={"byte_fallback": True})
    out = tok.encode(["é", "?é"], return_offsets="bytes")
    assert out.tolist() == [[1, 2], [0]]
    assert spans(out) == [(0, 2), (0, 2), (0, 3)]


@pytest.mark.parametrize(
    ("text", "pieces", "offsets"),
    [
        ("Hey my friend", ["▁Hey", "▁my", "▁friend"], [(0, 3), (3, 6), (6, 13)]),
        ("Hey   friend", ["▁Hey", "▁", "▁", "▁friend"], [(0, 3), (3, 4), (4, 5), (5, 12)]),
    ],
)
def test_metaspace_divides_as_in_its_own_tests(text: str, pieces: list[str], offsets: list[tuple[int, int]]) -> None:
    vocab = [["<unk>", -20.0], *([piece, -1.0] for piece in ("▁Hey", "▁my", "▁friend", "▁"))]
    out = unigram(vocab, pre_tokenizer=METASPACE).encode(text, return_offsets="bytes")
    assert out.pieces() == [pieces]
    assert spans(out) == offsets


@pytest.mark.parametrize(
    ("text", "offsets"),
    [
        ("i⭢j", [(0, 1), (1, 4), (1, 4), (1, 4), (4, 5)]),
        ("Hi\n", [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_byte_level_aligns_whole_characters(text: str, offsets: list[tuple[int, int]]) -> None:
    file = tokenizer_file(
        model={"type": "BPE", "vocab": {c: i for i, c in enumerate(CHARACTERS)}, "merges": []},
        pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    )
    tok = Tokenizer.from_bytes(json.dumps(file).encode(), device="cpu")
    assert spans(tok.encode(text, return_offsets="bytes")) == offsets


@pytest.mark.parametrize("kind", ["BertProcessing", "RobertaProcessing"])
def test_processors_put_ids_and_empty_offsets_around(kind: str) -> None:
    names = {"[SEP]": 3, "[CLS]": 4}
    processor = {"type": kind, "sep": ["[SEP]", 3], "cls": ["[CLS]", 4], "trim_offsets": True, "add_prefix_space": True}
    if kind == "BertProcessing":
        del processor["trim_offsets"], processor["add_prefix_space"]
    tok = unigram(
        [["<unk>", -9.0], ["Hello", -1.0], ["there", -1.0]],
        pre_tokenizer={"type": "WhitespaceSplit"},
        added_tokens=[added_token(i, name, special=True) for name, i in names.items()],
        post_processor=processor,
    )
    out = tok.encode("Hello there", return_offsets="bytes")
    assert out.pieces() == [["[CLS]", "Hello", "there", "[SEP]"]]
    assert spans(out) == [(0, 0), (0, 5), (6, 11), (0, 0)]


@pytest.fixture(scope="module")
def english() -> Tokenizer:
    return Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")


SENTENCES = ["This is a test for subword regularization.", "I was born in 92000, and this is falsé.", "Tensor and flow"]


def test_ids_and_pieces_go_both_ways_as_in_the_tests_of_sentencepiece(english: Tokenizer) -> None:
    ids = list(range(len(english)))
    assert english.piece_to_id(english.id_to_piece(ids)) == ids
    for text in SENTENCES:
        out = english.encode(text)
        assert english.piece_to_id(english.id_to_piece(out[0])) == out[0].tolist()
        known = "falsé" not in text and "9" not in text
        assert not known or english.decode(out[0]) == text
    assert english.encode("").tolist() == [[]]
    assert english.decode([]) == ""
    assert english.encode([]).tolist() == []


def test_samples_differ_and_spell_the_same_as_in_the_tests_of_subword_regularization(english: Tokenizer) -> None:
    text = SENTENCES[0]
    drawn = [tuple(english.sample(text, alpha=0.1).tolist()[0] or []) for _ in range(40)]
    assert len(set(drawn)) > 30
    assert set(english.decode([list(ids) for ids in drawn])) == {text}
    copy = pickle.loads(pickle.dumps(english))
    assert copy.sample(text, alpha=0.1, seed=3) == english.sample(text, alpha=0.1, seed=3)


def test_ragged_texts_ids_and_offsets_as_in_the_tests_of_tf_text(english: Tokenizer) -> None:
    out = english.encode(SENTENCES, return_offsets="bytes", add_bos=True, add_eos=True)
    assert [row[0] for row in out] == [english.bos_id] * 3
    assert [row[-1] for row in out] == [english.eos_id] * 3
    assert out.spans is not None
    for text, start, stop in zip(SENTENCES, out.offsets[:-1], out.offsets[1:], strict=True):
        inner = out.spans[start + 1 : stop - 1]
        assert inner[0, 0] == 0
        assert inner[-1, 1] == len(text.encode())
        assert np.array_equal(inner[1:, 0], inner[:-1, 1])
    reverse = [row[::-1].tolist() for row in english.encode(SENTENCES)]
    assert english.decode([row[::-1] for row in reverse]) == english.decode(english.encode(SENTENCES))
