"""Samples have exactly the promised distribution: partitions, log-probabilities and frequencies against enumeration."""

import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from brute_force import Ids, brute_force, counted, p_value
from by_reference import rules_of
from hypothesis import given, settings
from strategies import Case, cases

from gpu_lattice import Tokenizer
from gpu_lattice.kernels import reference
from gpu_lattice.weights import arc_weights

ALPHAS = (0.0, 0.1, 0.5, 1.0, 2.0)
DRAWS = 100_000
LEAST_P = 1e-6


def fractions(weights: dict[str, str]) -> dict[str, float]:
    """Pieces with the logarithms of their weights."""
    return {piece: math.log(float(Fraction(weight))) for piece, weight in weights.items()}


# Three lattices on which samplers that draw greedily from left to right are biased.
WATCHING = fractions({"w": ".36", "atching": ".1", "wat": ".33", "ching": ".1", "watch": ".31", "ing": ".1"})
AAAA = fractions({"a": "1/4", "aa": "1/4", "aaa": "1/4", "aaaa": "1/4"})
ABCD = fractions(
    {"a": ".12", "b": ".14", "c": ".04", "d": ".03", "ab": ".04", "bc": ".08", "cd": ".11", "abc": ".07", "bcd": ".02"}
)


@settings(max_examples=50)
@given(cases())
def test_partitions_and_log_probabilities_equal_enumeration(case: Case) -> None:
    tokenizer = case.tokenizer()
    vocabulary = tokenizer._model.vocabulary
    for text in case.texts:
        paths = brute_force(text, case.pieces, case.unk_piece)
        if not paths.ids:
            with pytest.raises(ValueError, match="document 0 cannot be spelled"):
                tokenizer.sample(text, seed=0)
            with pytest.raises(ValueError, match="document 0 cannot be spelled"):
                tokenizer.encode(text)
            continue
        for alpha in ALPHAS:
            log_z = paths.log_z(alpha)
            weights = arc_weights(vocabulary, alpha).tolist()
            data = text.encode() if isinstance(text, str) else text
            z = reference.forward_scores(data, rules_of(tokenizer, weights[-1]), weights)[-1]
            assert reference.log(z) == pytest.approx(log_z, rel=1e-12, abs=1e-13)
            out = tokenizer.sample(text, alpha=alpha, num_samples=3, seed=1, return_log_prob=True)
            assert out.log_prob is not None
            for row, log_prob in zip(out.tolist(), out.log_prob.tolist(), strict=True):
                # Merged unknown ids may hide which of several paths a row is.
                scores = [score for ids, score in zip(paths.ids, paths.scores, strict=True) if ids == tuple(row)]
                assert any(alpha * s - log_prob == pytest.approx(log_z, rel=1e-12, abs=1e-12) for s in scores)


FIXED: list[tuple[dict[Any, float | None], Any, str | bytes]] = [
    (WATCHING, None, "watching"),
    (AAAA, None, "aaaa"),
    (ABCD, None, "abcd"),
    ({"a": -1.0, "b": -2.0, "ab": -2.5, "ba": -0.5, "aba": -3.0}, None, "abababab"),
    ({"é": -1.0, "漢": -2.0, "é漢": -2.2, "漢é": -3.5, "漢漢": -1.5}, None, "é漢漢é漢é"),
    ({"😀": -1.0, "x": -0.3, "😀😀": -1.9, "😀x": -1.1, "x😀x": -2.0}, None, "x😀x😀😀x"),
    ({"aa": -1.0, "<unk>": None, "b": -0.5, "ab": -3.0}, "<unk>", "aaaabaa"),
    ({b"\x00": -1.0, b"\xff": -0.5, b"\x00\xff": -1.2, b"\xff\x00\xff": -2.2}, None, b"\x00\xff\x00\xff\xff\x00\xff"),
    ({b"\xe6": None, b"\xbc": None, b"\xa2": None, b"\xe6\xbc\xa2": None, b"\xa2\xe6": None}, None, "漢漢漢".encode()),
    ({b"a": 1.5, b"aa": 3.5, b"aaa": -6.0, b"b": -8.0, b"?": None}, b"?", b"aaaaa\xc3aab"),
]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("pieces", "unk_piece", "text"), FIXED)
def test_a_hundred_thousand_samples_have_the_enumerated_probabilities(pieces, unk_piece, text, alpha: float) -> None:
    tokenizer = Tokenizer.from_pieces(pieces, unk_piece=unk_piece, device="cpu")
    probabilities = brute_force(text, pieces, unk_piece).probabilities(alpha)
    out = tokenizer.sample(text, alpha=alpha, num_samples=DRAWS, seed=20231016)
    counts = counted(out.tolist())
    assert counts.total() == DRAWS
    assert p_value(counts, probabilities) > LEAST_P


