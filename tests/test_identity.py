"""The same tokens everywhere: the definition bit for bit, and any batch, order, thread count, process or part size."""

import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from by_reference import encode_ids, sample_ids
from conftest import DATA, ROOT
from handmade import SYMBOLS, random_hugging_face_file, random_sentencepiece_model, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import EXTREME, Case, cases

from gpu_lattice import TextBatch, Tokenizer
from gpu_lattice.kernels.compiled import Bound

GOLDEN = ROOT / "tests" / "golden" / "samples.json"
MODELS = sorted({entry["model"] for entry in json.loads((DATA / "expected.json").read_text("utf-8"))})
ALPHAS = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])
WORDS = st.integers(0, 2**64 - 1)


def lines(name: str) -> list[str]:
    return (DATA / name).read_bytes().decode().split("\n")


def same(first: Any, second: Any) -> bool:
    return np.array_equal(first.ids, second.ids) and np.array_equal(first.offsets, second.offsets)


@pytest.fixture(scope="module", params=["default", *MODELS])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "default":
        return Tokenizer.default(device="cpu")
    return Tokenizer.from_file(DATA / request.param, device="cpu")


@settings(max_examples=150)
@given(cases(longest_text=24, always_spelled=True), ALPHAS, WORDS, st.lists(WORDS, min_size=4, max_size=4))
def test_samples_of_random_vocabularies_are_those_of_the_definition(
    case: Case, alpha: float, seed: int, doc_ids: list[int]
) -> None:
    tokenizer = case.tokenizer()
    ids = np.array(doc_ids[: len(case.texts)], np.uint64)
    out = tokenizer.sample(case.texts, alpha=alpha, seed=seed, num_samples=3, doc_ids=ids)
    assert out.tolist() == sample_ids(tokenizer, case.texts, alpha=alpha, seed=seed, num_samples=3, doc_ids=ids)


@settings(max_examples=150)
@given(cases(longest_text=24, always_spelled=True))
def test_best_segmentations_of_random_vocabularies_are_those_of_the_definition(case: Case) -> None:
    tokenizer = case.tokenizer()
    assert tokenizer.encode(case.texts).tolist() == encode_ids(tokenizer, case.texts)


@settings(max_examples=250)
@given(cases(longest_text=40, always_spelled=True), st.lists(st.integers(0, 40), min_size=2, max_size=6))
def test_what_was_met_before_does_not_matter_be_it_the_same_text_or_around_it(case: Case, cuts: list[int]) -> None:
    tokenizer = case.tokenizer()
    bounds = [0, *sorted(cuts), 40]
    parts = [text[a:b] for text in case.texts for a, b in pairwise(bounds)]
    for texts in (case.texts, parts, case.texts):
        assert tokenizer.sample(texts, alpha=0.3, seed=5).tolist() == sample_ids(tokenizer, texts, alpha=0.3, seed=5)
        assert tokenizer.encode(texts).tolist() == encode_ids(tokenizer, texts)


def test_a_text_of_bytes_is_divided_as_what_is_around_it_says() -> None:
    """In "aabzy" no cut is known between "aa" and "b", for a piece may be there; a text that ends there has one."""
    tokenizer = Tokenizer.from_pieces([b"a", b"b", b"z", b"y", b"aa", b"abzz"], device="cpu")
    tokenizer.sample([b"aabzy"], seed=1, alpha=0)
    assert tokenizer.sample([b"aab"] * 64, seed=1, alpha=0).tolist() == sample_ids(
        tokenizer, [b"aab"] * 64, seed=1, alpha=0
    )


def some_lines(text: str) -> list[str]:
    """A few short ones: the definition is slow."""
    return [line[:60] for line in lines(text)[:20:7]] if text != "odd.txt" else [line[:40] for line in lines(text)]


@pytest.mark.parametrize("text", ["en.txt", "ja.txt", "zh.txt", "odd.txt"])
def test_real_models_give_the_ids_of_the_definition(tokenizer: Tokenizer, text: str) -> None:
    if tokenizer.vocab_size > 4000:
        pytest.skip("the definition looks at every piece of a vocabulary at every position")
    texts = some_lines(text)
    assert tokenizer.encode(texts).tolist() == encode_ids(tokenizer, texts)
    out = tokenizer.sample(texts, alpha=0.3, seed=5, num_samples=2)
    assert out.tolist() == sample_ids(tokenizer, texts, alpha=0.3, seed=5, num_samples=2)


