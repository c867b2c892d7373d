"""Statistics of texts are those of their lattices, whatever the threads, ranges and devices."""

import math
from typing import Any

import numpy as np
import pytest
from brute_force import brute_force
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lattices import on_host_build
from strategies import EXTREME, Case, cases

from gpu_lattice import Tokenizer, statistics
from gpu_lattice.runtime import threads

RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
ALPHAS = st.sampled_from([0.0, 0.1, 1.0, 2.5])
TEXT = "the quick brown fox, 日本語のテスト and 123456 émigrés ??? " * 3


def lines(n: int) -> list[str]:
    return [f"line {i % 97} of {n}: {TEXT[i % 50 :]}" for i in range(n)]


@RELAXED
@given(cases(), ALPHAS)
def test_every_statistic_equals_the_brute_force(case: Case, alpha: float) -> None:
    tokenizer = case.tokenizer()
    truths = [brute_force(text, case.pieces, case.unk_piece) for text in case.texts]
    out = tokenizer.token_statistics(case.texts, alpha=alpha)
    counts = np.zeros(len(case.pieces))
    for i_doc, truth in enumerate(truths):
        if not truth.ids:
            assert out.log_partition[i_doc] == -math.inf
            assert out.entropy[i_doc] == out.num_tokens[i_doc] == 0.0
            continue
        log_probs = truth.log_probs(alpha)
        assert out.log_partition[i_doc] == pytest.approx(truth.log_z(alpha), rel=1e-12, abs=1e-12)
        entropy = -math.fsum(math.exp(p) * p for p in log_probs)
        assert out.entropy[i_doc] == pytest.approx(entropy, rel=1e-12, abs=1e-12)
        if case.unk_piece is None:
            mean = math.fsum(math.exp(p) * len(ids) for ids, p in zip(truth.ids, log_probs, strict=True))
            assert out.num_tokens[i_doc] == pytest.approx(mean, rel=1e-12)
            for ids, p in zip(truth.ids, log_probs, strict=True):
                np.add.at(counts, list(ids), math.exp(p))
    if not all(truth.ids for truth in truths):
        with pytest.raises(ValueError, match="cannot be spelled"):
            tokenizer.expected_counts(case.texts, alpha=alpha)
    elif case.unk_piece is None:
        np.testing.assert_allclose(tokenizer.expected_counts(case.texts, alpha=alpha), counts, 1e-12, 1e-12)


@RELAXED
@given(cases(longest_text=40, always_spelled=True), ALPHAS)
def test_every_statistic_equals_the_lattices(case: Case, alpha: float) -> None:
    tokenizer = case.tokenizer()
    lattice = tokenizer.lattice(case.texts)
    out = tokenizer.token_statistics(case.texts, alpha=alpha)
    np.testing.assert_allclose(out.log_partition, lattice.log_partition(alpha), 1e-12, 1e-12)
    np.testing.assert_allclose(out.entropy, lattice.entropy(alpha), 1e-12, 1e-12)
    if np.isfinite(out.log_partition).all():
        expected = lattice.expected_counts(alpha)
        np.testing.assert_allclose(tokenizer.expected_counts(case.texts, alpha=alpha), expected, 1e-12, 1e-12)


@pytest.mark.parametrize(("pieces", "text", "alpha"), EXTREME)
def test_scores_beyond_float64s_range(pieces: Any, text: Any, alpha: float) -> None:
    unk_piece = "<unk>" if "<unk>" in pieces else None
    tokenizer = Tokenizer.from_pieces(pieces, unk_piece=unk_piece, device="cpu")
    lattice = tokenizer.lattice([text])
    np.testing.assert_allclose(tokenizer.log_partition([text], alpha=alpha), lattice.log_partition(alpha), 1e-13)
    np.testing.assert_allclose(tokenizer.entropy([text], alpha=alpha), lattice.entropy(alpha), 1e-11, 1e-11)
    counts = tokenizer.expected_counts([text], alpha=alpha)
    np.testing.assert_allclose(counts, lattice.expected_counts(alpha), 1e-11, 1e-11)


