"""Offsets are those of sentencepiece and tokenizers, for every normalizer; those of samples tile the text."""

import json
import os
import pickle
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from bpe_files import MODELS as BPE_MODELS
from bpe_files import trained
from conftest import DATA, ROOT
from cuda_on_cpu.host_device import HostDevice, compiler
from hf_files import COLLAPSE, METASPACE, PIECES, STRIP_RIGHT, added_token, charsmap, sequence, texts, tokenizer_file
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece_files import UNK, A, model_bytes, piece
from strategies import Case, cases

from gpu_lattice import TokenBatch, Tokenizer
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.normalizers.byte_level import CHARACTERS

SENTENCEPIECE = [
    "en_bpe.model", "en_casefold.model", "en_nmt_nfkc.model", "en_suffix.model", "en_symbols.model", "ja_bytes.model",
    "zh_bytes.model",
]  # fmt: skip
LINES = {name: (DATA / f"{name}.txt").read_text("utf-8").splitlines()[:200] for name in ("en", "ja", "zh", "odd")}
BYTES = [[f"<0x{byte:02X}>", -9.0] for byte in range(256)]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
BYTE_BPE = {
    "type": "BPE",
    "vocab": {character: i for i, character in enumerate(CHARACTERS)} | {"ĠĠ": 256, "Ġa": 257},
    "merges": ["Ġ Ġ", "Ġ a"],
}
ROBERTA = {"type": "RobertaProcessing", "sep": ["b", 98], "cls": ["a", 97], "trim_offsets": True}
TOKENS = [
    added_token(7, "<s>", lstrip=True, rstrip=True, special=True),
    added_token(8, "ＦＩ", normalized=True),
    added_token(9, "x", normalized=True, rstrip=True),
]
RECIPES: dict[str, dict[str, Any]] = {
    "t5": {"normalizer": sequence("normalizers", charsmap(), STRIP_RIGHT, COLLAPSE), "pre_tokenizer": METASPACE},
    "tokens": {
        "normalizer": sequence("normalizers", charsmap(), COLLAPSE),
        "pre_tokenizer": METASPACE | {"split": False},
        "added_tokens": TOKENS,
    },
    "tokens of white space": {
        "normalizer": {"type": "NFC"},
        "added_tokens": [
            added_token(7, "é", lstrip=True, rstrip=True),
            added_token(8, " ", normalized=True, lstrip=True, rstrip=True),
            added_token(9, "\n", lstrip=True, rstrip=True),
        ],
    },
    "xlmr": {
        "normalizer": charsmap(),
        "pre_tokenizer": sequence("pretokenizers", {"type": "WhitespaceSplit"}, METASPACE),
    },
    "albert": {
        "normalizer": sequence(
            "normalizers",
            {"type": "Replace", "pattern": {"String": "``"}, "content": '"'},
            {"type": "NFKD"},
            {"type": "StripAccents"},
            {"type": "Lowercase"},
            charsmap(),
        ),
        "pre_tokenizer": METASPACE,
    },
    "llama": {
        "normalizer": sequence(
            "normalizers",
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ),
        "model": {"type": "Unigram", "unk_id": 0, "vocab": PIECES[:-1] + BYTES, "byte_fallback": True},
    },
    "nfc": {"normalizer": {"type": "NFC"}, "pre_tokenizer": METASPACE | {"prepend_scheme": "never"}},
    "bytes": {"pre_tokenizer": BYTE_LEVEL, "model": BYTE_BPE, "post_processor": BYTE_LEVEL},
    "untrimmed": {
        "pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": False, "use_regex": False},
        "model": BYTE_BPE,
        "post_processor": BYTE_LEVEL | {"trim_offsets": False},
    },
    "roberta": {
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": False},
        "model": BYTE_BPE,
        "post_processor": sequence("processors", BYTE_LEVEL | {"add_prefix_space": False}, ROBERTA),
    },
    "trimmed twice": {
        "pre_tokenizer": BYTE_LEVEL,
        "model": BYTE_BPE,
        "post_processor": sequence("processors", BYTE_LEVEL, ROBERTA | {"add_prefix_space": True}),
    },
    "bert": {
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
    },
}  # fmt: skip


def hugging_face(name: str) -> tuple[Tokenizer, Any]:
    data = json.dumps(trained(name) if name in BPE_MODELS else tokenizer_file(**RECIPES[name]))
    return Tokenizer.from_bytes(data.encode(), name=name, device="cpu"), tokenizers.Tokenizer.from_str(data)