@pytest.mark.parametrize(("pieces", "text", "alpha"), EXTREME)
def test_scores_far_beyond_float64_give_the_ids_of_the_definition(pieces, text, alpha: float) -> None:
    tokenizer = Tokenizer.from_pieces(pieces, unk_piece="<unk>" if "<unk>" in pieces else None, device="cpu")
    out = tokenizer.sample([text], alpha=alpha, seed=11, num_samples=2)
    assert out.tolist() == sample_ids(tokenizer, [text], alpha=alpha, seed=11, num_samples=2)
    assert tokenizer.decode(out) == [tokenizer.decode(row) for row in out.tolist()]


@pytest.mark.parametrize("scale", [1.0, 3e4, 2e5])
def test_float32_sums_with_resets_are_those_of_the_definition(scale: float) -> None:
    """SentencePiece subtracts a start's score that leaves 1e5; rounding then depends on the order of every sum."""
    model = Tokenizer.from_file(DATA / "en_suffix.model", device="cpu")._model
    vocabulary = replace(
        model.vocabulary,
        best_scores=model.vocabulary.best_scores * np.float32(scale),
        best_unk_score=float(np.float32(model.vocabulary.best_unk_score * scale)),
    )
    scaled = Tokenizer(replace(model, vocabulary=vocabulary), device="cpu")
    texts = [" ".join(lines("en.txt")[:6]), "." * 150, "-" * 40 + "?" * 30 + "-" * 40]
    assert scaled.encode(texts).tolist() == encode_ids(scaled, texts)


def texts_of(tokenizer: Tokenizer) -> list[str]:
    return [*lines("odd.txt"), *lines("en.txt"), *lines("ja.txt"), *lines("zh.txt")]


def test_batches_order_and_splits_do_not_matter(tokenizer: Tokenizer) -> None:
    texts = texts_of(tokenizer)
    ids = np.arange(len(texts), dtype=np.int64) * 7 + 2**40
    whole = tokenizer.sample(texts, seed=1, doc_ids=ids, num_samples=2, return_log_prob=True)
    rows = whole.tolist()
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = tokenizer.sample([texts[i] for i in order], seed=1, doc_ids=ids[order], num_samples=2).tolist()
    assert shuffled == [rows[2 * i + k] for i in order for k in (0, 1)]
    for size in (1, 50):
        split = []
        log_prob = []
        for i in range(0, len(texts), size):
            out = tokenizer.sample(
                texts[i : i + size], seed=1, doc_ids=ids[i : i + size], num_samples=2, return_log_prob=True
            )
            split += out.tolist()
            log_prob += out.log_prob.tolist()
        assert split == rows
        assert log_prob == whole.log_prob.tolist()
    encoded = tokenizer.encode(texts).tolist()
    assert [tokenizer.encode(text).tolist()[0] for text in texts] == encoded


def test_sample_k_is_the_same_however_many_are_drawn(tokenizer: Tokenizer) -> None:
    texts = texts_of(tokenizer)[:60]
    many = tokenizer.sample(texts, seed=2, num_samples=7).tolist()
    for few in (1, 3):
        rows = tokenizer.sample(texts, seed=2, num_samples=few).tolist()
        assert rows == [many[7 * i + k] for i in range(len(texts)) for k in range(few)]


def test_default_doc_ids_count_from_zero(tokenizer: Tokenizer) -> None:
    texts = texts_of(tokenizer)[:40]
    assert same(tokenizer.sample(texts, seed=3), tokenizer.sample(texts, seed=3, doc_ids=list(range(40))))


@pytest.fixture(scope="module")
def half_megabyte() -> list[str]:
    """Documents of a few bytes and one of 300 KB, over several ranges of work."""
    text = "\n".join(lines("en.txt") + lines("ja.txt") + lines("zh.txt"))
    words = [f"{text[i % len(text) :][:40]}{i}" for i in range(6000)]
    return [*words, "".join(words)[:120_000], *words[:100]]


@pytest.mark.parametrize("name", ["en_nmt_nfkc.model", "bytepiece.json", "ja_whole.tokenizer.json"])
def test_threads_do_not_matter(name: str, half_megabyte: list[str]) -> None:
    one = Tokenizer.from_file(DATA / name, device="cpu", threads=1)
    sampled = one.sample(half_megabyte, seed=4, return_log_prob=True)
    encoded = one.encode(half_megabyte)
    for threads in (2, 4):
        many = Tokenizer.from_file(DATA / name, device="cpu", threads=threads)
        out = many.sample(half_megabyte, seed=4, return_log_prob=True)
        assert same(out, sampled)
        assert np.array_equal(out.log_prob, sampled.log_prob)
        assert same(many.encode(half_megabyte), encoded)