def test_sums_are_the_same_for_any_number_of_threads_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "RANGE_BYTES", 1 << 13)
    monkeypatch.setattr(statistics, "BLOCK_BYTES", 1 << 9)
    texts = lines(600)
    weights = np.random.default_rng(0).random(len(texts))
    one = Tokenizer.default(device="cpu", threads=1)
    many = Tokenizer.default(device="cpu", threads=5)
    for other in (many, on_host_build(one)):
        for options in ({}, {"document_weights": weights}):
            assert np.array_equal(one.expected_counts(texts, **options), other.expected_counts(texts, **options))
        mine, theirs = one.token_statistics(texts), other.token_statistics(texts)
        for name in ("num_tokens", "entropy", "log_partition"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name))
    expected = sum(w * one.lattice([text]).expected_counts() for w, text in zip(weights[:20], texts, strict=False))
    counts = one.expected_counts(texts[:20], document_weights=weights[:20])
    np.testing.assert_allclose(counts, expected, 1e-12, 1e-12)


def test_a_full_table_is_summed_up_and_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = lines(400)
    tokenizer = Tokenizer.default(device="cpu", threads=1)
    counts, whole = tokenizer.expected_counts(texts), tokenizer.token_statistics(texts)
    monkeypatch.setattr(statistics, "MOST_SEGMENTS", 50)
    monkeypatch.setattr(statistics, "MEMBERS", 600)
    monkeypatch.setattr(threads, "RANGE_BYTES", 1 << 12)
    np.testing.assert_allclose(tokenizer.expected_counts(texts), counts, 1e-13)
    parts = tokenizer.token_statistics(texts)
    assert np.array_equal(parts.entropy, whole.entropy)
    assert np.array_equal(parts.num_tokens, whole.num_tokens)


def test_a_long_segment_and_a_long_document() -> None:
    tokenizer = Tokenizer.from_pieces(["a", "aa", "b"], device="cpu")
    texts = ["a" * 100_000, "ab" * 50_000, ""]
    lattice = tokenizer.lattice(texts)
    np.testing.assert_allclose(tokenizer.expected_counts(texts, alpha=0), lattice.expected_counts(0), 1e-12)
    np.testing.assert_allclose(tokenizer.entropy(texts, alpha=0), lattice.entropy(0), 1e-12)


def test_tokens_are_those_of_samples() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    out = tokenizer.token_statistics([TEXT], alpha=0.5)
    lengths = np.diff(tokenizer.sample([TEXT], alpha=0.5, num_samples=20_000, seed=1).offsets)
    assert out.num_tokens[0] == pytest.approx(lengths.mean(), abs=6 * lengths.std() / math.sqrt(20_000))
    assert out.bytes_per_token == pytest.approx(len(TEXT.encode()) / out.num_tokens[0])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, np.nan], ["a", "b"]])
def test_weights_of_documents_are_checked(weights: Any) -> None:
    tokenizer = Tokenizer.from_pieces(["a"], device="cpu")
    with pytest.raises(ValueError, match="document_weights"):
        tokenizer.expected_counts(["a", "aa"], document_weights=weights)


def test_a_token_penalty_and_added_tokens_count_as_in_the_lattice() -> None:
    tokenizer = Tokenizer.from_file(ROOT / "tests" / "data" / "en_split.tokenizer.json", device="cpu")
    texts = ["a <sep> b</s> the end", "<pad><pad>", "no tokens"]
    lattice = tokenizer.lattice(texts)
    for penalty in (0.0, 1.5):
        out = tokenizer.token_statistics(texts, alpha=0.5, token_penalty=penalty)
        options = {"alpha": 0.5, "token_penalty": penalty}
        np.testing.assert_allclose(out.log_partition, lattice.log_partition(**options), 1e-12, 1e-12)
        np.testing.assert_allclose(out.entropy, lattice.entropy(**options), 1e-12, 1e-12)
        counts = tokenizer.expected_counts(texts, **options)
        np.testing.assert_allclose(counts, lattice.expected_counts(**options), 1e-12, 1e-12)


def test_null_documents_count_nothing() -> None:
    tokenizer = Tokenizer.from_pieces(["a"], device="cpu")
    out = tokenizer.token_statistics([None, "aa"])
    assert out.num_tokens.tolist() == [0.0, 2.0]
    assert tokenizer.expected_counts([None, "aa"]).tolist() == [2.0]
    assert tokenizer.expected_counts([]).tolist() == [0.0]
