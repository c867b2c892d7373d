"""Tokenizer.rescored: other scores, pieces taken out of the lattice, as if the model's file had been so."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import sentencepiece_files as sp
from bpe_files import trained
from brute_force import brute_force, counted, p_value
from conftest import DATA
from handmade import field
from hf_files import _varint, tokenizer_file
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import DEVICES, on
from strategies import SCORES, Case, cases
from tokenizers import Tokenizer as Tool

from gpu_lattice import Tokenizer
from gpu_lattice.models.hf_tokenizers import read

DRAWS = 100_000
LEAST_P = 1e-6
ABC = {"a": -1.0, "b": -2.0, "c": -1.5, "ab": -2.5, "bc": -2.0, "abc": -4.0}


def lines(*names: str) -> list[str]:
    return [line for name in names for line in (DATA / f"{name}.txt").read_text("utf-8").split("\n")]


def scores_of(tokenizer: Tokenizer) -> Any:
    return np.array(tokenizer.score(range(tokenizer.vocab_size)))


@settings(max_examples=40)
@given(cases(), st.data())
def test_other_scores_are_those_of_a_tokenizer_made_with_them(case: Case, data: st.DataObject) -> None:
    other = {piece: data.draw(SCORES) for piece in case.pieces}
    tokenizer = case.tokenizer().rescored({p: s or 0.0 for p, s in other.items() if p != case.unk_piece})
    made = Case(other, case.unk_piece, case.texts).tokenizer()
    for text in case.texts:
        if not brute_force(text, other, case.unk_piece).ids:
            with pytest.raises(ValueError, match="cannot be spelled"):
                tokenizer.encode(text)
            continue
        assert tokenizer.encode(text).tolist() == made.encode(text).tolist()
        drawn, wanted = (
            t.sample(text, alpha=0.7, num_samples=4, seed=2, return_log_prob=True) for t in (tokenizer, made)
        )
        assert drawn.tolist() == wanted.tolist()
        assert drawn.log_prob.tolist() == wanted.log_prob.tolist()


@pytest.mark.parametrize("device", DEVICES)
def test_without_a_piece_the_rest_is_sampled_as_by_enumeration(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces(ABC, device="cpu")).rescored({"bc": -np.inf})
    left = {piece: score for piece, score in ABC.items() if piece != "bc"}
    ids = [list(ABC).index(piece) for piece in left]
    every = brute_force("abcbcab", left)
    wanted = {tuple(ids[i] for i in row): p for row, p in every.probabilities(0.6).items()}
    out = tokenizer.sample("abcbcab", alpha=0.6, num_samples=DRAWS, seed=3, return_log_prob=True)
    assert p_value(counted(out.tolist()), wanted) > LEAST_P
    assert out.log_prob[:50] == pytest.approx([math.log(wanted[tuple(row)]) for row in out.tolist()[:50]], abs=1e-12)
    lattice = tokenizer.lattice("abcbcab")
    assert lattice.log_partition(0.6).tolist() == pytest.approx([every.log_z(0.6)], abs=1e-12)
    assert tokenizer.nbest("abcbcab", 1).tolist()[0] == tokenizer.encode("abcbcab").tolist()
    assert not any(list(ABC).index("bc") in row for row in tokenizer.nbest("abcbcab", 100).tolist()[0])


@pytest.mark.parametrize("name", ["en_nmt_nfkc.model", "ja_bytes.model", "en_split.tokenizer.json", "bytepiece.json"])
def test_the_models_own_scores_change_nothing(name: str) -> None:
    tokenizer = Tokenizer.from_file(DATA / name, device="cpu")
    same = tokenizer.rescored(scores_of(tokenizer))
    texts = lines("odd", "ja")[:60]
    assert same.encode(texts).tolist() == tokenizer.encode(texts).tolist()
    draws = [t.sample(texts, alpha=0.3, seed=5, return_log_prob=True) for t in (same, tokenizer)]
    assert draws[0].tolist() == draws[1].tolist()
    assert draws[0].log_prob.tolist() == draws[1].log_prob.tolist()


def with_unused(model: bytes, unused: set[int]) -> bytes:
    """A SentencePiece file in which these pieces are unused, which is what the tool's SetVocabulary makes of them."""
    out, at, i_piece = b"", 0, 0
    while at < len(model):
        key, start = _varint(model, at)
        size, start = _varint(model, start)
        message = model[start : start + size]
        if key == 1 << 3 | 2:
            message += field(3, sp.UNUSED) if i_piece in unused else b""
            i_piece += 1
        out += field(key >> 3, message)
        at = start + size
    return out


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_restricted_vocabulary_is_that_of_sentencepiece(share: float) -> None:
    data = (DATA / "en_nmt_nfkc.model").read_bytes()
    tokenizer = Tokenizer.from_bytes(data, device="cpu")
    scores, names = scores_of(tokenizer), tokenizer.id_to_piece(range(tokenizer.vocab_size))
    is_piece = tokenizer.model.vocabulary.in_lattice & (scores > scores.min())
    drawn = np.random.default_rng(23).random(len(names)) < share
    gone = {int(i) for i in np.flatnonzero(is_piece & drawn) if len(names[i]) > 1}
    tool = sentencepiece.SentencePieceProcessor(model_proto=with_unused(data, gone))
    restricted = tokenizer.rescored(dict.fromkeys(gone, -np.inf))
    texts = lines("en", "odd")
    assert restricted.encode(texts).tolist() == tool.encode(texts)
    assert not set(restricted.sample(texts, alpha=0.2, seed=1).ids.tolist()) & gone


