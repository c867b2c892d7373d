"""rate: each word is resampled with a probability, independently, and else keeps its best segmentation."""

import json
import math
import pickle
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from bpe_files import trained
from brute_force import brute_force, counted, p_value
from by_reference import resampled_ids, words_of
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import DEVICES, on
from situations import situations
from strategies import cases

from gpu_lattice import Tokenizer
from gpu_lattice.backends.cpu import CpuBackend, batch_of
from gpu_lattice.kernels import reference
from gpu_lattice.kernels.cpu import philox
from gpu_lattice.kernels.cpu.bulk.words import find_words
from gpu_lattice.models.hf_tokenizers import read
from gpu_lattice.text_batch import TextBatch

DRAWS = 100_000
LEAST_P = 1e-6
WORDS = {"▁": -2.0, "a": -1.0, "b": -2.0, "ab": -2.5, "▁a": -1.5, "▁ab": -4.0, "ba": -1.2}


def lines(*names: str) -> list[str]:
    return [line for name in names for line in (DATA / f"{name}.txt").read_text("utf-8").split("\n")]


def bpe(name: str, **options: Any) -> Tokenizer:
    return Tokenizer(read(json.dumps(trained(name)).encode(), name), device="cpu", **options)


def word_texts(tokenizer: Tokenizer, text: str) -> list[str]:
    batch = tokenizer._normalize(TextBatch.from_texts([text]))
    bounds = tokenizer._backend.find_words(batch).offsets.tolist()
    return [batch.values[a:b].tobytes().decode() for a, b in pairwise(bounds)]


def mixture(tokenizer: Tokenizer, text: str, pieces: Any, alpha: float, rate: float) -> dict[tuple[int, ...], float]:
    """The probability of every row of ids, by enumeration of the segmentations of each word."""
    rows = {(): 1.0}
    for word in word_texts(tokenizer, text):
        best = tuple(tokenizer.encode(word).tolist()[0])
        every = brute_force(word, pieces, "<unk>" if "<unk>" in pieces else None).probabilities(alpha)
        part = {ids: rate * p + (1 - rate) * (ids == best) for ids, p in every.items()}
        rows = {(*front, *back): p * q for (front, p), (back, q) in product(rows.items(), part.items())}
    return rows


@settings(max_examples=80)
@given(situations(), st.integers(0, 3))
def test_words_are_those_of_the_definition(situation: Any, division: int) -> None:
    backend = CpuBackend(situation.model, 1)
    tokenizer = Tokenizer(situation.model, device="cpu")
    batch, pieces = situation.batch, backend.tables.pieces
    offsets, docs, chunk_ids = find_words(batch_of(batch), pieces, division)
    chunk_offsets, ids = batch.chunks
    expected = []
    for start, stop, i in zip(chunk_offsets[:-1].tolist(), chunk_offsets[1:].tolist(), ids.tolist(), strict=True):
        chunk = batch.values[start:stop].tobytes()
        words = [(0, len(chunk))] if i >= 0 else words_of(tokenizer, chunk, division)
        expected += [(start + a, start + b, i) for a, b in words]
    assert list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), chunk_ids.tolist(), strict=True)) == expected
    assert docs.tolist() == (np.searchsorted(batch.offsets, offsets[:-1], side="right") - 1).tolist()


@settings(max_examples=60)
@given(cases(longest_text=25, always_spelled=True), st.sampled_from([0.0, 0.3, 0.9]))
def test_both_devices_give_the_ids_of_the_definition(case: Any, rate: float) -> None:
    cpu = case.tokenizer()
    options = {"alpha": 0.4, "seed": 2**63 + 5, "num_samples": 3, "rate": rate}
    wanted = resampled_ids(cpu, case.texts, **options)
    assert cpu.sample(case.texts, **options).tolist() == wanted
    assert on("cuda", cpu).sample(case.texts, **options).tolist() == wanted