def spans(out: TokenBatch) -> list[list[tuple[int, ...]]]:
    assert out.spans is not None
    flat = list(map(tuple, out.spans.tolist()))
    return [flat[start:stop] for start, stop in pairwise(out.offsets.tolist())]


def in_bytes(text: str, of_characters: list[tuple[int, int]]) -> list[tuple[int, int]]:
    at = np.cumsum([0, *(len(character.encode()) for character in text)]).tolist()
    return [(at[start], at[stop]) for start, stop in of_characters]


def check_sentencepiece(ours: Tokenizer, tool: Any, docs: list[str]) -> None:
    expected = [mapping["offsets"] for mapping in tool.encode(docs, return_type="offset_mapping")]
    assert spans(ours.encode(docs, return_offsets="characters")) == expected
    raw = [doc.encode() for doc in docs]
    expected = [mapping["offsets"] for mapping in tool.encode(raw, return_type="offset_mapping")]
    assert spans(ours.encode(raw, return_offsets="bytes")) == expected


def check_tokenizers(ours: Tokenizer, tool: Any, docs: list[str]) -> None:
    expected = [encoding.offsets for encoding in tool.encode_batch(docs)]
    assert spans(ours.encode(docs, return_offsets="characters")) == expected
    expected = [in_bytes(doc, row) for doc, row in zip(docs, expected, strict=True)]
    assert spans(ours.encode(docs, return_offsets="bytes")) == expected


@pytest.fixture(scope="module")
def sentencepiece_pairs() -> dict[str, tuple[Tokenizer, Any]]:
    return {
        name: (
            Tokenizer.from_file(DATA / name, device="cpu"),
            sentencepiece.SentencePieceProcessor(model_file=str(DATA / name)),
        )
        for name in SENTENCEPIECE
    }


@pytest.fixture(scope="module")
def hugging_face_pairs() -> dict[str, tuple[Tokenizer, Any]]:
    return {name: hugging_face(name) for name in [*RECIPES, *BPE_MODELS]}


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_offsets_of_lines_are_those_of_sentencepiece(sentencepiece_pairs: Any, name: str) -> None:
    check_sentencepiece(*sentencepiece_pairs[name], [line for lines in LINES.values() for line in lines])


@given(name=st.sampled_from(SENTENCEPIECE), docs=st.lists(texts, min_size=1, max_size=4))
def test_offsets_of_odd_texts_are_those_of_sentencepiece(sentencepiece_pairs: Any, name: str, docs: list[str]) -> None:
    check_sentencepiece(*sentencepiece_pairs[name], docs)


@pytest.mark.parametrize("remove_extra", [0, 1])
@pytest.mark.parametrize("escape", [0, 1])
@pytest.mark.parametrize("suffix", [0, 1])
def test_offsets_are_those_of_sentencepiece_by_every_rule_for_spaces(
    remove_extra: int, escape: int, suffix: int
) -> None:
    data = model_bytes(
        UNK, A, piece("▁" if escape else " ", -2.0),
        trainer={24: suffix}, normalizer={3: 1, 4: remove_extra, 5: escape},
    )  # fmt: skip
    pair = Tokenizer.from_bytes(data, device="cpu"), sentencepiece.SentencePieceProcessor(model_proto=data)
    check_sentencepiece(*pair, ["", " ", "   ", "a", "  a", "a  ", " a  b ", "▁a▁", "\u3000a", "あ a あい  ", "a▁ ▁"])


@pytest.mark.parametrize("name", [*RECIPES, *BPE_MODELS])
def test_offsets_of_lines_are_those_of_tokenizers(hugging_face_pairs: Any, name: str) -> None:
    check_tokenizers(*hugging_face_pairs[name], [line for lines in LINES.values() for line in lines])


@given(name=st.sampled_from([*RECIPES, *BPE_MODELS]), docs=st.lists(texts, min_size=1, max_size=4))
def test_offsets_of_odd_texts_are_those_of_tokenizers(hugging_face_pairs: Any, name: str, docs: list[str]) -> None:
    check_tokenizers(*hugging_face_pairs[name], docs)


