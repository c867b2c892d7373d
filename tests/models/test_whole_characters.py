"""characters=True: no path of a byte-level BPE model splits a character that has a piece."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from bpe_files import trained
from brute_force import counted, p_value
from by_reference import sample_ids
from conftest import DATA
from cuda_on_cpu.host_device import HostDevice, compiler

from gpu_lattice import Tokenizer
from gpu_lattice.backends.cuda import CudaBackend

DRAWS = 100_000
LEAST_P = 1e-4
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
DOCS = ["The whale, the naïve WHALE!", "  12 apples'", "漢字かな 👩\u200d🚀, 魑魅", "", "a<|end|>b", "é" * 300]


def data(**parts) -> bytes:
    file = trained("llama3", 2000)
    return json.dumps(file | {"model": file["model"] | parts}).encode()


@pytest.fixture(scope="module")
def tokenizers() -> tuple[Tokenizer, Tokenizer]:
    """Of the same file, characters split and whole."""
    split, whole = (Tokenizer.from_bytes(data(), characters=which, device="cpu", threads=1) for which in (False, True))
    return split, whole


def whole_paths(chunk: bytes, pieces: dict[bytes, int]) -> list[tuple[int, ...]]:
    """All segmentations by bytes but those that split a character with a piece, or do not spell another's bytes."""
    inner, spelled, start = set(), set(), 0
    for character in chunk.decode():
        stop = start + len(character.encode())
        if chunk[start:stop] in pieces:
            inner |= set(range(start + 1, stop))
        else:
            spelled |= set(range(start, stop + 1))
        start = stop

    def paths_from(i: int) -> list[tuple[int, ...]]:
        if i == len(chunk):
            return [()]
        ends = [
            j
            for j in range(i + 1, len(chunk) + 1)
            if chunk[i:j] in pieces and j not in inner and not spelled & set(range(i + 1, j))
        ]
        return [(pieces[chunk[i:j]], *rest) for j in ends for rest in paths_from(j)]

    return paths_from(0)


@pytest.mark.parametrize("text", ["corazón", "日本señores", "thé魑e"])
def test_samples_are_uniform_over_the_segmentations_that_keep_characters_whole(tokenizers, text):
    split, whole = tokenizers
    vocabulary = split.model.vocabulary
    pieces = {vocabulary.surfaces[i]: int(i) for i in np.flatnonzero(vocabulary.in_lattice)}
    assert len(whole.model.normalizer(whole.normalize([text])).chunk_offsets) == 2  # one pre-token
    paths = whole_paths(text.encode(), pieces)
    out = whole.sample(text, alpha=0, num_samples=DRAWS, seed=22, return_log_prob=True)
    assert p_value(counted(out.tolist()), dict.fromkeys(paths, 1 / len(paths))) > LEAST_P
    assert out.log_prob == pytest.approx(-np.log(len(paths)))
    assert list(whole.lattice(text).num_paths()) == [len(paths)]
    assert set(map(tuple, whole.nbest(text, len(paths)).tolist()[0])) == set(paths)
    assert split.lattice(text).num_paths()[0] > len(paths)


