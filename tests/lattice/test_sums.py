"""Sums over paths equal brute force, the definition and each other's identities, on short texts and on long ones."""

import math
from typing import Any

import numpy as np
import pytest
from brute_force import brute_force, counted, p_value
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lattices import DEVICES, both, documents_of, on
from strategies import Case, cases

from gpu_lattice import Tokenizer
from gpu_lattice.kernels import reference_lattice as reference
from gpu_lattice.kernels.reference import ZERO, log
from gpu_lattice.lattice import Lattice

RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
ALPHAS = st.sampled_from([0.0, 0.1, 1.0, 3.0, 20.0])


def logs(numbers: list[Any]) -> list[float]:
    return [-math.inf if number == ZERO else log(number) for number in numbers]


@RELAXED
@given(cases(longest_text=8), ALPHAS)
def test_sums_equal_brute_force(case: Case, alpha: float) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        log_z, paths, entropy = lattice.log_partition(alpha), lattice.num_paths(), lattice.entropy(alpha)
        best = lattice.take(np.flatnonzero(np.array(paths) > 0)).viterbi().scores.tolist()
        counts = np.zeros(len(case.pieces))
        for i_doc, text in enumerate(case.texts):
            truth = brute_force(text, case.pieces, case.unk_piece)
            assert paths[i_doc] == len(truth.ids)
            assert lattice.num_paths(log=True)[i_doc] == pytest.approx(
                math.log(paths[i_doc]) if paths[i_doc] else -math.inf
            )
            if not truth.ids:
                assert log_z[i_doc] == -math.inf
                assert entropy[i_doc] == 0.0
                continue
            log_probs = truth.log_probs(alpha)
            assert log_z[i_doc] == pytest.approx(truth.log_z(alpha), rel=1e-12, abs=1e-12)
            expected = -math.fsum(math.exp(p) * p for p in log_probs)
            assert entropy[i_doc] == pytest.approx(expected, rel=1e-12, abs=1e-12)
            assert best.pop(0) == pytest.approx(max(truth.scores), rel=1e-12, abs=1e-12)
            if case.unk_piece is None:
                for ids, p in zip(truth.ids, log_probs, strict=True):
                    np.add.at(counts, list(ids), math.exp(p))
        if case.unk_piece is None:
            np.testing.assert_allclose(lattice.expected_counts(alpha), counts, 1e-11, 1e-12)


@RELAXED
@given(cases(longest_text=20), ALPHAS)
def test_scores_and_posteriors_equal_the_definition(case: Case, alpha: float) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        forward, backward, marginals = (
            lattice.forward_scores(alpha),
            lattice.backward_scores(alpha),
            lattice.marginals(alpha),
        )
        for i_doc, document in enumerate(documents_of(lattice, lattice._weights(alpha, None))):
            n = len(document)
            np.testing.assert_allclose(forward[i_doc, :n], logs(reference.forward(document)), 1e-12, 1e-12)
            np.testing.assert_allclose(backward[i_doc, :n], logs(reference.backward(document)), 1e-12, 1e-12)
            assert np.isneginf(forward[i_doc, n:]).all()
            for e, row in enumerate(reference.posteriors(document)):
                np.testing.assert_allclose(marginals[i_doc, e, : len(row)], row, 1e-12, 1e-250)
            expected = reference.entropy(document)
            assert lattice.entropy(alpha)[i_doc] == pytest.approx(expected, rel=1e-12, abs=1e-11)
            assert lattice.num_paths()[i_doc] == reference.num_paths(document)


@RELAXED
@given(cases(longest_text=20), ALPHAS)
def test_the_three_readings_agree(case: Case, alpha: float) -> None:
    cpu, *others = both(case.tokenizer(), case.texts)
    for cuda in others:
        for operation in ("forward_scores", "backward_scores", "marginals", "log_partition", "entropy"):
            assert np.array_equal(getattr(cpu, operation)(alpha), getattr(cuda, operation)(alpha))
        assert cpu.num_paths() == cuda.num_paths()


@RELAXED
@given(cases(longest_text=20), ALPHAS, st.integers(0, 2**64 - 1))
def test_samples_are_the_tokenizers_very_draws(case: Case, alpha: float, seed: int) -> None:
    tokenizer = case.tokenizer()
    try:
        expected = tokenizer.sample(case.texts, alpha=alpha, seed=seed, num_samples=3, return_log_prob=True)
    except ValueError:
        assume(False)
    for lattice in both(tokenizer, case.texts):
        got = lattice.sample(alpha=alpha, seed=seed, num_samples=3, return_log_prob=True)
        assert got.tolist() == expected.tolist()
        np.testing.assert_allclose(got.log_prob, expected.log_prob, 1e-12, 1e-11)


