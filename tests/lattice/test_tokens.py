"""The number of tokens: its distribution, and samples given it, against the definition and every segmentation."""

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from brute_force import brute_force, counted, p_value
from cuda_on_cpu.host_device import HostDevice, compiler
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lattices import DEVICES, both, documents_of, on
from situations import Situation, situations
from strategies import Case, cases

from gpu_lattice import Tokenizer
from gpu_lattice.backends.cpu import CpuBackend
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.kernels import reference_lattice as reference
from gpu_lattice.kernels.arcs import UNKNOWN
from gpu_lattice.kernels.cpu.lattice.build import CHUNK
from gpu_lattice.lattice import Lattice

RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
ALPHAS = st.sampled_from([0.0, 0.1, 1.0, 3.0])
SEEDS = st.integers(0, 2**64 - 1)


def reading_of(lattice: Lattice) -> tuple[list[reference.Tokens], list[set[int]]]:
    """For each document, how many tokens every arc is, and where chunks begin."""
    reading, arrays = lattice._reading, lattice._arrays
    spells = bool((np.asarray(reading.byte_ids) >= 0).all())
    is_unknown = (np.asarray(arrays.arcs) == UNKNOWN) | (np.asarray(arrays.arcs) == reading.unk_id)
    of_arc = [
        (int(n) if spells else 1 if reading.apart else None) if unknown else 1
        for n, unknown in zip(np.asarray(arrays.lengths).tolist(), is_unknown.tolist(), strict=True)
    ]
    splits, bounds = np.asarray(arrays.arc_offsets).tolist(), np.asarray(arrays.doc_positions).tolist()
    rows = [of_arc[a:b] for a, b in pairwise(splits)]
    marks = np.asarray(arrays.marks)
    starts = [set(np.flatnonzero(marks[a:b] & CHUNK).tolist()) for a, b in pairwise(bounds)]
    return [rows[a:b] for a, b in pairwise(bounds)], starts


@RELAXED
@given(cases(), ALPHAS)
def test_distributions_are_those_of_every_segmentation(case: Case, alpha: float) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        out = lattice.token_counts(alpha)
        for i_doc, text in enumerate(case.texts):
            truth = brute_force(text, case.pieces, case.unk_piece)
            expected = np.zeros(out.shape[1])
            for ids, p in truth.probabilities(alpha).items() if truth.ids else ():
                expected[len(ids)] += p
            np.testing.assert_allclose(out[i_doc], expected, 1e-12, 1e-12)


