"""Cases of the tools' own test suites, where they can be expressed: inputs and expected values.

Sources: tokenizers 0.23.3 (models/unigram, pre_tokenizers/{metaspace,byte_level}, processors), transformers 5 (tests of
T5, ALBERT and subword regularization), sentencepiece 0.2.3 (python/test), tf-text (sentencepiece_tokenizer_test).
"""

import json
import pickle
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from conftest import DATA
from hf_files import COLLAPSE, METASPACE, STRIP_RIGHT, added_token, sequence, tokenizer_file
from sentencepiece_files import CONTROL, UNK, UNUSED, model_bytes, piece

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


def fixture_model(size: int, pieces: dict[int, str]) -> bytes:
    """A SentencePiece model of our own with some of a fixture's pieces at their ids, the first the likeliest.

    The fixtures themselves are not ours to carry. Single letters follow, so that there is something to choose from;
    all other ids are unused.
    """
    specials = [UNK, piece("<s>", 0.0, CONTROL), piece("</s>", 0.0, CONTROL)]
    spare = iter(sorted({*"".join(pieces.values())} - {*pieces.values()}))
    rest = [
        piece(pieces[i], -3.0 - i / 250) if i in pieces else piece(f"<unused {i}>", 0.0, UNUSED) for i in range(3, size)
    ]
    free = [i for i in range(size - 3) if i + 3 not in pieces][::-1]
    for letter, i in zip(spare, free, strict=False):
        rest[i] = piece(letter, -12.0)
    return model_bytes(*specials, *rest)


# tf-text, python/ops/sentencepiece_tokenizer_test.py: test_oss_model.model, which is test_model.model of sentencepiece.
OSS = {
    4: "▁", 6: ".", 7: "▁the", 8: "s", 9: "▁I", 15: "t", 17: "d", 21: "o", 33: "▁me", 48: "ar", 78: "▁c", 125: "ve",
    132: "pe", 169: "▁l", 199: "N", 310: "▁tell", 363: "ever", 579: "amp", 727: "▁desk",
}  # fmt: skip
OSS_CASES = {
    "I love carpet": [9, 169, 21, 125, 78, 48, 132, 15],
    "I love carpet.": [9, 169, 21, 125, 78, 48, 132, 15, 6],
    "I love desk.": [9, 169, 21, 125, 727, 6],
    "I love lamp.": [9, 169, 21, 125, 169, 579, 6],
    "Never tell me the odds": [4, 199, 363, 310, 33, 7, 4, 21, 17, 17, 8],
}
OSS_SPANS = {
    "I love carpet.": [0, 1, 3, 4, 6, 8, 10, 12, 13, 14],
    "I love desk.": [0, 1, 3, 4, 6, 11, 12],
    "I love lamp.": [0, 1, 3, 4, 6, 8, 11, 12],
    "Never tell me the odds": [0, 0, 1, 5, 10, 13, 17, 18, 19, 20, 21, 22],
}


@pytest.fixture(scope="module")
def oss() -> Tokenizer:
    return Tokenizer.from_bytes(fixture_model(1000, OSS), device="cpu")


def test_names_and_ids_are_those_in_the_tests_of_tf_text(oss: Tokenizer) -> None:
    assert oss.vocab_size == 1000
    assert (oss.id_to_piece(125), oss.piece_to_id("</s>")) == ("ve", 2)
    for ids in OSS_CASES.values():
        assert oss.id_to_piece(ids) == [OSS[i] for i in ids]
        assert oss.piece_to_id([OSS[i] for i in ids]) == ids