@RELAXED
@given(cases(longest_text=20, always_spelled=True), ALPHAS)
def test_identities_hold(case: Case, alpha: float) -> None:
    lattice = case.tokenizer().lattice(case.texts)
    weights, posteriors = lattice._weights(alpha, None), lattice._posteriors(alpha)
    ragged = lattice.to_ragged()
    position = np.repeat(np.arange(len(ragged.row_splits[1]) - 1), np.diff(ragged.row_splits[1]))
    doc = np.searchsorted(ragged.row_splits[0], position, side="right") - 1
    for i_doc, n in enumerate(lattice.num_bytes.tolist()):
        first = ragged.row_splits[0][i_doc]
        has_path = lattice.num_paths()[i_doc] > 0
        for byte in range(n):
            covers = (doc == i_doc) & (position - first > byte) & (position - first - ragged.length <= byte)
            assert posteriors[covers].sum() == pytest.approx(1.0 if has_path else 0.0, rel=1e-12)
        if has_path:
            mean = (posteriors * np.log(weights))[doc == i_doc].sum()
            assert lattice.entropy(alpha)[i_doc] == pytest.approx(
                lattice.log_partition(alpha)[i_doc] - mean, rel=1e-9, abs=1e-9
            )
    named = ragged.piece_id >= 0
    assert lattice.expected_counts(alpha).sum() == pytest.approx(posteriors[named].sum(), rel=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_weights_of_arcs_drive_the_same_kernels(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5, "ba": -1.5}, device="cpu"))
    lattice = tokenizer.lattice(["abab", "ba", ""])
    by_score = lattice._weights(0.7, None)[:, None]
    by_id = np.exp(0.7 * np.array([-1.0, -2.0, -2.5, -1.5]))
    by_arc = np.where(lattice.piece_id >= 0, by_id[lattice.piece_id], 99.0)
    for weights in (by_id, by_arc, by_score):
        np.testing.assert_allclose(lattice.log_partition(weights=weights), lattice.log_partition(0.7), 1e-14)
        np.testing.assert_allclose(lattice.marginals(weights=weights), lattice.marginals(0.7), 1e-13)
        assert (
            lattice.sample(weights=weights, num_samples=9, seed=0).tolist()
            == lattice.sample(alpha=0.7, num_samples=9, seed=0).tolist()
        )
        assert lattice.viterbi(weights=weights).tolist() == lattice.viterbi().tolist()
    without_ab = np.array([1.0, 1.0, 0.0, 1.0])
    assert lattice.log_partition(weights=without_ab).tolist() == pytest.approx([math.log(2), math.log(2), 0.0])
    assert (lattice.marginals(weights=without_ab)[lattice.piece_id == 2] == 0).all()


def test_weights_of_zero_are_never_drawn_even_as_the_last_arc() -> None:
    lattice = Tokenizer.from_pieces(["a", "aa", "aaa"], device="cpu").lattice(["a" * 30])
    out = lattice.sample(weights=np.array([1.0, 1e-290, 0.0]), num_samples=500, seed=0)
    assert 2 not in out.ids


@pytest.mark.parametrize("weights", [np.array([0.3, 1.2, 0.7, 0.1]), np.array([1.0, 1.0, 1.0, 0.0])])
def test_samples_by_given_weights_have_their_distribution(weights: Any) -> None:
    pieces = ["a", "b", "ab", "ba"]
    lattice = Tokenizer.from_pieces(pieces, device="cpu").lattice(["ababb"])
    out = lattice.sample(weights=weights, num_samples=100_000, seed=6)
    with np.errstate(divide="ignore"):
        scores = np.log(weights)
    truth = brute_force("ababb", {p: float(s) for p, s in zip(pieces, scores, strict=True) if s > -np.inf})
    kept = [i for i, s in enumerate(scores) if s > -np.inf]
    probabilities = {tuple(kept[i] for i in ids): p for ids, p in truth.probabilities(1.0).items()}
    assert p_value(counted(out.tolist()), probabilities) > 1e-3


def test_parallel_arcs_of_a_ragged_lattice_are_all_paths() -> None:
    from gpu_lattice.lattice import RaggedLattice

    ragged = RaggedLattice(np.array([0, 1, 2]), np.array([1, 1, 2]), (np.array([0, 3]), np.array([0, 0, 2, 3])))
    lattice = Lattice.from_ragged(ragged)
    assert lattice.num_paths() == [1]
    assert lattice.log_partition(weights=np.array([[0.25], [0.25], [2.0]])).tolist() == pytest.approx([math.log(2.0)])
    both_ways = RaggedLattice(np.array([0, 1]), np.array([1, 1]), (np.array([0, 2]), np.array([0, 0, 2])))
    assert Lattice.from_ragged(both_ways).num_paths() == [2]
    drawn = Lattice.from_ragged(both_ways).sample(weights=np.array([3.0, 1.0]), num_samples=20_000, seed=0)
    assert p_value(counted(drawn.tolist()), {(0,): 0.75, (1,): 0.25}) > 1e-3


