"""Samples without replacement never repeat, and are Gumbel-top-k over paths: orders, thresholds, estimates."""

import math
from collections import Counter
from functools import cache
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from brute_force import Enumeration, brute_force, counted, p_value
from conftest import DATA
from cuda_on_cpu.host_device import HostDevice, compiler
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lattices import DEVICES, both, documents_of, on
from scipy.stats import ks_2samp
from situations import Situation, situations
from strategies import Case, cases

from gpu_lattice import Tokenizer
from gpu_lattice.backends.cpu import CpuBackend
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.kernels import reference_lattice as reference
from gpu_lattice.kernels.reference import log
from gpu_lattice.lattice import Lattice, PathBatch, RaggedLattice, without_replacement

RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
ALPHAS = st.sampled_from([0.0, 0.1, 1.0, 3.0, 20.0])
SEEDS = st.integers(0, 2**64 - 1)
LEAST_P = 1e-3
STANDARD_ERRORS = 4.5

# Twelve paths, few of them likely; no cut within.
PIECES = {"a": -1.0, "b": -2.0, "ab": -2.5, "ba": -0.5, "aba": -3.0}
TEXT = "ababa"


def paths_of(lattice: Lattice, weights: Any, k: int, seed: int, doc_ids: Any = None) -> list[list[reference.Path]]:
    """The marks of every document's rows, as the definition writes paths."""
    options = without_replacement.checked_options(k, seed, doc_ids, len(lattice))
    drawn = without_replacement.draw(lattice._launcher, lattice._arrays, weights, options, lattice._check_fits)
    firsts, marks = [*drawn.firsts.tolist(), len(drawn.path)], drawn.path.tolist()
    rows = [[(e, rank) for e, rank in enumerate(marks[a:b]) if rank >= 0] for a, b in pairwise(firsts)]
    return [rows[a:b] for a, b in pairwise(drawn.doc_offsets.tolist())]


def of_documents(out: PathBatch, values: Any) -> list[list[float]]:
    return [values[a:b].tolist() for a, b in pairwise(out.doc_offsets.tolist())]


# What is left after some draws is, of the whole, less than the least normal number, and than the least of all.
@example(
    Case(pieces={"<unk>": None, "aaaa": 3.0, "ab": None, "aaa": None}, unk_piece="<unk>", texts=["aaaaaaaaaab"]),
    20.0,
    40,
    0,
)
@example(Case(pieces={"<unk>": None, "aa": None, "aaaa": None}, unk_piece="<unk>", texts=["aaaa"]), 20.0, 5, 0)
@RELAXED
@given(cases(longest_text=12), ALPHAS, st.sampled_from([0, 1, 2, 5, 40]), SEEDS)
def test_draws_and_their_probabilities_are_those_of_the_definition(case: Case, alpha: float, k: int, seed: int) -> None:
    doc_ids = np.array([seed ^ i for i in range(len(case.texts))], np.uint64)
    for lattice in both(case.tokenizer(), case.texts):
        weights = lattice._weights(alpha, None)
        out = lattice.sample_without_replacement(k, alpha=alpha, seed=seed, doc_ids=doc_ids)
        paths = paths_of(lattice, weights, k, seed, doc_ids)
        log_probs, log_inclusions = of_documents(out, out.log_prob), of_documents(out, out.log_inclusion)
        for i_doc, document in enumerate(documents_of(lattice, weights)):
            doc_id = int(doc_ids[i_doc])
            drawn = reference.sample_without_replacement(document, k, seed, doc_id)
            assert paths[i_doc] == [path for path, _ in drawn]
            if not drawn:
                continue
            whole = log(reference.forward(document)[-1])
            expected = [math.fsum(math.log(document[e][rank][1]) for e, rank in path) - whole for path, _ in drawn]
            np.testing.assert_allclose(log_probs[i_doc], expected, 1e-12, 1e-11)
            kappa = reference.inclusion_threshold(document, drawn, seed, doc_id)
            inclusion = [-math.expm1(-math.exp(min(p - kappa, 700.0))) for p in expected]
            np.testing.assert_allclose(np.exp(log_inclusions[i_doc]), inclusion, 1e-9, 1e-300)