def test_rescored_is_the_file_with_these_scores() -> None:
    """A file of sentencepiece, whose unknown arcs depend on the lowest score in float32."""

    def made(*scores: float) -> Tokenizer:
        pieces = [sp.piece(text, score) for text, score in zip(["▁", "a", "b", "ab", "b▁"], scores, strict=True)]
        return Tokenizer.from_bytes(sp.model_bytes(sp.UNK, *pieces), device="cpu")

    new = [float(np.float32(x)) for x in (-1.1, -2.3, -0.7, -3.9, -3.3)]
    rescored = made(-1.0, -1.0, -1.0, -1.0, -1.0).rescored([0.0, *new])
    wanted = made(*new)
    for name in ("unk_score", "best_unk_score"):
        assert getattr(rescored.model.vocabulary, name) == getattr(wanted.model.vocabulary, name)
    texts = ["ab ab bab", "abxyb a"]
    assert rescored.encode(texts).tolist() == wanted.encode(texts).tolist()
    assert rescored.sample(texts, seed=1).tolist() == wanted.sample(texts, seed=1).tolist()


def test_a_tokenizer_json_is_rescored_as_by_its_tool() -> None:
    vocab = [["<unk>", 0.0], ["▁", -2.0], ["a", -1.5], ["b", -2.5], ["ab", -3.0], ["▁a", -2.25]]
    other = [[piece, score - 1.0 - i % 3] for i, (piece, score) in enumerate(vocab)]
    files = [tokenizer_file(model={"type": "Unigram", "unk_id": 0, "vocab": some}) for some in (vocab, other)]
    tokenizer = Tokenizer(read(json.dumps(files[0]).encode(), "t.json"), device="cpu")
    rescored, tool = tokenizer.rescored(dict(other[1:])), Tool.from_str(json.dumps(files[1]))
    texts = ["abaab", "▁ab▁a", "axb▁yyab", "<unk>ab"]
    assert rescored.encode(texts).tolist() == [tool.encode(text).ids for text in texts]


@pytest.mark.parametrize("name", ["gpt2", "llama3", "gemma"])
def test_bpe_encodes_as_its_tool_without_the_pieces_taken_out(name: str) -> None:
    file = trained(name)
    vocab, merges = file["model"]["vocab"], file["model"]["merges"]
    tokenizer = Tokenizer(read(json.dumps(file).encode(), name), device="cpu")
    texts = lines("en")[:40] + lines("zh")[:10]
    used = np.bincount(tokenizer.encode(texts).ids, minlength=tokenizer.vocab_size) > 0
    names = tokenizer.id_to_piece(range(tokenizer.vocab_size))
    is_long = [used[i] and len(names[i].strip("▁Ġ")) > 1 and not names[i].startswith("<") for i in range(len(names))]
    gone = {names[i] for i in np.flatnonzero(is_long)[::3]}
    assert len(gone) > 20
    file["model"] = file["model"] | {
        "vocab": {piece: i for piece, i in vocab.items() if piece not in gone},
        "merges": [(a, b) for a, b in merges if not gone & {a, b, a + b}],
    }
    tool = Tool.from_str(json.dumps(file))
    restricted = tokenizer.rescored(dict.fromkeys(gone, -np.inf))
    assert restricted.encode(texts).tolist() == [tool.encode(text).ids for text in texts]
    drawn = restricted.sample(texts, alpha=0, seed=4)
    assert not {names[i] for i in drawn.ids.tolist()} & gone
    assert restricted.verify(texts, drawn) is None


@pytest.mark.parametrize("device", DEVICES)
def test_bpe_samples_by_its_new_scores_and_stays_canonical(device: str) -> None:
    cpu = Tokenizer(read(json.dumps(trained("llama3")).encode(), "llama3"), device="cpu")
    ids = np.flatnonzero(cpu.model.vocabulary.in_lattice)
    surfaces = cpu.model.vocabulary.surfaces
    scores = -3.0 - np.random.default_rng(4).random(cpu.vocab_size)
    rescored = cpu.rescored(scores)
    assert rescored.encode(lines("en")).tolist() == cpu.encode(lines("en")).tolist()
    every = brute_force(b"whale", {surfaces[i]: scores[i] for i in ids}).probabilities(0.5)
    wanted = {tuple(int(ids[i]) for i in row): p for row, p in every.items()}
    out = on(device, cpu).rescored(scores).sample("whale", alpha=0.5, num_samples=DRAWS, seed=3)
    assert p_value(counted(out.tolist()), wanted) > LEAST_P