@pytest.mark.parametrize("options", [{}, {"add_bos": True}, {"add_eos": True}, {"add_bos": True, "add_eos": True}])
def test_ids_pieces_and_back_as_in_the_tests_of_tf_text(oss: Tokenizer, options: dict[str, bool]) -> None:
    texts, before, after = list(OSS_CASES), [1] * ("add_bos" in options), [2] * ("add_eos" in options)
    out = oss.encode(texts, **options)
    assert out.tolist() == [[*before, *ids, *after] for ids in OSS_CASES.values()]
    assert out.pieces() == [[*["<s>"] * len(before), *(OSS[i] for i in ids), *["</s>"] * len(after)]
                            for ids in OSS_CASES.values()]  # fmt: skip
    assert oss.decode(out) == texts
    assert oss.decode(out.pieces()) == texts
    # reverse=True of the tool is a slice here.
    assert out[0][::-1].tolist() == [*after, *OSS_CASES[texts[0]][::-1], *before]


def test_offsets_are_those_in_the_tests_of_tf_text(oss: Tokenizer) -> None:
    for text, bounds in OSS_SPANS.items():
        assert spans(oss.encode(text, return_offsets="bytes")) == list(pairwise(bounds))


@pytest.mark.parametrize(("nbest_size", "alpha"), [(-1, 0.1), (64, 0.1), (0, 0.0)])
def test_samples_spell_their_texts_as_in_the_tests_of_tf_text(oss: Tokenizer, nbest_size: int, alpha: float) -> None:
    texts = list(OSS_CASES)
    out = oss.sample(texts, nbest_size=nbest_size, alpha=alpha)
    assert oss.decode(out) == oss.decode(out.pieces()) == texts
    assert [oss.decode(row) for row in oss.nbest(texts, 2).tolist()] == [[text] * 2 for text in texts]


def test_nothing_and_no_model_as_in_the_tests_of_tf_text(oss: Tokenizer) -> None:
    out = oss.encode([], return_offsets="bytes")
    assert (out.tolist(), spans(out), oss.decode([])) == ([], [], "")
    assert pickle.loads(pickle.dumps(oss)).encode("I love desk.") == oss.encode("I love desk.")
    with pytest.raises(ValueError, match="the model"):
        Tokenizer.from_bytes(b"invalid model", device="cpu")


# transformers, tests/models/t5: fixtures/test_sentencepiece.model.
T5 = {
    3: ",", 4: ".", 6: "s", 7: "▁", 8: "▁I", 10: "▁a", 12: "▁and", 19: "▁in", 21: "▁was", 24: "n", 46: "▁is", 55: "or",
    66: "▁this", 72: "▁f", 80: "al", 84: "▁b", 170: "▁t", 285: "▁This", 347: "0", 382: "est", 602: "2",
}  # fmt: skip
BORN = "I was born in 92000, and this is falsé."


def test_ids_and_pieces_are_those_in_the_tests_of_t5() -> None:
    tok = Tokenizer.from_bytes(fixture_model(1000, T5), device="cpu")
    assert (tok.id_to_piece(1), tok.piece_to_id("<s>"), tok.id_to_piece(0)) == ("<s>", 1, "<unk>")
    out = tok.encode("This is a test")
    assert out.tolist() == [[285, 46, 10, 170, 382]]
    assert out.pieces() == [["▁This", "▁is", "▁a", "▁t", "est"]]
    out = tok.encode(BORN)
    ids = [8, 21, 84, 55, 24, 19, 7, 0, 602, 347, 347, 347, 3, 12, 66, 46, 72, 80, 6, 0, 4]
    assert out.tolist() == [ids]
    pieces = ["<unk>" if i == 0 else T5[i] for i in ids]
    assert tok.id_to_piece(ids) == pieces
    assert out.pieces() == [[{7: "9", 19: "é"}.get(k, name) for k, name in enumerate(pieces)]]
    assert tok.decode(out.pieces()) == [BORN]