@pytest.mark.parametrize(
    ("pieces", "text", "table"),
    [
        (WATCHING, "watching", {"w atching": "36/100", "wat ching": "33/100", "watch ing": "31/100"}),
        (
            AAAA,
            "aaaa",
            {
                "aaaa": "64/125",
                "aaa a": "16/125",
                "a aaa": "16/125",
                "aa aa": "16/125",
                "a a aa": "4/125",
                "a aa a": "4/125",
                "aa a a": "4/125",
                "a a a a": "1/125",
            },
        ),
        (
            ABCD,
            "abcd",
            {
                "ab cd": "440000/1110416",
                "abc d": "210000/1110416",
                "a bcd": "240000/1110416",
                "a bc d": "28800/1110416",
                "a b cd": "184800/1110416",
                "ab c d": "4800/1110416",
                "a b c d": "2016/1110416",
            },
        ),
    ],
)
def test_worked_examples_have_their_exact_tables(pieces: dict[str, float], text: str, table: dict[str, str]) -> None:
    tokenizer = Tokenizer.from_pieces(pieces, device="cpu")
    names = list(pieces)
    expected = {tuple(names.index(piece) for piece in path.split()): Fraction(p) for path, p in table.items()}
    assert sum(expected.values()) == 1
    out = tokenizer.sample(text, alpha=1, num_samples=DRAWS, seed=9811, return_log_prob=True)
    assert out.log_prob is not None
    rows = [tuple(row) for row in out.tolist()]
    reported = dict(zip(rows, np.exp(out.log_prob).tolist(), strict=True))
    assert reported == pytest.approx({ids: float(p) for ids, p in expected.items()}, rel=1e-12)
    assert p_value(Counter(rows), {ids: float(p) for ids, p in expected.items()}) > LEAST_P


@pytest.mark.parametrize("symbol", ["a", "漢", b"\xff"])
def test_all_zero_scores_over_all_pieces_are_uniform_over_two_to_the_n_minus_one_paths(symbol: Any) -> None:
    n = 11
    tokenizer = Tokenizer.from_pieces([symbol * length for length in range(1, n + 1)], device="cpu")
    out = tokenizer.sample(symbol * n, alpha=0, num_samples=DRAWS, seed=2, return_log_prob=True)
    assert out.log_prob == pytest.approx(np.full(DRAWS, -(n - 1) * math.log(2)), rel=1e-14)
    counts = counted(out.tolist())
    assert len(counts) == 2 ** (n - 1)
    assert all(sum(i + 1 for i in ids) == n for ids in counts)
    assert p_value(counts, dict.fromkeys(counts, 2.0 ** (1 - n))) > LEAST_P


def test_alpha_zero_counts_paths_whatever_the_scores() -> None:
    pieces = {"a": -1.0, "aa": -700.0, "aaa": 5.0}
    out = Tokenizer.from_pieces(pieces, device="cpu").sample("a" * 20, alpha=0, return_log_prob=True, seed=0)
    assert out.log_prob == pytest.approx([-math.log(121415)], rel=1e-14)  # tribonacci


def test_counts_of_paths_beyond_float64_are_exact() -> None:
    n = 3000
    tokenizer = Tokenizer.from_pieces(["a" * length for length in range(1, n + 1)], device="cpu")
    out = tokenizer.sample("a" * n, alpha=0, num_samples=3, return_log_prob=True, seed=0)
    assert out.log_prob == pytest.approx(np.full(3, -(n - 1) * math.log(2)), rel=1e-13)
    lengths = np.concatenate([np.asarray(row) + 1 for row in out.tolist()])
    assert lengths.sum() == 3 * n
    # Each of the 3 (n - 1) inner boundaries is a cut with probability 1/2, independently of the others.
    cuts = len(lengths) - 3
    assert abs(cuts - 3 * (n - 1) / 2) < 5 * math.sqrt(3 * (n - 1) / 4)


PRECISE_DRAWS = 4_000_000


@pytest.fixture(scope="module")
def precise_counts() -> Counter[Ids]:
    pieces = fractions({"a": "2/5", "b": "1/5", "ab": "3/100"})
    out = Tokenizer.from_pieces(pieces, device="cpu").sample(["ab"] * 40, alpha=1, num_samples=DRAWS, seed=38)
    lengths = np.bincount(np.diff(out.offsets))
    return Counter({(0, 1): int(lengths[2]), (2,): int(lengths[1])})


