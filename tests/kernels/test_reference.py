"""The definition itself: its numbers, its random words, its arcs, cuts, paths and ids."""

import doctest
import math
import random
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from brute_force import brute_force
from by_reference import rules_of
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Case, cases

from gpu_lattice.kernels import reference
from gpu_lattice.kernels.cpu.philox import uniform as cpu_uniform
from gpu_lattice.kernels.reference import UNKNOWN, ZERO, Rules

WORDS = 2**64 - 1


def test_the_example_of_the_definition_is_true() -> None:
    result = doctest.testmod(reference)
    assert result.attempted >= 4
    assert result.failed == 0


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, words) -> None:
    assert reference.philox(counter, key) == words
    seed, doc_id = key[1] << 32 | key[0], counter[3] << 32 | counter[2]
    expected = ((words[0] << 32 | words[1]) >> 11) * 2.0**-53
    assert reference.uniform(seed, counter[0], counter[1], doc_id) == expected
    assert cpu_uniform(np.uint64(seed), counter[0], counter[1], np.uint64(doc_id)) == expected


@settings(max_examples=300)
@given(st.integers(0, WORDS), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, WORDS))
def test_compiled_uniforms_are_those_of_the_definition(seed: int, position: int, i_sample: int, doc_id: int) -> None:
    u = reference.uniform(seed, position, i_sample, doc_id)
    assert 0 <= u < 1
    assert cpu_uniform(np.uint64(seed), position, i_sample, np.uint64(doc_id)) == u


def test_every_word_of_seed_and_counter_changes_the_uniform() -> None:
    base = reference.uniform(5, 6, 7, 8)
    others = [
        (5 + (1 << 32), 6, 7, 8),
        (4, 6, 7, 8),
        (5, 5, 7, 8),
        (5, 6, 6, 8),
        (5, 6, 7, 9),
        (5, 6, 7, 8 + (1 << 32)),
    ]
    assert base not in {reference.uniform(*other) for other in others}


FLOATS = st.floats(1e-300, 1e300).map(lambda x: (x, reference.number(x)))


@settings(max_examples=200)
@given(FLOATS, FLOATS)
def test_numbers_compute_as_float64_does(a, b) -> None:
    (x, m), (y, n) = a, b
    assert reference.to_float(m) == x
    assert reference.to_float(reference.add(m, n)) == x + y
    assert reference.greater(m, n) == (x > y)
    if 1e-290 < x * y < 1e290:
        assert reference.to_float(reference.multiply(m, n)) == x * y
    assert reference.log(m) == pytest.approx(math.log(x), rel=1e-13, abs=1e-13)


@settings(max_examples=200)
@given(FLOATS, FLOATS, st.integers(-5000, 5000))
def test_numbers_beyond_float64_round_as_if_exponents_had_no_bounds(a, b, shift: int) -> None:
    (_, (m, e)), (_, (n, f)) = a, b
    far, near = (m, e + shift), (n, f + shift)
    total = reference.add((m, e), (n, f))
    assert reference.add(far, near) == (total[0], total[1] + shift)
    product = reference.multiply((m, e), (n, f))
    assert reference.multiply(far, (n, f)) == (product[0], product[1] + shift)
    exact = Fraction(m) * Fraction(n)
    assert abs(Fraction(product[0]) * Fraction(2) ** (product[1] - e - f) - exact) <= exact / 2**53


def test_zero_is_neutral_and_less_than_anything() -> None:
    one = reference.ONE
    assert reference.add(ZERO, one) == reference.add(one, ZERO) == one
    assert reference.multiply(ZERO, one) == ZERO
    assert reference.greater(one, ZERO)
    assert not reference.greater(ZERO, ZERO)


def test_arcs_come_shortest_first_and_only_at_boundaries_of_symbols() -> None:
    pieces = {"é".encode(): 0, "aé".encode(): 1, b"a": 2}
    characters = Rules(pieces, "characters", 1.0)
    text = "aé漢".encode()
    assert characters.arcs_into(text, 1) == [(1, 2)]
    assert characters.arcs_into(text, 2) == []
    assert characters.arcs_into(text, 3) == [(2, 0), (3, 1)]
    assert characters.arcs_into(text, 6) == [(3, UNKNOWN)]
    assert characters.arcs_into(text, 3, start=1) == [(2, 0)]
    of_bytes = Rules(pieces, "bytes", 1.0)
    assert of_bytes.arcs_into(text, 2) == [(1, UNKNOWN)]
    assert of_bytes.arcs_into(text, 3) == [(1, UNKNOWN), (2, 0), (3, 1)]
    assert Rules(pieces, "characters", None).arcs_into(text, 6) == []


