"""Tokenizer.rescored: other scores, pieces taken out of the lattice, as if the model's file had been so."""

import json
import math
import pickle
from itertools import pairwise
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
from gpu_lattice.text_batch import TextBatch

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


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_bpe_undoes_the_merges_of_pieces_taken_out_as_sentencepiece_does(share: float) -> None:
    data = (DATA / "en_bpe.model").read_bytes()
    tokenizer = Tokenizer.from_bytes(data, device="cpu")
    names = tokenizer.id_to_piece(range(tokenizer.vocab_size))
    drawn = np.random.default_rng(24).random(len(names)) < share
    gone = {i for i in np.flatnonzero(tokenizer.model.vocabulary.in_lattice & drawn).tolist() if len(names[i]) > 1}
    tool = sentencepiece.SentencePieceProcessor(model_proto=with_unused(data, gone))
    restricted = tokenizer.rescored(dict.fromkeys(gone, -np.inf))
    texts = lines("en", "odd")
    assert restricted.encode(texts).tolist() == tool.encode(texts)
    assert not set(restricted.sample(texts, alpha=0, seed=1).ids.tolist()) & gone


@pytest.mark.parametrize("name", ["gpt2", "llama3", "gemma"])
def test_bpe_is_canonical_but_for_the_pieces_taken_out(name: str) -> None:
    tokenizer = Tokenizer(read(json.dumps(trained(name)).encode(), name), device="cpu", threads=1)
    texts = [
        line
        for line in lines("en")[:40] + lines("zh")[:10]
        if tokenizer.verify([line], tokenizer.encode([line])) is None
    ]
    vocabulary = tokenizer.model.vocabulary
    used = np.bincount(tokenizer.encode(texts).ids, minlength=tokenizer.vocab_size) > 0
    is_long = vocabulary.in_lattice & np.array([len(surface) > 1 for surface in vocabulary.surfaces])
    if vocabulary.symbols == "characters":
        is_long &= np.array([len(surface.decode("utf-8", "ignore")) > 1 for surface in vocabulary.surfaces])
    gone = set(np.flatnonzero(used & is_long)[::3].tolist())
    assert len(gone) > 20
    restricted = tokenizer.rescored(dict.fromkeys(gone, -np.inf))
    out = restricted.encode(texts)
    assert restricted.verify(texts, out) is None
    assert not set(out.ids.tolist()) & gone
    for row, best in zip(out.tolist(), tokenizer.encode(texts).tolist(), strict=True):
        # Only what was taken out is another.
        at = 0
        for i in best:
            size = len(vocabulary.surfaces[i])
            if i in gone:
                while size > 0:
                    size -= len(vocabulary.surfaces[row[at]])
                    at += 1
                assert size == 0
            else:
                assert row[at] == i
                at += 1
    assert restricted.sample(texts, alpha=0, seed=1, rate=0).tolist() == out.tolist()


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


def test_a_symbol_of_bpe_that_is_taken_out_is_an_error_only_where_nothing_is_made_of_it() -> None:
    cpu = Tokenizer(read(json.dumps(trained("gpt2")).encode(), "gpt2"), device="cpu")
    without = cpu.rescored({b"t": -np.inf})
    assert cpu.encode(" that").tolist() == without.encode(" that").tolist()
    for call in (without.encode, without.sample):
        with pytest.raises(ValueError, match="document 1 cannot be spelled"):
            call(["whale", "t!"])


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


def test_rescored_tokenizers_pickle() -> None:
    tokenizer = Tokenizer.default(device="cpu", threads=1)
    pieces = np.flatnonzero(tokenizer.model.vocabulary.in_lattice).tolist()
    gone = [i for i in pieces if len(tokenizer.id_to_piece(i)) == 4]
    other = tokenizer.rescored(dict.fromkeys(gone, -np.inf)).rescored({"▁the": -20.0})
    again = pickle.loads(pickle.dumps(other))
    assert again.digest == other.digest
    assert again.score(range(again.vocab_size)) == other.score(range(other.vocab_size))
    assert again.sample(lines("en"), seed=1).tolist() == other.sample(lines("en"), seed=1).tolist()
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
        (["-1.0"] * 7, TypeError, "give a number for each id"),
        ([True] * 7, TypeError, "give a number for each id"),
        (10**400, TypeError, "give a number for each id"),
        ([[0.0], [0.0, 1.0]], TypeError, "give a number for each id"),
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


def word_bounds(tokenizer: Tokenizer, text: str) -> list[bytes]:
    batch = tokenizer._normalize(TextBatch.from_texts([text]))
    return [batch.values[a:b].tobytes() for a, b in pairwise(tokenizer._backend.find_words(batch).offsets.tolist())]