@RELAXED
@given(cases(longest_text=9), ALPHAS, st.integers(0, 12), SEEDS)
def test_rows_are_different_paths_of_the_text_and_all_where_k_allows(
    case: Case, alpha: float, k: int, seed: int
) -> None:
    for lattice in both(case.tokenizer(), case.texts):
        out = lattice.sample_without_replacement(k, alpha=alpha, seed=seed)
        paths = paths_of(lattice, lattice._weights(alpha, None), k, seed)
        log_probs, scores = of_documents(out, out.log_prob), of_documents(out, out.scores)
        for i_doc, text in enumerate(case.texts):
            truth = brute_force(text, case.pieces, case.unk_piece)
            rows = out.tolist()[i_doc]
            assert len(set(map(tuple, paths[i_doc]))) == len(rows) == min(k, len(truth.ids))
            assert not Counter(map(tuple, rows)) - Counter(truth.ids)
            if len(rows) < len(truth.ids):
                continue
            assert math.fsum(map(math.exp, log_probs[i_doc])) == pytest.approx(1.0 if rows else 0.0, rel=1e-12)
            np.testing.assert_allclose(sorted(scores[i_doc]), sorted(truth.scores), 1e-12, 1e-12)
            assert of_documents(out, out.log_inclusion)[i_doc] == [0.0] * len(rows)


@RELAXED
@given(cases(longest_text=12), ALPHAS, st.integers(1, 6), SEEDS)
def test_a_greater_k_begins_with_the_same_rows_and_batches_do_not_matter(
    case: Case, alpha: float, k: int, seed: int
) -> None:
    lattice = case.tokenizer().lattice(case.texts)
    doc_ids = np.arange(len(case.texts)) + 5
    more = lattice.sample_without_replacement(k + 3, alpha=alpha, seed=seed, doc_ids=doc_ids)
    out = lattice.sample_without_replacement(k, alpha=alpha, seed=seed, doc_ids=doc_ids)
    assert out.tolist() == [rows[:k] for rows in more.tolist()]
    for i_doc in range(len(case.texts)):
        alone = lattice.take([i_doc]).sample_without_replacement(k, alpha=alpha, seed=seed, doc_ids=doc_ids[[i_doc]])
        assert alone.tolist() == out.tolist()[i_doc : i_doc + 1]
        rows = slice(int(out.doc_offsets[i_doc]), int(out.doc_offsets[i_doc + 1]))
        np.testing.assert_allclose(alone.log_inclusion, out.log_inclusion[rows], 1e-12)


@pytest.mark.skipif(compiler() is None, reason="needs g++")
@settings(max_examples=60)
@given(situations(), ALPHAS, SEEDS, st.sampled_from([1, 4]))
def test_any_rules_for_unknown_text_and_any_chunks_give_the_same_on_both_devices(
    situation: Situation, alpha: float, seed: int, k: int
) -> None:
    backends = CpuBackend(situation.model, 1), CudaBackend(situation.model, HostDevice(reversed=True))
    cpu, cuda = (Lattice.of(situation.model, b, situation.batch, ~situation.is_null, None) for b in backends)
    options = {"alpha": alpha, "seed": seed, "doc_ids": situation.doc_ids}
    expected, got = cpu.sample_without_replacement(k, **options), cuda.sample_without_replacement(k, **options)
    assert got.tokens.tolist() == expected.tokens.tolist()
    for name in ("doc_offsets", "scores", "log_prob", "log_inclusion"):
        assert np.array_equal(getattr(got, name), getattr(expected, name))


@cache
def copies(n: int, device: str = "cpu") -> Lattice:
    """The same text n times: as many independent draws as there are doc ids."""
    return on(device, Tokenizer.from_pieces(PIECES, device="cpu")).lattice([TEXT] * n)