def test_a_symbol_of_bpe_that_is_taken_out_is_an_error_and_not_dropped() -> None:
    cpu = Tokenizer(read(json.dumps(trained("gpt2")).encode(), "gpt2"), device="cpu")
    without = cpu.rescored({b"q": -np.inf})
    assert without.encode("whale").tolist() == cpu.encode("whale").tolist()
    for call in (without.encode, without.sample):
        with pytest.raises(ValueError, match="document 1 cannot be spelled"):
            call(["whale", "q!"])


def test_pieces_come_back_and_later_calls_build_on_earlier_ones() -> None:
    tokenizer = Tokenizer.from_pieces(ABC | {"<unk>": None}, unk_piece="<unk>", device="cpu")
    once = tokenizer.rescored({"abc": -math.inf, b"ab": -1.0})
    assert once.score([3, 5]) == [-1.0, -math.inf]
    twice = once.rescored({5: -0.5})
    assert twice.score([3, 5]) == [-1.0, -0.5]
    assert twice.encode("abc").tolist() == [[5]]
    assert once.encode("abc").tolist() == [[3, 2]]
    # The same scores by another way are the same tokenizer.
    assert tokenizer.rescored({"ab": -1.0, "abc": -0.5}).digest == twice.digest != tokenizer.digest
    # Unknown text has the lowest score - 10, of those taken out as before.
    assert tokenizer.rescored({"b": -math.inf}).model.vocabulary.unk_score == -14.0
    assert tokenizer.rescored({"b": -math.inf, "abc": -1.0}).model.vocabulary.unk_score == -12.5


def test_rescored_tokenizers_pickle(tmp_path: Path) -> None:
    tokenizer = Tokenizer.default(device="cpu", threads=1)
    pieces = np.flatnonzero(tokenizer.model.vocabulary.in_lattice).tolist()
    gone = [i for i in pieces if len(tokenizer.id_to_piece(i)) == 4]
    other = tokenizer.rescored(dict.fromkeys(gone, -np.inf)).rescored({"▁the": -20.0})
    again = pickle.loads(pickle.dumps(other))
    assert again.digest == other.digest
    assert again.score(range(again.vocab_size)) == other.score(range(other.vocab_size))
    assert again.sample(lines("en"), seed=1).tolist() == other.sample(lines("en"), seed=1).tolist()
    with pytest.raises(ValueError, match="not made from a file"):
        other.save(tmp_path / "x.model")
    assert again.decode(again.encode(["the whale"])) == ["the whale"]


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        ({"a": math.nan}, ValueError, r"the score of 'a' \(id 0\) is nan"),
        ({"a": math.inf}, ValueError, r"the score of 'a' \(id 0\) is inf"),
        ({"a": 10**400}, ValueError, r"the score of 'a' \(id 0\) is inf"),
        ({"a": 1e300}, ValueError, "at most 1e\\+298"),
        ({"x": -1.0}, ValueError, "'x' is no piece"),
        ({b"x": -1.0}, ValueError, "b'x' is no piece"),
        ({7: -1.0}, ValueError, "the id of a piece is 7"),
        ({1.5: -1.0}, TypeError, "the id of a piece is 1.5"),
        ({"<unk>": -1.0}, ValueError, "'<unk>' is no piece that text is made of"),
        ({"a": "x"}, TypeError, "the score of 'a' is 'x'"),
        ({"a": None}, TypeError, "the score of 'a' is None"),
        ([0.0], ValueError, r"the shape \[1\]; give \[7\]"),
        ("abcdefg", TypeError, "give a number for each id"),
        (np.full(7, np.nan), ValueError, "is nan"),
    ],
)
def test_what_is_no_score_is_refused_by_name(scores: Any, error: type[Exception], message: str) -> None:
    tokenizer = Tokenizer.from_pieces(ABC | {"<unk>": None}, unk_piece="<unk>", device="cpu")
    with pytest.raises(error, match=message):
        tokenizer.rescored(scores)


def test_scores_that_float32_cannot_hold_are_refused_where_the_tool_sums_in_it() -> None:
    tokenizer = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    with pytest.raises(ValueError, match=r"is -1e\+50; give a finite number of at most 3\.4"):
        tokenizer.rescored({"▁the": -1e50})


def test_without_any_piece_all_text_is_unknown() -> None:
    tokenizer = Tokenizer.from_pieces({"a": -1.0, "<unk>": None}, unk_piece="<unk>", device="cpu")
    none = tokenizer.rescored({"a": -np.inf})
    assert none.encode("aab").tolist() == none.sample("aab", seed=1).tolist() == [[1]]