def test_the_stream_of_coins_is_one_of_its_own() -> None:
    assert philox.COINS == reference.COINS == int.from_bytes(b"WORDCOIN", "big")
    draws = np.array([[reference.uniform(s, p, 0, 0) for s in (7, 7 ^ reference.COINS)] for p in range(4000)])
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.05


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rate", [0.25, 0.9])
@pytest.mark.parametrize(
    ("pieces", "text"),
    [(WORDS, "▁ab▁aba▁▁ba"), ({"a": -1.0, "b": -2.0, "ab": -2.5, "x": -1.0, "<unk>": None}, "abxa?xab")],
)
def test_samples_have_the_enumerated_probabilities_of_the_mixture(
    device: str, rate: float, pieces: Any, text: str
) -> None:
    unk_piece = "<unk>" if "<unk>" in pieces else None
    cpu = Tokenizer.from_pieces(pieces, unk_piece=unk_piece, device="cpu", threads=1)
    wanted = mixture(cpu, text, pieces, 0.5, rate)
    assert math.fsum(wanted.values()) == pytest.approx(1)
    out = on(device, cpu).sample(text, alpha=0.5, rate=rate, num_samples=DRAWS, seed=23, return_log_prob=True)
    assert p_value(counted(out.tolist()), wanted) > LEAST_P
    logs = [math.log(wanted[tuple(row)]) for row in out.tolist()]
    np.testing.assert_allclose(out.log_prob, logs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_log_prob_is_that_of_the_mixture_for_many_documents(device: str) -> None:
    cpu = Tokenizer.from_pieces(WORDS, device="cpu", threads=2)
    texts = ["▁ab▁ba", "", "▁", "▁aab▁b▁ab", "▁abab"]
    options = {"alpha": 0.7, "token_penalty": 0.5, "rate": 0.4, "seed": 9, "num_samples": 4}
    out = on(device, cpu).sample(texts, **options, return_log_prob=True)
    for i_doc, text in enumerate(texts):
        bests = [tuple(cpu.encode(word).tolist()[0]) for word in word_texts(cpu, text)]
        every = [brute_force(word, WORDS).probabilities(0.7, 0.5) for word in word_texts(cpu, text)]
        rows = {(): 0.0}
        for best, one in zip(bests, every, strict=True):
            part = {ids: math.log(0.4 * p + 0.6 * (ids == best)) for ids, p in one.items()}
            rows = {(*front, *back): p + q for (front, p), (back, q) in product(rows.items(), part.items())}
        for k in range(4):
            row = i_doc * 4 + k
            assert out.log_prob[row] == pytest.approx(rows[tuple(out.tolist()[row])], abs=1e-12, rel=1e-12)


@pytest.mark.parametrize("name", ["en_nmt_nfkc.model", "en_suffix.model", "zh_bytes.model", "en_split.tokenizer.json",
                                  "ja_whole.tokenizer.json", "bytepiece.json"])  # fmt: skip
@pytest.mark.parametrize("device", DEVICES)
def test_words_are_as_sampled_or_as_encoded(name: str, device: str) -> None:
    cpu = Tokenizer.from_file(DATA / name, device="cpu", threads=1)
    tokenizer = on(device, cpu)
    texts = [*lines("odd")[:30], *lines("en")[:10], *lines("zh")[:5], "", None]
    sampled = tokenizer.sample(texts, alpha=0.2, seed=4)
    assert tokenizer.sample(texts, alpha=0.2, seed=4, rate=1).tolist() == sampled.tolist()
    assert tokenizer.sample(texts, alpha=0.2, seed=4, rate=0).tolist() == cpu.encode(texts).tolist()
    mixed = tokenizer.sample(texts, alpha=0.2, seed=4, rate=0.5)
    assert mixed.tolist() == cpu.sample(texts, alpha=0.2, seed=4, rate=0.5).tolist()
    assert tokenizer.verify(texts, mixed) is None
    almost = tokenizer.sample(texts, alpha=0.2, seed=4, rate=1 - 1e-15, return_log_prob=True)
    assert almost.tolist() == sampled.tolist()
    plain = tokenizer.sample(texts, alpha=0.2, seed=4, return_log_prob=True)
    np.testing.assert_allclose(almost.log_prob, plain.log_prob, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "gemma", "llama2"])
def test_bpe_words_are_as_sampled_or_canonical(name: str) -> None:
    tokenizer = bpe(name, threads=1)
    texts = [*lines("en")[:15], "  12 apples' don't", "漢字かな 👩", "", None]
    texts = [text for text in texts if text is None or tokenizer.verify([text], tokenizer.encode([text])) is None]
    best, sampled = tokenizer.encode(texts), tokenizer.sample(texts, alpha=0, seed=1)
    assert tokenizer.sample(texts, alpha=0, seed=1, rate=0).tolist() == best.tolist()
    mixed = tokenizer.sample(texts, alpha=0, seed=1, rate=0.2, return_log_prob=True)
    assert tokenizer.verify(texts, mixed) is None
    assert len(best.ids) < len(mixed.ids) < len(sampled.ids)
    if name != "gemma":  # whose words are too few for shares
        assert len(mixed.ids) - len(best.ids) == pytest.approx(0.2 * (len(sampled.ids) - len(best.ids)), rel=0.2)
    assert (mixed.log_prob <= 0).all()