def test_all_pieces_with_equal_scores_give_two_to_the_power_of_gaps() -> None:
    text = "abcdefghij" * 20
    pieces = sorted({text[i : i + n] for i in range(10) for n in range(1, 201)})
    lattice = Tokenizer.from_pieces(pieces, device="cpu").lattice([text])
    assert lattice.num_paths() == [2**199]
    assert lattice.log_partition(0).tolist() == pytest.approx([199 * math.log(2)], rel=1e-14)


def test_exact_counts_end_where_logs_go_on() -> None:
    lattice = Tokenizer.from_pieces(["a", "aa"], device="cpu").lattice(["a" * 70_000])
    with pytest.raises(ValueError, match="log=True"):
        lattice.num_paths()
    golden = (1 + math.sqrt(5)) / 2
    assert lattice.num_paths(log=True)[0] == pytest.approx(70_001 * math.log(golden) - math.log(5) / 2, rel=1e-13)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_a_megabyte_agrees_with_extended_precision(alpha: float) -> None:
    tokenizer = Tokenizer.default(device="cpu")
    text = " ".join(f"word{i % 977} and {i} more of the same" for i in range(30_000))[:1_000_000]
    expected = None
    for lattice in both(tokenizer, [text]):
        expected = expected or in_extended_precision(lattice, alpha)
        log_z, entropy, posteriors = expected
        assert lattice.log_partition(alpha)[0] == pytest.approx(log_z, rel=1e-9)
        assert lattice.entropy(alpha)[0] == pytest.approx(entropy, rel=1e-9)
        np.testing.assert_allclose(lattice._posteriors(alpha), posteriors, 1e-9, 1e-250)


def in_extended_precision(lattice: Lattice, alpha: float) -> tuple[float, float, Any]:
    """(log Z, entropy, posteriors) of one text without any cuts, by integers of 128 bits and by np.longdouble."""
    ragged = lattice.to_ragged()
    weights = lattice._weights(alpha, None)
    z = extended_sums(ragged.row_splits[1].tolist(), ragged.length.tolist(), weights.tolist(), backwards=False)
    b = extended_sums(ragged.row_splits[1].tolist(), ragged.length.tolist(), weights.tolist(), backwards=True)
    ends = np.repeat(np.arange(len(z[0])), np.diff(ragged.row_splits[1]))
    starts = ends - ragged.length
    into = z[0][starts] * weights / z[0][ends]
    shares = np.ldexp(into, (z[1][starts] - z[1][ends]).astype(np.int32))
    through = into * b[0][ends] * z[0][ends] / z[0][-1]
    posteriors = np.ldexp(through, (z[1][starts] + b[1][ends] - z[1][-1]).astype(np.int32))
    log_z = np.log(z[0][-1]) + z[1][-1] * np.log(np.longdouble(2))
    is_some = shares > 0
    entropy = -(posteriors[is_some] * np.log(shares[is_some])).sum()
    return float(log_z), float(entropy), posteriors.astype(np.float64)


def extended_sums(offsets: list[int], lengths: list[int], weights: list[float], backwards: bool) -> tuple[Any, Any]:
    """Forward (or backward) scores as np.longdouble of 64 bits and exponents."""
    n = len(offsets) - 1
    exact = [(int(m * 2**53), e - 53) for m, e in map(math.frexp, weights)]
    totals: list[tuple[int, int]] = [(0, 0)] * n
    totals[n - 1 if backwards else 0] = (1 << 127, -127)

    def added(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        if a[0] == 0 or b[0] == 0:
            return a if b[0] == 0 else b
        low, high = sorted((a, b), key=lambda pair: pair[1] + pair[0].bit_length())
        shift = high[1] - low[1]
        total = high[0] + (low[0] >> shift if shift >= 0 else low[0] << -shift)
        excess = total.bit_length() - 128
        return (total >> excess, high[1] + excess) if excess > 0 else (total, high[1])

    for e in range(n - 1, 0, -1) if backwards else range(1, n):
        for j in range(offsets[e], offsets[e + 1]):
            s = e - lengths[j]
            source, target = (e, s) if backwards else (s, e)
            product = totals[source][0] * exact[j][0]
            excess = max(product.bit_length() - 128, 0)
            totals[target] = added(totals[target], (product >> excess, totals[source][1] + exact[j][1] + excess))
    lengths_of = [total.bit_length() for total, _ in totals]
    tops = [total >> max(bits - 64, 0) for (total, _), bits in zip(totals, lengths_of, strict=True)]
    mantissas = np.array(tops, np.uint64).astype(np.longdouble)
    return mantissas, np.array([e + max(b - 64, 0) for (_, e), b in zip(totals, lengths_of, strict=True)])