def test_extra_ids_follow_the_vocabulary_as_in_the_tests_of_t5() -> None:
    tok = Tokenizer.from_bytes(fixture_model(1000, T5), device="cpu")
    extra = [f"<extra_id_{i}>" for i in reversed(range(100))]
    with_extra = tok.add_tokens([*extra, "<pad>"])
    assert (len(tok), len(with_extra)) == (1000, 1101)
    assert with_extra.piece_to_id("<pad>") == 1100
    assert with_extra.encode("This is <extra_id_0>").tolist() == [[285, 46, 7, 1099]]
    assert len(with_extra.encode("This is a test", suffix_ids=[tok.eos_id or 0], max_length=4)[0]) == 4


def test_special_tokens_in_the_text_are_ids_as_in_the_tests_of_t5() -> None:
    """Of t5-base, with its pieces of that sentence alone."""
    known = {1960: "▁Today", 19: "▁is", 1245: "▁nice", 239: "▁day"}
    names = ["<pad>", "</s>", "<unk>"]
    vocab = [[known.get(i, names[i] if i < 3 else f"<unused {i}>"), -2.0] for i in range(1961)]
    tok = unigram(
        vocab,
        model={"unk_id": 2},
        normalizer=sequence("normalizers", STRIP_RIGHT, COLLAPSE),
        pre_tokenizer=METASPACE,
        decoder=METASPACE,
        added_tokens=[added_token(i, name, special=True, rstrip=True) for i, name in enumerate(names)],
    )
    out = tok.encode("<pad> Today is <unk> nice day </s>")
    assert out.tolist() == [[0, 1960, 19, 2, 1245, 239, 1]]
    assert tok.decode(out, skip_special_tokens=False) == ["<pad> Today is<unk> nice day</s>"]
    assert tok.encode("Today", max_length=32).to_padded(pad_id=0).shape == (1, 1)


def test_ids_and_frame_are_those_in_the_tests_of_albert() -> None:
    """transformers, tests/models/albert: fixtures/spiece.model, of 30,000 pieces, in lower case."""
    known = {
        9: ".", 15: ",", 17: "▁and", 18: "s", 19: "▁in", 21: "▁a", 23: "▁was", 25: "▁is", 31: "▁i", 48: "▁this",
        386: "▁born", 561: "▁9", 1289: "▁test", 3050: "2000", 8256: "▁fal", 29_999: "▁eloquent",
    }  # fmt: skip
    specials = ["<pad>", "<unk>", "[CLS]", "[SEP]"]
    vocab = [[specials[i] if i < 4 else known.get(i, f"<unused {i}>"), -3.0 - i / 250] for i in range(30_000)]
    frame = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]")]
    single = [frame[0], {"Sequence": {"id": "A", "type_id": 0}}, frame[1]]
    tok = unigram(
        vocab,
        model={"unk_id": 1},
        normalizer={"type": "Lowercase"},
        pre_tokenizer=METASPACE,
        added_tokens=[added_token(i, name, special=True) for i, name in enumerate(specials) if i != 1],
        post_processor={
            "type": "TemplateProcessing",
            "single": single,
            "pair": single,
            "special_tokens": {
                name: {"id": name, "ids": [specials.index(name)], "tokens": [name]} for name in specials[2:]
            },
        },
    )
    assert (len(tok), tok.id_to_piece([0, 1, 29_999])) == (30_000, ["<pad>", "<unk>", "▁eloquent"])
    out = tok.encode("This is a test", add_special_tokens=False)
    assert (out.tolist(), out.pieces()) == ([[48, 25, 21, 1289]], [["▁this", "▁is", "▁a", "▁test"]])
    ids = [31, 23, 386, 19, 561, 3050, 15, 17, 48, 25, 8256, 18, 1, 9]
    assert tok.encode(BORN, add_special_tokens=False).tolist() == [ids]
    assert tok.id_to_piece(ids[-4:]) == ["▁fal", "s", "<unk>", "."]
    assert tok.encode(BORN).tolist() == [[2, *ids, 3]]


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
    five = [english.sample(text, alpha=0.1, nbest_size=-1).pieces()[0] for _ in range(5)]
    assert any(one != other for one, other in combinations(five, 2))
    assert english.decode(five) == [text] * 5
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