def drawn_paths(out: PathBatch, truth: Enumeration) -> Any:
    """Which of the paths each row is, int64 [texts, k]."""
    width = max(map(len, truth.ids))
    digits = (len(PIECES) + 1) ** np.arange(width)
    codes = [sum((i + 1) * digit for i, digit in zip(ids, digits.tolist(), strict=False)) for ids in truth.ids]
    padded = out.tokens.to_padded(pad_id=-1)
    order = np.argsort(codes)
    found = order[np.searchsorted(codes, (padded + 1) @ digits[: padded.shape[1]], sorter=order)]
    assert [tuple(out.tokens[i].tolist()) for i in range(99)] == [truth.ids[i] for i in found[:99]]
    return found.reshape(len(out), -1)


def in_order(truth: Enumeration, alpha: float, k: int) -> dict[tuple[int, ...], float]:
    """The probability of every sequence of k different paths, each drawn by weight among those left."""
    p = np.exp(truth.log_probs(alpha)).tolist()
    orders = {}
    for order in permutations(range(len(p)), k):
        left, chance = 1.0, 1.0
        for i in order:
            chance *= p[i] / left
            left -= p[i]
        orders[order] = chance
    return orders


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_hundred_thousand_orders_have_their_probabilities(k: int, alpha: float) -> None:
    truth = brute_force(TEXT, PIECES)
    out = copies(100_000).sample_without_replacement(k, alpha=alpha, seed=8)
    orders = Counter(map(tuple, drawn_paths(out, truth).tolist()))
    assert p_value(orders, in_order(truth, alpha, k)) > LEAST_P


def gumbel_top_k(truth: Enumeration, alpha: float, k: int, draws: int) -> tuple[Any, Any]:
    """(the k paths of greatest perturbed log-probability [draws, k], the next one's [draws]), by their definition."""
    log_p = np.array(truth.log_probs(alpha))
    perturbed = log_p + np.random.default_rng(11).gumbel(size=(draws, len(log_p)))
    order = np.argsort(-perturbed, axis=1)
    return order[:, :k], np.take_along_axis(perturbed, order[:, k : k + 1], 1)[:, 0]


@pytest.mark.parametrize("k", [1, 3, 11])
def test_thresholds_are_distributed_as_those_of_gumbel_top_k_given_the_sample(k: int) -> None:
    truth, draws = brute_force(TEXT, PIECES), 30_000
    out = copies(draws).sample_without_replacement(k, alpha=0.5, seed=2)
    log_prob, log_inclusion = (np.reshape(part, (draws, k)) for part in (out.log_prob, out.log_inclusion))
    # Of the first path's: log(1 - exp(-exp(log p - kappa))) solved for kappa.
    kappas = log_prob[:, 0] - np.log(-np.log(-np.expm1(log_inclusion[:, 0])))
    expected_paths, expected_kappas = gumbel_top_k(truth, 0.5, k, draws)
    assert ks_2samp(kappas, expected_kappas).pvalue > LEAST_P
    # Rare samples have other thresholds than likely ones.
    first = drawn_paths(out, truth)[:, 0]
    for i, _ in Counter(first.tolist()).most_common(3):
        ours, theirs = kappas[first == i], expected_kappas[expected_paths[:, 0] == i]
        assert ks_2samp(ours, theirs).pvalue > LEAST_P


@pytest.mark.parametrize(("k", "alpha"), [(2, 1.0), (3, 0.0), (7, 1.0)])
def test_estimates_by_inclusion_probabilities_are_unbiased(k: int, alpha: float) -> None:
    """Horvitz and Thompson's: p / q summed over the paths drawn; for every path itself, and for 1 and the length."""
    draws, truth = 240_000 // k, brute_force(TEXT, PIECES)
    out = copies(draws).sample_without_replacement(k, alpha=alpha, seed=3)
    ratio = np.exp(out.log_prob - out.log_inclusion).reshape(draws, k)
    index = drawn_paths(out, truth)
    lengths = np.array([len(ids) for ids in truth.ids])
    probabilities = np.exp(truth.log_probs(alpha))
    checks = [(np.where(index == i, ratio, 0.0), p) for i, p in enumerate(probabilities)]
    checks += [(ratio * lengths[index], probabilities @ lengths), (ratio, 1.0)]
    for terms, expected in checks:
        estimates = terms.sum(1)
        error = estimates.std() / math.sqrt(draws)
        # What hardly ever misses a path has no error that so many draws would show.
        assert abs(estimates.mean() - expected) < STANDARD_ERRORS * error + 1e-4 * expected
    assert ratio.sum(1).std() / math.sqrt(draws) < 0.01