@pytest.mark.parametrize("device", DEVICES)
def test_words_that_cannot_be_spelled_keep_their_best_segmentation(device: str) -> None:
    pieces = {"▁": -2.0, "a": -1.0, "b": -1.5, "ab": -2.0, "▁ab": -4.0, "▁b": -2.5, "<unk>": None}
    text = "▁abab▁a▁bb▁?ab▁b"
    tokenizer = on(device, Tokenizer.from_pieces(pieces, unk_piece="<unk>", device="cpu"))
    gone = dict.fromkeys(["▁", "a", "b"], -np.inf)
    # Symbols without a piece are unknown, as in the tools, unless words are to be kept.
    assert 6 in tokenizer.rescored(gone).encode(text).tolist()[0]
    least_two = tokenizer.rescored(gone, unspellable="best")
    assert [word.decode() for word in word_bounds(tokenizer, text)] == ["▁abab", "▁a", "▁bb", "▁?ab", "▁b"]
    best = tokenizer.encode(text).tolist()[0]
    assert best == [4, 3, 0, 1, 5, 2, 0, 6, 3, 5]
    assert least_two.encode(text).tolist() == [best]
    other = tokenizer.rescored(gone | {"▁ab": -50.0, "ab": -3.0}, unspellable="best")
    out = other.sample(text, alpha=0.0, num_samples=50, seed=1, return_log_prob=True)
    assert set(map(tuple, out.tolist())) == {tuple(best)}
    assert out.log_prob.tolist() == [0.0] * 50
    assert other.verify(text, out) is None
    assert pickle.loads(pickle.dumps(other)).encode(["b", text]).tolist() == other.encode(["b", text]).tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_the_other_words_are_sampled_as_by_enumeration(device: str, rate: float) -> None:
    pieces = {b"a": None, b"b": None, b"ab": None, b"ba": None, b"c": None}
    left = {piece: None for piece in pieces if piece != b"c"}
    tokenizer = Tokenizer.from_pieces(pieces, device="cpu")
    restricted = on(device, tokenizer).rescored({b"c": -np.inf, b"ab": -0.5}, unspellable="best")
    every = brute_force(b"abab", left | {b"ab": -0.5}).probabilities(1.0)
    best = tuple(restricted.encode(b"abab").tolist()[0])
    mixed = {ids: rate * p + (1 - rate) * (ids == best) for ids, p in every.items()}
    wanted = {(*ids, 4): p for ids, p in mixed.items()}
    options = {"alpha": 1.0, "rate": rate, "num_samples": DRAWS, "seed": 5, "return_log_prob": True}
    out = restricted.sample([b"ababc"], **options)
    assert p_value(counted(out.tolist()), wanted) > LEAST_P
    logs = [math.log(wanted[tuple(row)]) for row in out.tolist()]
    np.testing.assert_allclose(out.log_prob, logs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "llama2", "en_nmt_nfkc.model", "zh_bytes.model", "bytepiece.json"])
def test_a_least_length_of_tokens_keeps_only_the_words_that_need_shorter_ones(name: str) -> None:
    if "." in name:
        tokenizer = Tokenizer.from_file(DATA / name, device="cpu")
    else:
        tokenizer = Tokenizer(read(json.dumps(trained(name)).encode(), name), device="cpu")
    vocabulary = tokenizer.model.vocabulary
    is_short = np.array([len(s.decode("utf-8", "ignore").strip("▁ ")) < 2 for s in vocabulary.surfaces])
    gone = np.flatnonzero(vocabulary.in_lattice & is_short).tolist()
    gone = [i for i in gone if i != vocabulary.unk_id]
    restricted = tokenizer.rescored(dict.fromkeys(gone, -np.inf), unspellable="best")
    texts = [*lines("en")[:20], *lines("zh")[:5], *lines("odd")[:20], None, ""]
    if name == "llama2":
        texts = [text for text in texts if tokenizer.verify([text], tokenizer.encode([text])) is None]
    best = tokenizer.encode(texts)
    out = restricted.sample(texts, alpha=0, seed=3)
    assert restricted.verify(texts, out) is None
    assert restricted.verify(texts, restricted.encode(texts)) is None
    assert restricted.sample(texts, alpha=0, seed=3, rate=0).tolist() == restricted.encode(texts).tolist()
    short = set(gone)
    num_short = [
        sum(i in short for i in some.ids.tolist()) for some in (tokenizer.sample(texts, alpha=0, seed=3), best)
    ]
    assert sum(i in short for i in out.ids.tolist()) <= min(num_short)
    # One text alone, or among others.
    assert restricted.sample(texts[3], alpha=0, seed=3, doc_ids=[3]).tolist() == out.tolist()[3:4]


def test_unspellable_is_raise_or_best() -> None:
    with pytest.raises(ValueError, match="unspellable is 'skip'; give 'raise' or 'best'"):
        Tokenizer.from_pieces(ABC, device="cpu").rescored({}, unspellable="skip")  # type: ignore[arg-type]