def test_concurrent_calls_do_not_disturb_each_other(half_megabyte: list[str]) -> None:
    tokenizer = Tokenizer.default(device="cpu", threads=2)
    texts = half_megabyte[:2000]
    expected = [tokenizer.sample(texts, seed=seed, alpha=0.1 * seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        got = list(pool.map(lambda seed: tokenizer.sample(texts, seed=seed, alpha=0.1 * seed), range(6)))
    assert all(map(same, got, expected))


def test_calls_before_do_not_matter(tokenizer: Tokenizer) -> None:
    texts = texts_of(tokenizer)[:30]
    first = tokenizer.sample(texts, seed=9, alpha=0.2)
    for alpha in (0.0, 0.5, 1.0):
        tokenizer.sample(texts[::-1], seed=1, alpha=alpha, num_samples=3)
    assert same(tokenizer.sample(texts, seed=9, alpha=0.2), first)


@pytest.mark.parametrize("part_bytes", [1, 64])
def test_part_size_does_not_matter(tokenizer: Tokenizer, part_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*texts_of(tokenizer), "\n".join(lines("en.txt")), "".join(lines("ja.txt")), "".join(lines("odd.txt"))]
    whole = tokenizer.sample(texts, seed=6, num_samples=2, return_log_prob=True)
    monkeypatch.setattr("gpu_lattice.backends.cpu.PART_BYTES", part_bytes)
    parts = tokenizer.sample(texts, seed=6, num_samples=2, return_log_prob=True)
    assert same(parts, whole)
    assert parts.log_prob == pytest.approx(whole.log_prob, rel=1e-12, abs=1e-10)


@settings(max_examples=60)
@given(cases(longest_text=40, always_spelled=True), st.integers(1, 8))
def test_part_size_does_not_matter_to_random_vocabularies(case: Case, part_bytes: int) -> None:
    tokenizer = case.tokenizer()
    whole = tokenizer.sample(case.texts, seed=6, num_samples=2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("gpu_lattice.backends.cpu.PART_BYTES", part_bytes)
        assert same(tokenizer.sample(case.texts, seed=6, num_samples=2), whole)


@pytest.mark.parametrize("seed", range(12))
def test_random_models_of_the_tools_sample_as_the_definition_does_in_parts_of_any_size(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = random.Random(seed)
    if seed % 2:
        data = random_sentencepiece_model(generator, byte_fallback=seed % 3 == 0)
    else:
        data = random_hugging_face_file(generator, "<u>" if seed % 4 else "u", byte_fallback=seed % 3 == 0)
    tokenizer = tokenizer_of(data, tmp_path)
    symbols = [*SYMBOLS, "?", "u", ">", "😀", "<u>"]
    texts = ["".join(generator.choices(symbols, k=generator.randint(0, 30))) for _ in range(60)]
    expected = sample_ids(tokenizer, texts, alpha=0.3, seed=seed)
    assert tokenizer.sample(texts, alpha=0.3, seed=seed).tolist() == expected
    for part_bytes in (1, 5):
        monkeypatch.setattr("gpu_lattice.backends.cpu.PART_BYTES", part_bytes)
        assert tokenizer.sample(texts, alpha=0.3, seed=seed).tolist() == expected, part_bytes


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_looked_at_once_has_the_same_types_in_every_call(
    threads: int, half_megabyte: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    types: dict[Bound, Any] = {}
    call = Bound.__call__

    def checked(bound: Bound, *args: Any) -> Any:
        found = bound.types_of(args)
        assert types.setdefault(bound, found) == found
        return call(bound, *args)

    monkeypatch.setattr(Bound, "__call__", checked)
    few = ["some words", "", "語 and ①"]
    for name in ("en_nmt_nfkc.model", "zh_bytes.model", "bytepiece.json", "ja_whole.tokenizer.json",
                 "en_split.tokenizer.json"):  # fmt: skip
        tokenizer = Tokenizer.from_file(DATA / name, device="cpu", threads=threads)
        forms = ["text", few, iter(few), pa.array(few).slice(1), [b"a", None], np.array(few), [], half_megabyte]
        for texts in map(TextBatch.from_texts, forms):
            tokenizer.encode(texts)
            tokenizer.encode(texts, return_offsets="bytes")
            tokenizer.sample(texts, return_log_prob=True, doc_ids=range(len(texts)))
            tokenizer.sample(texts, num_samples=2, seed=2**64 - 1)
        tokenizer.sample(few, rate=0.5)
    assert len(types) > 6


def test_log_prob_does_not_change_the_ids(tokenizer: Tokenizer) -> None:
    texts = texts_of(tokenizer)[:50]
    assert same(tokenizer.sample(texts, seed=7), tokenizer.sample(texts, seed=7, return_log_prob=True))


def test_different_seeds_ids_and_samples_give_different_rows() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    text = " ".join(lines("en.txt"))[:500]
    rows = [
        *tokenizer.sample(text, seed=0, num_samples=3).tolist(),
        *tokenizer.sample(text, seed=1).tolist(),
        *tokenizer.sample(text, seed=2**63).tolist(),
        *tokenizer.sample([text] * 2, seed=0, doc_ids=[1, 2**62]).tolist(),
    ]
    assert len(set(map(tuple, rows))) == 7


def test_a_list_of_doc_ids_may_mix_negative_ones_with_the_greatest() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    texts = ["a new dawn"] * 3
    mixed = tokenizer.sample(texts, doc_ids=[-1, 5, 2**63 + 1], seed=0).tolist()
    bits = np.array([2**64 - 1, 5, 2**63 + 1], np.uint64)
    assert mixed == tokenizer.sample(texts, doc_ids=bits, seed=0).tolist()


def test_negative_doc_ids_are_their_64_bits() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    assert same(
        tokenizer.sample("a new dawn", doc_ids=np.array([-1]), seed=0),
        tokenizer.sample("a new dawn", doc_ids=np.array([2**64 - 1], np.uint64), seed=0),
    )


def test_a_pickled_tokenizer_gives_the_same_ids(tokenizer: Tokenizer) -> None:
    texts = texts_of(tokenizer)[:40]
    other = pickle.loads(pickle.dumps(tokenizer))
    assert same(other.sample(texts, seed=8), tokenizer.sample(texts, seed=8))
    assert same(other.encode(texts), tokenizer.encode(texts))


@pytest.mark.parametrize("pieces", [{"a": -1.0, "ab": None, "b": -2.0}, {b"a": -1.0, b"b": None}, ["a", "b"]])
def test_a_pickled_tokenizer_of_pieces_gives_the_same_ids(pieces: Any) -> None:
    tokenizer = Tokenizer.from_pieces(pieces, device="cpu", threads=2)
    other = pickle.loads(pickle.dumps(tokenizer))
    assert repr(other) == repr(tokenizer)
    assert same(other.sample("abba" * 9, seed=8), tokenizer.sample("abba" * 9, seed=8))


IN_ANOTHER_PROCESS = """
import hashlib, sys
from gpu_lattice import Tokenizer
tokenizer = Tokenizer.default(device="cpu", threads=2)
texts = open(sys.argv[1], encoding="utf-8", newline="").read().split("\\n")
out = tokenizer.sample(texts, seed=10, alpha=0.2, num_samples=2, return_log_prob=True)
print(hashlib.sha256(out.ids.tobytes() + out.offsets.tobytes() + out.log_prob.tobytes()).hexdigest())
"""


def test_other_processes_give_the_same_ids() -> None:
    digests = set()
    for hash_seed in ("0", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS, str(DATA / "ja.txt")],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(done.stdout.strip())
    out = Tokenizer.default(device="cpu", threads=1).sample(
        lines("ja.txt"), seed=10, alpha=0.2, num_samples=2, return_log_prob=True
    )
    assert digests == {hashlib.sha256(out.ids.tobytes() + out.offsets.tobytes() + out.log_prob.tobytes()).hexdigest()}


def test_bytes_str_and_arrow_forms_of_a_text_give_the_same_ids(tokenizer: Tokenizer) -> None:
    texts = texts_of(tokenizer)[:40]
    batch = TextBatch.from_texts(texts)
    assert same(tokenizer.sample([text.encode() for text in texts], seed=1), tokenizer.sample(batch, seed=1))
    assert same(tokenizer.sample(texts, seed=1), tokenizer.sample(batch, seed=1))


GOLDEN_CASES = json.loads(GOLDEN.read_text("utf-8"))["cases"]


@pytest.mark.parametrize("case", GOLDEN_CASES, ids=lambda case: f"{case['model']}-{case['text']}-{case['alpha']}")
def test_ids_are_those_of_the_golden_file(case: dict[str, Any]) -> None:
    """Written by tools/make_golden.py, once: whoever changes it changes what every user's seeds give."""
    tokenizer = Tokenizer.from_file(DATA / case["model"], device="cpu")
    texts = lines(case["text"])
    out = tokenizer.sample(texts, alpha=case["alpha"], seed=case["seed"], num_samples=case["num_samples"])
    assert out.tolist()[: len(case["first_rows"])] == case["first_rows"]
    assert [len(out), len(out.ids)] == [case["rows"], case["tokens"]]
    digest = hashlib.sha256(out.ids.astype("<i4").tobytes() + out.offsets.astype("<i8").tobytes()).hexdigest()
    assert digest == case["sha256"]