def test_four_million_samples_agree_with_a_probability_of_three_elevenths(precise_counts: Counter[Ids]) -> None:
    assert precise_counts.total() == PRECISE_DRAWS
    assert p_value(precise_counts, {(0, 1): 8 / 11, (2,): 3 / 11}) > LEAST_P


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_four_million_samples_tell_an_error_of_one_percent(precise_counts: Counter[Ids], factor: float) -> None:
    wrong = 3 / 11 * factor
    assert p_value(precise_counts, {(0, 1): 1 - wrong, (2,): wrong}) < LEAST_P


def joint(first: list[list[int]], second: list[list[int]]) -> Counter[Any]:
    return Counter(zip(map(tuple, first), map(tuple, second), strict=True))


@pytest.mark.parametrize(
    "pair",
    [
        "next document",
        "document 2^32 later",
        "next sample",
        "next seed",
        "seed 2^32 later",
    ],
)
def test_draws_of_different_counters_are_independent(pair: str) -> None:
    tokenizer = Tokenizer.from_pieces(AAAA, device="cpu")
    many = ["aaa"] * DRAWS
    ids = np.arange(DRAWS, dtype=np.uint64)
    first = tokenizer.sample(many, alpha=1, seed=3, doc_ids=2 * ids).tolist()
    if pair == "next document":
        second = tokenizer.sample(many, alpha=1, seed=3, doc_ids=2 * ids + 1).tolist()
    elif pair == "document 2^32 later":
        second = tokenizer.sample(many, alpha=1, seed=3, doc_ids=2 * ids + 2**32).tolist()
    elif pair == "next sample":
        rows = tokenizer.sample("aaa", alpha=1, seed=3, num_samples=2 * DRAWS).tolist()
        first, second = rows[0::2], rows[1::2]
    else:
        seed = 4 if pair == "next seed" else 3 + 2**32
        second = tokenizer.sample(many, alpha=1, seed=seed, doc_ids=2 * ids).tolist()
    single = brute_force("aaa", AAAA).probabilities(1)
    both = {(a, b): p * q for a, p in single.items() for b, q in single.items()}
    assert p_value(joint(first, second), both) > LEAST_P


def test_paths_of_a_segment_with_more_bytes_than_share_a_number_have_their_joint_probabilities() -> None:
    """4181 paths, each of which goes on from one random number to the next."""
    pieces, text = {"a": -1.0, "aa": -2.5}, "a" * (reference.DRAW_BYTES + 2)
    truth = brute_force(text, pieces).probabilities(0.5)
    drawn = Tokenizer.from_pieces(pieces, device="cpu").sample(text, alpha=0.5, num_samples=400_000, seed=11)
    assert p_value(counted(drawn.tolist()), truth) > LEAST_P


def test_segments_of_one_document_are_drawn_independently() -> None:
    """No piece holds "ba", so that "aaabaaab" is two segments "aaab" that look alike."""
    pieces = {**AAAA, "b": -0.5, "ab": -2.0}
    tokenizer = Tokenizer.from_pieces(pieces, device="cpu")
    rows = tokenizer.sample("aaabaaab", alpha=0.5, num_samples=DRAWS, seed=6).tolist()
    assert p_value(counted(rows), brute_force("aaabaaab", pieces).probabilities(0.5)) > LEAST_P


def test_log_probabilities_of_many_segments_add_up() -> None:
    """A long text of independent words: the sum of the words' own log-probabilities, to rounding."""
    tokenizer = Tokenizer.from_pieces({**ABCD, " ": -1.0}, device="cpu")
    words = ["abcd", "cdab", "bcdabc", "a", "dcba"] * 200
    paths = {word: brute_force(word, {**ABCD, " ": -1.0}) for word in words}
    out = tokenizer.sample(" ".join(words), alpha=0.7, num_samples=5, seed=8, return_log_prob=True)
    assert out.log_prob is not None
    log_z = math.fsum(paths[word].log_z(0.7) for word in words) - 0.7 * (len(words) - 1)
    scores = np.append(list(ABCD.values()), -1.0)
    for row, log_prob in zip(out.tolist(), out.log_prob.tolist(), strict=True):
        assert 0.7 * math.fsum(scores[row]) - log_prob == pytest.approx(log_z, rel=1e-12)


def test_large_alpha_samples_the_best_segmentation() -> None:
    tokenizer = Tokenizer.from_pieces(ABCD, device="cpu")
    texts = ["abcd", "abcdabcd", "dcbabcda"]
    for row in range(100):
        assert tokenizer.sample(texts, alpha=100, seed=row).tolist() == tokenizer.encode(texts).tolist()