@pytest.mark.parametrize("name", ["en_nmt_nfkc.model", "ja_bytes.model", "zh_bytes.model"])
def test_spans_of_samples_tile_the_text(sentencepiece_pairs: Any, name: str) -> None:
    tok, tool = sentencepiece_pairs[name]
    docs = [line for lines in LINES.values() for line in lines[:50]]
    out = tok.sample(docs, alpha=0.2, num_samples=3, seed=4, return_offsets="characters")
    for row, of_row in enumerate(spans(out)):
        best = tool.encode(docs[row // 3], return_type="offset_mapping")["offsets"]
        assert [of_row[0][0], of_row[-1][1]] == [best[0][0], best[-1][1]] if of_row else not best
        assert all(one[1] == other[0] for one, other in pairwise(of_row))


@given(cases(always_spelled=True))
def test_the_text_of_a_span_is_its_piece(case: Case) -> None:
    tok = case.tokenizer()
    out = tok.sample(case.texts, alpha=0.3, num_samples=2, seed=1, return_offsets="bytes")
    raw = [text.encode() if isinstance(text, str) else text for text in case.texts]
    for row, of_row in enumerate(spans(out)):
        text, ids = raw[row // 2], out[row].tolist()
        assert [start for start, _ in of_row] + [len(text)] == [0, *(stop for _, stop in of_row)]
        for i, (start, stop) in zip(ids, of_row, strict=True):
            assert i == tok.unk_id or text[start:stop] == tok.model.vocabulary.surfaces[i]


def test_spans_of_bytepiece_tile_the_text_and_sequences_that_nfc_changes_stay_together() -> None:
    tok = Tokenizer.from_file(DATA / "bytepiece.json", device="cpu")
    docs = ["cafe\u0301\n\nbar", "\u1112\u1161\u11ab x", "e\u0301\u0323" + "\u0301" * 100, "ก็ क्ष", "漢字"]
    raw = [*(doc.encode() for doc in docs), b"a\xffb\xe3\x81", "é\u0301\xad".encode()]
    for doc, of_row in zip(raw, spans(tok.encode(raw, return_offsets="bytes")), strict=True):
        assert (of_row[0][0], of_row[-1][1]) == (0, len(doc))
        assert all(one == other or one[1] == other[0] for one, other in pairwise(of_row))
    of_row = spans(tok.encode(docs[0], return_offsets="characters"))[0]
    assert all(start >= 5 or stop in (3, 5) or stop < 3 for start, stop in of_row)
    assert "".join(docs[0][start:stop] for start, stop in dict.fromkeys(of_row)) == docs[0]


def test_bytes_outside_characters_are_characters_of_their_own() -> None:
    for name in ("en_nmt_nfkc.model", "en_split.tokenizer.json"):
        tok = Tokenizer.from_file(DATA / name, device="cpu")
        out = tok.encode([b"the\xff\xe3\x81 of"], add_special_tokens=False, return_offsets="bytes")
        assert spans(out)[0][-1][1] == 9
        assert (
            spans(tok.encode([b"the\xff\xe3\x81 of"], add_special_tokens=False, return_offsets="characters"))[0][-1][1]
            == 9
        )


def test_spans_follow_their_rows() -> None:
    tok = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    docs = ["the end", None, "of the world"]
    plain = tok.encode(docs, return_offsets="bytes")
    assert tok.encode(docs).spans is None
    framed = tok.encode(docs, return_offsets="bytes", add_bos=True, add_eos=True, max_length=4, truncation="left")
    rows = [[(0, 0), *row[-2:], (0, 0)] if row else [] for row in spans(plain)]
    assert spans(framed) == rows
    assert spans(framed[1:]) == rows[1:]
    assert spans(framed[::-1]) == rows[::-1]
    assert spans(pickle.loads(pickle.dumps(framed))) == rows
    many = tok.encode(docs * 50_000, return_offsets="bytes")
    assert many.spans is not None
    assert plain.spans is not None
    assert np.array_equal(many.spans, np.tile(plain.spans, (50_000, 1)))
    with pytest.raises(ValueError, match="return_offsets is 'lines'; give 'bytes' or 'characters'"):
        tok.encode(docs, return_offsets="lines")  # type: ignore[arg-type]


def test_a_text_that_spells_the_unknown_piece_is_one_unknown_symbol() -> None:
    ours, tool = hugging_face("t5")
    check_tokenizers(ours, tool, ["<unk>b", "?<unk><a", "<unk>k>b", "a<unk>", "<unk><unk>a"])


def test_pieces_name_what_is_unknown_as_the_tools_do() -> None:
    docs = ["the 漢字 ＦＩend", "", "漢", "the end", None, "a 😀漢 b"]
    given = [doc or "" for doc in docs]
    for name in ("en_nmt_nfkc.model", "en_bpe.model", "ja_bytes.model"):
        tool = sentencepiece.SentencePieceProcessor(model_file=str(DATA / name))
        ours = Tokenizer.from_file(DATA / name, device="cpu")
        expected = [None if doc is None else tool.encode(doc, out_type=str) for doc in docs]
        out = ours.encode(docs)
        assert out.pieces() == expected
        assert out[1:].pieces() == expected[1:]
        assert out[::-2].pieces() == expected[::-2]
    ours = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    out = ours.encode(docs, add_bos=True, max_length=3, truncation="left")
    plain = ours.encode(docs).pieces()
    assert out.pieces() == [row if row is None else ["<s>", *row[-2:]] for row in plain]
    for name in RECIPES:
        ours, tool = hugging_face(name)
        assert ours.encode(given).pieces() == [encoding.tokens for encoding in tool.encode_batch(given)]


def test_samples_name_where_known_pieces_are_between_unknown_symbols_and_the_unknown_name() -> None:
    tok, _ = hugging_face("t5")
    docs = ["漢ab漢", "??<a<unk>漢b<unk><", "?aあb漢字a", "<unk>?<unk>a", "b<漢a>" * 30]
    for unit in ("bytes", "characters"):
        out = tok.sample(docs, alpha=0.0, num_samples=8, seed=2, return_offsets=unit)  # type: ignore[arg-type]
        for row, of_row in enumerate(spans(out)):
            text = docs[row // 8].encode() if unit == "bytes" else docs[row // 8]
            names = [tok.model.vocabulary.names[i] for i in out[row].tolist()]
            # That has the first character's span too.
            rest = slice(names[0] == "▁", None)
            assert [0, *(stop for _, stop in of_row[rest])] == [*(start for start, _ in of_row[rest]), len(text)]
            for name, (start, stop) in zip(names[rest], of_row[rest], strict=True):
                piece = name.removeprefix("▁")
                assert name == "<unk>" or text[start:stop] == (piece.encode() if unit == "bytes" else piece)


@pytest.mark.parametrize("fuses", [False, True])
def test_offsets_are_those_of_tokenizers_where_merges_make_the_unknown_piece(fuses: bool) -> None:
    model = {
        "type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "aba": 4, "ca": 5}, "merges": ["a b", "c a"],
        "unk_token": "ab", "fuse_unk": fuses,
    }  # fmt: skip
    data = json.dumps(tokenizer_file(model=model))
    pair = Tokenizer.from_bytes(data.encode(), device="cpu"), tokenizers.Tokenizer.from_str(data)
    docs = ["ab", "abxcab", "xab", "xyabab", "abb", "abxyab", "xaxbab", "cabxabc", "漢字ab漢", "aab x  abxx"]
    check_tokenizers(*pair, docs)


def test_a_document_whose_bytes_cannot_be_numbered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tok = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    monkeypatch.setattr("gpu_lattice.spans.LARGEST_DOCUMENT", 10)
    assert spans(tok.encode(["ten bytes."] * 3, return_offsets="bytes"))[2][-1][1] == 10
    with pytest.raises(ValueError, match=r"document 1 has 11 bytes; for offsets, the limit is 10, split it"):
        tok.encode(["ten bytes.", "ten bytes.."], return_offsets="bytes")


def test_spans_are_the_same_for_every_kind_of_sample() -> None:
    tok = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    best = tok.encode(["the end"], return_offsets="bytes")
    for nbest_size in (0, 1):
        assert spans(tok.sample(["the end"], nbest_size=nbest_size, return_offsets="bytes")) == spans(best)
    out = tok.sample(["the end"], nbest_size=5, num_samples=4, return_offsets="bytes")
    assert [row[-1][1] for row in spans(out)] == [7] * 4


@pytest.mark.parametrize("file", ["en_split.tokenizer.json", "en_symbols.model", "ja_bytes.model"])
def test_spans_of_code_that_is_not_compiled_are_the_same(file: str) -> None:
    given = ["A new ｶﾞ dawn é <s>", b"a\xffb \xe3\x81 e\xcc\x81"]
    script = (
        f"from gpu_lattice import Tokenizer; tok = Tokenizer.from_file({str(DATA / file)!r}, device='cpu')\n"
        f"print(tok.encode({given}, return_offsets='bytes').spans.tolist())"
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    out = Tokenizer.from_file(DATA / file, device="cpu").encode(given, return_offsets="bytes")
    assert json.loads(done.stdout) == out.spans.tolist()


@pytest.mark.skipif(compiler() is None, reason="no g++: the CUDA sources cannot be built for this machine")
def test_spans_of_the_cuda_backend_are_those_of_the_cpu() -> None:
    cpu = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    cuda = cpu.on(CudaBackend(cpu.model, HostDevice()))
    one, other = (tok.sample(LINES["en"], seed=5, return_offsets="bytes") for tok in (cpu, cuda))
    assert spans(one) == spans(other)