def test_the_first_path_is_a_perfect_sample() -> None:
    out = copies(50_000).sample_without_replacement(2, alpha=0.7, seed=5)
    first = [rows[0] for rows in out.tolist()]
    assert p_value(counted(first), brute_force(TEXT, PIECES).probabilities(0.7)) > LEAST_P


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_far_less_likely_than_rounding_is_drawn_once_all_else_is(device: str) -> None:
    """Weights a thousand powers of two apart, 21 tokens: nothing is lost, nothing comes twice."""
    tokenizer = on(device, Tokenizer.from_pieces(["a", "aa"], device="cpu"))
    lattice = tokenizer.lattice(["a" * 12] * 3)
    out = lattice.sample_without_replacement(500, weights=np.array([1.0, 2.0**-1000]))
    for rows in out.tolist():
        assert len(rows) == len(set(map(tuple, rows))) == 233
        pairs = [row.count(1) for row in rows]
        assert pairs == sorted(pairs)
    by_pairs = out.log_prob.reshape(3, 233)[:, 1:] / (-1000 * math.log(2))
    np.testing.assert_allclose(by_pairs, [[row.count(1) for row in rows[1:]] for rows in out.tolist()], 1e-12)
    few = lattice.sample_without_replacement(3, weights=np.array([1.0, 2.0**-1000]))
    assert few.tolist() == [rows[:3] for rows in out.tolist()]
    # Eleven paths have one pair: two of them are in the sample, each with a probability of about 2 / 11.
    assert (few.log_inclusion.reshape(3, 3)[:, 0] == 0).all()
    assert (np.exp(few.log_inclusion.reshape(3, 3)[:, 1:]) < 0.7).all()
    assert (np.exp(few.log_inclusion.reshape(3, 3)[:, 1:]) > 0.01).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
def test_long_texts_have_different_paths_of_known_probability(device: str, alpha: float) -> None:
    text = " ".join(f"word{i % 977} and {i} more of the same" for i in range(700))
    lattice = on(device, Tokenizer.default(device="cpu")).lattice([text, text[:9000]])
    out = lattice.sample_without_replacement(4, alpha=alpha, seed=1)
    for rows in out.tolist():
        assert len(set(map(tuple, rows))) == 4
    expected = alpha * out.scores - lattice.log_partition(alpha)[[0, 0, 0, 0, 1, 1, 1, 1]]
    np.testing.assert_allclose(out.log_prob, expected, 1e-10)
    # Each path is a tiny part of all, so p / q is nearly the same for the four of a text.
    ratios = np.exp(out.log_prob - out.log_inclusion).reshape(2, 4)
    np.testing.assert_allclose(ratios, ratios[:, :1] * np.ones(4), 1e-6)
    assert out.tolist() == Tokenizer.default(device="cpu").lattice([text, text[:9000]]).sample_without_replacement(
        4, alpha=alpha, seed=1
    ).tolist()  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
def test_given_weights_draw_as_scores_do(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces(PIECES, device="cpu"))
    lattice = tokenizer.lattice([TEXT, "ba", ""])
    expected = lattice.sample_without_replacement(3, alpha=0.7, seed=4)
    by_arc = lattice._weights(0.7, None)[:, None]
    by_id = np.exp(0.7 * np.array(list(PIECES.values())))
    padded = np.where(lattice.piece_id >= 0, by_id[lattice.piece_id], 9.0)
    for weights in (by_arc, by_id, padded):
        out = lattice.sample_without_replacement(3, weights=weights, seed=4)
        assert out.tolist() == expected.tolist()
        np.testing.assert_allclose(out.log_prob, expected.log_prob, 1e-12, 1e-12)
        np.testing.assert_allclose(out.scores, 0.7 * expected.scores, 1e-12)
        np.testing.assert_allclose(out.log_inclusion, expected.log_inclusion, 1e-9)
    none_of_ab = lattice.sample_without_replacement(100, weights=np.array([1.0, 1.0, 0.0, 1.0, 0.0]))
    assert 2 not in none_of_ab.tokens.ids
    assert np.diff(none_of_ab.doc_offsets).tolist() == [4, 2, 1]