def test_the_words_of_models() -> None:
    def words(tokenizer: Tokenizer, text: str = "The whale, the 2 whales") -> list[str]:
        return word_texts(tokenizer, text)

    assert words(Tokenizer.default(device="cpu")) == ["▁The", "▁whale,", "▁the", "▁2", "▁whales"]
    assert words(Tokenizer.from_file(DATA / "en_suffix.model", device="cpu"))[:3] == ["The▁", "whale,▁", "the▁"]
    assert words(bpe("gpt2")) == ["The", " whale", ",", " the", " 2", " whales"]
    assert words(bpe("llama2")) == ["▁The", "▁whale,", "▁the", "▁2", "▁whales"]
    # Pieces of this one go from word to word.
    assert words(bpe("gemma")) == ["The▁whale,▁the▁", "2▁whales"]
    plain = Tokenizer.from_pieces(["a", "b", "ab", "c"], unk_piece=None, device="cpu")
    assert words(plain, "abcaab") == ["ab", "c", "a", "ab"]
    # A run of unknown text is in one word, with what follows.
    some = Tokenizer.from_pieces(["a", "b", "<unk>"], unk_piece="<unk>", device="cpu")
    assert words(some, "ab??ab") == ["a", "b", "??a", "b"]


def test_coins_depend_on_seed_document_sample_and_position_alone() -> None:
    tokenizer = Tokenizer.default(device="cpu", threads=1)
    texts = lines("en")[:12]
    options = {"alpha": 0.0, "rate": 0.3, "seed": 11}
    out = tokenizer.sample(texts, **options, num_samples=3).tolist()
    assert Tokenizer.default(device="cpu", threads=3).sample(texts, **options, num_samples=3).tolist() == out
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = tokenizer.sample([texts[i] for i in order], **options, doc_ids=order, num_samples=2).tolist()
    assert shuffled == [out[3 * i + k] for i in order for k in range(2)]
    best = tokenizer.encode(texts).tolist()
    assert [row for row in out if row in best] != out
    assert pickle.loads(pickle.dumps(tokenizer)).sample(texts, **options).tolist() == out[::3]
    again = tokenizer.sample(texts, **options, epoch=1).tolist()
    assert again != out[::3]


def test_the_share_of_words_that_are_resampled_is_the_rate() -> None:
    """Uniformly, a word of 30 letters keeps its best segmentation with probability 2^-29."""
    tokenizer = Tokenizer.from_pieces({"▁": -1.0, "a": -1.0} | {"a" * k: -1.0 for k in range(2, 31)}, device="cpu")
    best = tokenizer.encode("▁" + "a" * 30).tolist()[0]
    out = tokenizer.sample(["▁" + "a" * 30] * 20_000, alpha=0.0, rate=0.3, seed=2)
    share = np.mean([row != best for row in out.tolist()])
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 20_000))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rate": -0.1}, ValueError, "rate is -0.1; give the share of words to resample, from 0 to 1"),
        ({"rate": 1.5}, ValueError, "rate is 1.5"),
        ({"rate": math.nan}, ValueError, "rate is nan"),
        ({"rate": "1"}, TypeError, "rate is '1'; give a number"),
        ({"rate": True}, TypeError, "rate is True"),
        ({"rate": 0.5, "nbest_size": 4}, ValueError, "rate is 0.5 with nbest_size 4"),
    ],
)
def test_what_is_no_rate_is_refused_by_name(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Tokenizer.from_pieces(["a"], device="cpu").sample("a", **options)


def test_text_that_cannot_be_spelled_is_an_error_at_any_rate() -> None:
    tokenizer = Tokenizer.from_pieces(["a", "b"], device="cpu")
    for rate in (0.0, 0.5):
        with pytest.raises(ValueError, match=r"document 1 cannot be spelled .* byte 2"):
            tokenizer.sample(["ab", "a?b"], rate=rate)