@settings(max_examples=150)
@given(cases(longest_text=16))
def test_no_arc_spans_a_cut_and_segments_tile_the_text(case: Case) -> None:
    rules = rules_of(case.tokenizer(), 1.0)
    for text in case.texts:
        data = text.encode() if isinstance(text, str) else text
        found = reference.segments(data, rules)
        bounds = [0, *(stop for _, stop in found)]
        assert found == list(pairwise(bounds))
        assert bounds[-1] == len(data)
        for e in range(1, len(data) + 1):
            for length, _ in rules.arcs_into(data, e):
                assert not any(e - length < p < e for p in bounds)


@settings(max_examples=100)
@given(cases(always_spelled=True), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, WORDS))
def test_a_sample_is_a_path_and_segments_multiply_to_the_whole(case: Case, alpha: float, seed: int) -> None:
    tokenizer = case.tokenizer()
    vocabulary = tokenizer._model.vocabulary
    weights = [math.exp(alpha * score) for score in vocabulary.scores]
    rules = rules_of(tokenizer, math.exp(alpha * vocabulary.unk_score))
    for text in case.texts:
        data = text.encode() if isinstance(text, str) else text
        path, z = reference.sample(data, rules, weights, seed)
        e = 0
        for length, arc in path:
            e += length
            assert (length, arc) in rules.arcs_into(data, e)
        assert e == len(data)
        whole = reference.log(reference.forward_scores(data, rules, weights)[-1])
        assert reference.log(z) == pytest.approx(whole, rel=1e-12, abs=1e-12)


@settings(max_examples=100)
@given(cases(always_spelled=True))
def test_the_best_path_has_the_best_score_of_all(case: Case) -> None:
    tokenizer = case.tokenizer()
    vocabulary = tokenizer._model.vocabulary
    for text in case.texts:
        data = text.encode() if isinstance(text, str) else text
        path = reference.viterbi(data, rules_of(tokenizer), vocabulary.scores, np.float64(vocabulary.unk_score))
        score = math.fsum(vocabulary.unk_score if arc == UNKNOWN else vocabulary.scores[arc] for _, arc in path)
        best = max(brute_force(text, case.pieces, case.unk_piece).scores)
        assert score == pytest.approx(best, rel=1e-12, abs=1e-12)


def test_of_equal_sums_the_longest_last_arc_wins() -> None:
    rules = Rules({b"a": 0, b"aa": 1, b"aaa": 2}, "bytes", None)
    scores = np.array([-1.0, -2.0, -3.0])
    assert reference.viterbi(b"aaaa", rules, scores, np.float64(0)) == [(1, 0), (3, 2)]


def test_the_reset_is_subtracted_from_every_end_that_was_reached() -> None:
    # float32 has no 1/4 left at -2e5 - 2e7: without the reset all four paths of "bc" tie.
    rules = Rules({b"a": 0, b"b": 1, b"c": 2, b"bc": 3}, "bytes", None)
    scores = np.array([-2e7, -0.25, -0.25, -0.75], np.float32)
    assert reference.viterbi(b"abc", rules, scores, np.float32(0), None) == [(1, 0), (2, 3)]
    assert reference.viterbi(b"abc", rules, scores, np.float32(0), 1e5) == [(1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("byte_ids", "unknown_runs", "ids"),
    [
        (None, "merge", [0, 9, 0, 9]),
        (None, "apart", [0, 9, 9, 0, 9]),
        (None, "lookup", [0, 9, 0, 5]),
        (list(range(100, 356)), "merge", [0, 100 + 120, 100 + 121, 0, 100 + 122]),
        (list(range(100, 356)), "lookup", [0, 100 + 120, 100 + 121, 0, 5]),
        ([-1 if byte == 121 else byte for byte in range(256)], "merge", [0, 9, 0, 122]),
    ],
)
def test_runs_of_unknown_arcs_become_a_piece_or_bytes_or_one_unknown_id(byte_ids, unknown_runs: str, ids) -> None:
    rules = Rules({b"a": 0, b"z": 5}, "bytes", 1.0)
    path = [(1, 0), (1, UNKNOWN), (1, UNKNOWN), (1, 0), (1, UNKNOWN)]
    assert reference.emit(path, b"axyaz", rules, 9, byte_ids, unknown_runs) == ids


def test_text_that_no_path_spells_is_an_error_with_its_position() -> None:
    rules = Rules({b"a": 0, b"b": 1}, "bytes", None)
    for function in (
        lambda: reference.sample(b"abxab", rules, [1.0, 1.0]),
        lambda: reference.viterbi(b"abxab", rules, np.zeros(2), np.float64(0)),
    ):
        with pytest.raises(ValueError, match="no segmentation reaches byte"):
            function()


def test_back_pointers_have_the_probabilities_of_the_arcs() -> None:
    rules = Rules({b"a": 0, b"b": 1, b"ab": 2}, "bytes", None)
    draws = 20_000
    generator = random.Random(1)
    joined = sum(
        len(reference.sample(b"ab", rules, [0.4, 0.2, 0.3], generator.getrandbits(64))[0]) == 1 for _ in range(draws)
    )
    assert joined / draws == pytest.approx(0.3 / 0.38, abs=5 * math.sqrt(0.25 / draws))