@RELAXED
@given(cases(longest_text=8), ALPHAS, SEEDS, st.integers(0, 8))
def test_draws_and_probabilities_are_those_of_the_definition(case: Case, alpha: float, seed: int, n: int) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        weights = lattice._weights(alpha, None)
        documents, (tokens, starts) = documents_of(lattice, weights), reading_of(lattice)
        distribution = lattice.token_counts(alpha)
        for i_doc, document in enumerate(documents):
            alone = lattice.take([i_doc])
            row = reference.token_counts(document, tokens[i_doc], starts[i_doc])
            np.testing.assert_allclose(distribution[i_doc, : len(row)], row, 1e-12, 1e-300)
            options: dict[str, Any] = {"alpha": alpha, "seed": seed, "doc_ids": [i_doc], "return_log_prob": True}
            if n >= len(row) or row[n] == 0.0:
                with pytest.raises(ValueError, match="no segmentation of"):
                    alone.sample(num_tokens=n, **options)
                continue
            out = alone.sample(num_tokens=n, num_samples=3, **options)
            assert np.diff(out.offsets).tolist() == [n] * 3
            for i_sample in range(3):
                path = reference.sample_by_tokens(document, tokens[i_doc], starts[i_doc], n, seed, i_doc, i_sample)
                log_weight = math.fsum(math.log(document[e][rank][1]) for e, rank in path)
                whole = reference.log(reference.forward(document)[-1])
                expected = log_weight - whole - math.log(row[n])
                assert out.log_prob[i_sample] == pytest.approx(expected, rel=1e-12, abs=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_draws_have_the_conditional_distribution(device: str, alpha: float) -> None:
    pieces = {"a": -1.0, "b": -2.0, "ab": -2.5, "ba": -1.5, "aba": -3.0, "<unk>": None}
    text = "abab??a?baba"
    lattice = on(device, Tokenizer.from_pieces(pieces, unk_piece="<unk>", device="cpu")).lattice([text])
    truth = brute_force(text, pieces, "<unk>").probabilities(alpha)
    n_draws = 100_000 if device == "cpu" else 20_000
    for n in (7, 8, 9):
        total = math.fsum(p for ids, p in truth.items() if len(ids) == n)
        conditional = {ids: p / total for ids, p in truth.items() if len(ids) == n}
        out = lattice.sample(alpha=alpha, num_tokens=n, num_samples=n_draws, seed=n, return_log_prob=True)
        assert p_value(counted(out.tolist()), conditional) > 1e-3
        first = {tuple(row): p for row, p in zip(out[:1000].tolist(), out.log_prob[:1000].tolist(), strict=True)}
        for ids, log_prob in first.items():
            assert math.exp(log_prob) == pytest.approx(conditional[ids], rel=1e-12)


@pytest.mark.skipif(compiler() is None, reason="needs g++")
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(situations(), ALPHAS, SEEDS)
def test_any_rules_for_unknown_text_and_any_chunks_give_the_same_on_both_devices(
    situation: Situation, alpha: float, seed: int
) -> None:
    backends = CpuBackend(situation.model, 1), CudaBackend(situation.model, HostDevice(reversed=True))
    cpu, cuda = (Lattice.of(situation.model, b, situation.batch, ~situation.is_null, None) for b in backends)
    try:
        expected = cpu.token_counts(alpha)
    except ValueError:
        with pytest.raises(ValueError, match="several bytes"):
            cuda.token_counts(alpha)
        return
    assert np.array_equal(expected, cuda.token_counts(alpha))
    assume((expected.sum(axis=1) > 0).all() and len(expected))
    num_tokens = [int(np.flatnonzero(row)[seed % int(np.count_nonzero(row))]) for row in expected]
    options = {"alpha": alpha, "num_tokens": num_tokens, "seed": seed, "num_samples": 2, "return_log_prob": True}
    mine, theirs = cpu.sample(**options), cuda.sample(**options)
    assert mine.tolist() == theirs.tolist()
    np.testing.assert_allclose(mine.log_prob, theirs.log_prob, 1e-13)
    around = len(situation.model.prefix_ids) + len(situation.model.suffix_ids)
    for i, row in enumerate(mine.tolist()):
        assert row is None or len(row) - around == num_tokens[i // 2]


def test_unconditional_samples_have_the_distribution_too() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    text = "unbelievable 漢字 \U0001f9ff tests"
    out = tokenizer.sample([text], alpha=0.3, num_samples=50_000, seed=1)
    row = tokenizer.lattice([text]).token_counts(0.3)[0]
    assert p_value(Counter((int(n),) for n in np.diff(out.offsets)), {(t,): p for t, p in enumerate(row) if p}) > 1e-3
    statistics = tokenizer.token_statistics([text], alpha=0.3)
    assert statistics.num_tokens[0] == pytest.approx((row * np.arange(len(row))).sum(), rel=1e-12)


@pytest.mark.parametrize(("given_numbers", "error"), [("3", TypeError), (2.5, TypeError), ([1, 2, 3], ValueError)])
def test_numbers_of_tokens_are_checked(given_numbers: Any, error: type[Exception]) -> None:
    lattice = Tokenizer.from_pieces(["a"], device="cpu").lattice(["aa"])
    with pytest.raises(error, match="num_tokens"):
        lattice.sample(num_tokens=given_numbers)


def test_empty_lattices_and_texts() -> None:
    tokenizer = Tokenizer.from_pieces(["a"], device="cpu")
    assert tokenizer.lattice([]).token_counts().tolist() == []
    assert tokenizer.lattice(["", None]).token_counts().tolist() == [[1.0], [1.0]]
    assert tokenizer.lattice(["", "a"]).sample(num_tokens=[0, 1]).tolist() == [[], [0]]