def test_what_is_not_drawn_stays_as_it_is(tokenizers):
    split, whole = tokenizers
    docs = [*DOCS, *(DATA / "odd.txt").read_text("utf-8").split("\n"), (DATA / "zh.txt").read_text("utf-8")]
    best, other = split.encode(docs, return_offsets="bytes"), whole.encode(docs, return_offsets="bytes")
    assert other.tolist() == best.tolist()
    np.testing.assert_array_equal(other.spans, best.spans)
    assert whole.decode(best, skip_special_tokens=False) == docs
    assert whole.is_canonical(best).tolist() == split.is_canonical(best).tolist()
    out = whole.sample(docs, alpha=0, num_samples=2, seed=3, return_offsets="bytes")
    assert whole.verify(docs, out) is None
    assert split.decode(out, skip_special_tokens=False) == [doc for doc in docs for _ in range(2)]
    for row in range(len(out)):
        covered = {i for a, b in out.spans[out.offsets[row] : out.offsets[row + 1]] for i in range(a, b)}
        assert covered == set(range(len(docs[row // 2].encode())))
    assert whole.digest != split.digest
    assert pickle.loads(pickle.dumps(whole)).sample(docs, alpha=0, num_samples=2, seed=3).tolist() == out.tolist()


def test_samples_are_the_references_and_those_of_cuda(tokenizers):
    _, whole = tokenizers
    out = whole.sample(DOCS, alpha=0, num_samples=2, seed=5, token_penalty=0.5, return_log_prob=True)
    assert out.tolist() == sample_ids(whole, DOCS, alpha=0, num_samples=2, seed=5, token_penalty=0.5)
    if compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    cuda = whole.on(CudaBackend(whole.model, HostDevice()))
    again = cuda.sample(DOCS, alpha=0, num_samples=2, seed=5, token_penalty=0.5, return_log_prob=True)
    assert again.tolist() == out.tolist()
    np.testing.assert_array_equal(again.log_prob, out.log_prob)
    assert cuda.encode(DOCS).tolist() == whole.encode(DOCS).tolist()


def test_words_that_are_not_resampled_are_canonical(tokenizers):
    split, whole = tokenizers
    assert whole.sample(DOCS, alpha=0, rate=0.0, seed=1).tolist() == split.encode(DOCS).tolist()
    rows = whole.sample("漢字 naïve whale", alpha=0, rate=0.5, num_samples=200, seed=1).tolist()
    assert split.encode("漢字 naïve whale").tolist()[0] in rows
    assert len(set(map(tuple, rows))) > 2


def test_scores_change_the_draws_and_not_the_file(tokenizers, tmp_path):
    split, whole = tokenizers
    scored = whole.rescored({"a": -9.0})
    draws = [tok.sample("abab", alpha=alpha, num_samples=500, seed=1) for tok, alpha in ((whole, 0), (scored, 1))]
    before, after = ((out.ids == whole.piece_to_id("a")).sum() for out in draws)
    assert after < before / 10
    assert scored.encode(DOCS).tolist() == split.encode(DOCS).tolist()
    whole.save(tmp_path / "t.json")
    assert (tmp_path / "t.json").read_bytes() == data()
    with pytest.raises(ValueError, match=r"no file says .* pickle"):
        scored.save(tmp_path / "t.json", as_unigram=True)


def test_a_model_of_characters_is_as_before():
    text = json.dumps(trained("llama2")).encode()
    one, other = (Tokenizer.from_bytes(text, characters=which, device="cpu", threads=1) for which in (False, True))
    assert one.sample(DOCS, alpha=0, seed=0).tolist() == other.sample(DOCS, alpha=0, seed=0).tolist()


def test_what_cannot_hold_is_refused():
    bytepiece = (DATA / "bytepiece.json").read_bytes()
    with pytest.raises(ValueError, match=r"the model scores .* it is for BPE models"):
        Tokenizer.from_bytes(bytepiece, characters=True, device="cpu")
    vocab = {piece: i for piece, i in trained("llama3", 2000)["model"]["vocab"].items() if piece != "Ī"}
    with pytest.raises(ValueError, match="the byte 0x88 has no piece"):
        Tokenizer.from_bytes(data(vocab=vocab, merges=[]), characters=True, device="cpu")
    with pytest.raises(TypeError, match="characters is 1"):
        Tokenizer.from_bytes(data(), characters=1, device="cpu")


def test_a_long_pre_token_is_merged_as_if_characters_were_split() -> None:
    file = json.loads(data())
    bpe = file["model"]
    # The second byte of "é" with the first one.
    bpe["vocab"]["©Ã"] = max(*bpe["vocab"].values(), *(token["id"] for token in file["added_tokens"])) + 1
    bpe["merges"].insert(0, ["©", "Ã"])
    split, whole = (
        Tokenizer.from_bytes(json.dumps(file).encode(), characters=which, device="cpu", threads=1)
        for which in (False, True)
    )
    expected = split.encode(["é" * 20_000]).tolist()
    assert expected[0].count(bpe["vocab"]["©Ã"]) == 19_999
    assert whole.encode(["é" * 20_000]).tolist() == expected


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL, {"type": "FixedLength", "length": 3}]}},
        {"normalizer": {"type": "ByteLevel"}, "pre_tokenizer": {"type": "FixedLength", "length": 3}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}, {"type": "Lowercase"}]},
         "pre_tokenizer": None},
    ],
)  # fmt: skip
def test_a_model_that_divides_or_changes_bytes_cannot_keep_characters_whole(parts: dict[str, object]) -> None:
    file = json.dumps(trained("llama3", 2000) | parts).encode()
    assert Tokenizer.from_bytes(file, device="cpu", threads=1).encode(DOCS)
    with pytest.raises(ValueError, match="make ByteLevel the last of its pre-tokenizers"):
        Tokenizer.from_bytes(file, characters=True, device="cpu")