def test_parallel_arcs_of_a_ragged_lattice_are_different_paths() -> None:
    both_ways = RaggedLattice(np.array([0, 1]), np.array([1, 1]), (np.array([0, 2]), np.array([0, 0, 2])))
    lattice = Lattice.from_ragged(both_ways)
    assert lattice.sample_without_replacement(5, weights=np.array([1e-9, 1.0])).tolist() == [[[1], [0]]]


@pytest.mark.parametrize("device", DEVICES)
def test_odd_batches_are_defined(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces({"a": -1.0, "bb": -2.0}, device="cpu"))
    for texts in ([], ["", None, "aba"], ["aba"]):
        none = tokenizer.lattice(texts).sample_without_replacement(0)
        assert none.tolist() == [[] for _ in texts]
        assert none.log_prob.shape == none.log_inclusion.shape == none.scores.shape == (0,)
    out = tokenizer.lattice(["", None, "aba", "abba"]).sample_without_replacement(2**31 - 1)
    assert out.tolist() == [[[]], [[]], [], [[0, 1, 0]]]
    assert out.tokens.tolist() == [[], None, [0, 1, 0]]
    assert out.log_prob.tolist() == out.log_inclusion.tolist() == [0.0, 0.0, 0.0]
    assert out.scores.tolist() == [0.0, 0.0, -4.0]


def test_unknown_symbols_that_merge_are_rows_of_their_own() -> None:
    tokenizer = Tokenizer.from_pieces({"<unk>": None, "a": -1.0, "aa": -1.5}, unk_piece="<unk>", device="cpu")
    assert sorted(tokenizer.lattice("?aa??").sample_without_replacement(9).tolist()[0]) == [[0, 1, 1, 0], [0, 2, 0]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["en_split.tokenizer.json", "ja_whole.tokenizer.json", "zh_bytes.model"])
def test_models_with_tokens_byte_pieces_and_ids_around_rows(device: str, name: str) -> None:
    tokenizer = on(device, Tokenizer.from_file(DATA / name, device="cpu"))
    texts = ["a new dawn 新しい朝", "<s>x</s>", "", "\x00🎉"]
    lattice = tokenizer.lattice(texts)
    out = lattice.sample_without_replacement(5, alpha=0.3, seed=7)
    sampled = lattice.sample(alpha=0.3, seed=7).tolist()
    for text, rows, n_paths, first in zip(texts, out.tolist(), lattice.num_paths(), sampled, strict=True):
        assert len(rows) == min(5, n_paths)
        assert {tokenizer.decode([row])[0] for row in rows} == {tokenizer.decode([first])[0]}, text


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [(-1, ValueError, "k is -1"), (2**31, ValueError, "k is 2147483648"), (1.5, TypeError, "k is 1.5")],
)
def test_what_is_no_number_of_paths_is_refused(k: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        copies(1).sample_without_replacement(k)


def test_what_does_not_fit_is_refused_before_it_is_allocated() -> None:
    lattice = Tokenizer.from_pieces(["a", "aa"], device="cpu").lattice(["a" * 1000], memory_limit=10_000_000)
    assert len(lattice.sample_without_replacement(300).tokens) == 300
    with pytest.raises(MemoryError, match="a sample of 500 paths takes"):
        lattice.sample_without_replacement(500)
    with pytest.raises(MemoryError, match="a sample of 2000000000 paths takes"):
        lattice.sample_without_replacement(2_000_000_000)
