"""Viterbi Sampling is biased as BytePiece 0.4's was, exactly so, where perfect samples are not."""

import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from brute_force import Ids, brute_force, counted, p_value
from conftest import DATA
from cuda_on_cpu.host_device import HostDevice, compiler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lattices import DEVICES, both, documents_of, on
from situations import Situation, situations
from strategies import Case, cases

from gpu_lattice import Tokenizer
from gpu_lattice.backends.cpu import CpuBackend
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.kernels import reference_lattice as reference
from gpu_lattice.kernels.fixed import fixed_log
from gpu_lattice.lattice import Lattice, RaggedLattice, viterbi_sample

RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
ALPHAS = st.sampled_from([0.05, 0.3, 1.0, 20.0])
SEEDS = st.integers(0, 2**64 - 1)
DRAWS = 100_000
LEAST_P = 1e-3

Weights = dict[str, Fraction]


def fractions(weights: dict[str, str]) -> Weights:
    return {piece: Fraction(weight) for piece, weight in weights.items()}


WATCHING = fractions({"w": ".36", "atching": ".1", "wat": ".33", "ching": ".1", "watch": ".31", "ing": ".1"})
THIRDS = fractions({"w": "1/3", "atching": "1", "wat": "1/3", "ching": "1", "watch": "1/3", "ing": "1"})
AAAA = fractions({"a": "1/4", "aa": "1/4", "aaa": "1/4", "aaaa": "1/4"})
ABCD = fractions(
    {"a": ".12", "b": ".14", "c": ".04", "d": ".03", "ab": ".04", "bc": ".08", "cd": ".11", "abc": ".07", "bcd": ".02"}
)
TABLES: list[tuple[Weights, str, dict[str, Fraction | str]]] = [
    (THIRDS, "watching", {"w atching": Fraction(1, 4), "wat ching": Fraction(1, 4), "watch ing": Fraction(1, 2)}),
    (
        WATCHING,
        "watching",
        {
            "w atching": Fraction(432, 1541),
            "wat ching": Fraction(363, 1472),
            "watch ing": Fraction(46655, 98624),
        },
    ),
    (
        AAAA,
        "aaaa",
        {
            "aaaa": ".5619",
            "aaa a": ".2029",
            "a aaa": ".0674",
            "aa aa": ".1265",
            "a a aa": ".0052",
            "a aa a": ".0126",
            "aa a a": ".0228",
            "a a a a": ".0007",
        },
    ),
    (ABCD, "abcd", {"abc d": ".354", "ab cd": ".326"}),
]


def viterbi_sample_probabilities(weights: Weights, text: str, alpha: int = 1) -> dict[Ids, Fraction]:
    """By every outcome of every comparison: a state is the prefix drawn to each position, with its weight."""
    id_of = {piece: i for i, piece in enumerate(weights)}
    states: dict[tuple[tuple[Fraction, Ids] | None, ...], Fraction] = {((Fraction(1), ()),): Fraction(1)}
    for e in range(1, len(text) + 1):
        after: Counter[Any] = Counter()
        for prefixes, chance in states.items():
            standing: dict[tuple[Fraction, Ids] | None, Fraction] = {None: chance}
            for s in range(e):
                prefix = prefixes[s]
                if prefix is None or text[s:e] not in weights:
                    continue
                new = prefix[0] * weights[text[s:e]], (*prefix[1], id_of[text[s:e]])
                results: Counter[Any] = Counter()
                for old, p in standing.items():
                    won = Fraction(1) if old is None else new[0] ** alpha / (new[0] ** alpha + old[0] ** alpha)
                    results[new] += p * won
                    results[old] += p * (1 - won)
                standing = {state: p for state, p in results.items() if p}
            for state, p in standing.items():
                after[(*prefixes, state)] += p
        states = after
    ends: Counter[Any] = Counter()
    for prefixes, chance in states.items():
        assert prefixes[-1] is not None
        ends[prefixes[-1][1]] += chance
    return dict(ends)


def tokenizer_of(weights: Weights) -> Tokenizer:
    return Tokenizer.from_pieces({piece: math.log(weight) for piece, weight in weights.items()}, device="cpu")


@pytest.mark.parametrize(("weights", "text", "table"), TABLES)
def test_enumeration_gives_the_published_tables(weights: Weights, text: str, table: dict[str, Any]) -> None:
    probabilities = viterbi_sample_probabilities(weights, text)
    assert sum(probabilities.values()) == 1
    pieces = list(weights)
    for path, expected in table.items():
        got = probabilities[tuple(map(pieces.index, path.split()))]
        digits = len(str(expected)) - 1
        assert got == expected if isinstance(expected, Fraction) else round(float(got), digits) == float(expected)


@pytest.mark.parametrize("alpha", [1, 2])
@pytest.mark.parametrize(("weights", "text", "table"), TABLES)
def test_samples_have_the_biased_probabilities_and_perfect_samples_the_true_ones(
    weights: Weights, text: str, table: dict[str, Any], alpha: int
) -> None:
    biased = {ids: float(p) for ids, p in viterbi_sample_probabilities(weights, text, alpha).items()}
    true = brute_force(text, {piece: math.log(weight) for piece, weight in weights.items()}).probabilities(alpha)
    lattice = tokenizer_of(weights).lattice(text)
    drawn = counted(lattice.viterbi_sample(alpha=alpha, num_samples=DRAWS, seed=1).tolist())
    assert p_value(drawn, biased) > LEAST_P
    assert p_value(counted(lattice.sample(alpha=alpha, num_samples=DRAWS, seed=1).tolist()), true) > LEAST_P
    assert p_value(drawn, true) < 1e-9


def test_texts_of_a_batch_are_independent_draws() -> None:
    lattice = tokenizer_of(AAAA).lattice(["aaaa"] * DRAWS)
    rows = lattice.viterbi_sample(alpha=1.0, seed=4).tolist()
    biased = {ids: float(p) for ids, p in viterbi_sample_probabilities(AAAA, "aaaa").items()}
    assert p_value(counted(rows), biased) > LEAST_P
    pairs = Counter(zip(map(tuple, rows[::2]), map(tuple, rows[1::2]), strict=True))
    assert p_value(pairs, {(a, b): p * q for a, p in biased.items() for b, q in biased.items()}) > LEAST_P


def path_of(marks: Any) -> reference.Path:
    return [(e, rank) for e, rank in enumerate(marks.tolist()) if rank >= 0]


@RELAXED
@given(cases(longest_text=20), ALPHAS, SEEDS)
def test_draws_are_those_of_the_definition(case: Case, alpha: float, seed: int) -> None:
    doc_ids = [seed ^ i for i in range(len(case.texts))]
    for lattice in both(case.tokenizer(), case.texts):
        options = {"alpha": alpha, "num_samples": 3, "seed": seed, "doc_ids": np.array(doc_ids, np.uint64)}
        scores = lattice._scores(None)
        documents = documents_of(lattice, scores)
        if 0 in lattice.num_paths():
            with pytest.raises(ValueError, match="has no segmentation"):
                lattice.viterbi_sample(**options)
            with pytest.raises(ValueError, match="no path"):
                reference.viterbi_sample(documents[lattice.num_paths().index(0)], alpha)
            continue
        draw = lattice_draw(lattice, scores, alpha, 3, seed, options["doc_ids"])
        bounds = lattice.to_ragged().row_splits[0].tolist()
        for i_doc, document in enumerate(documents):
            for i_sample in range(3):
                expected = reference.viterbi_sample(document, alpha, seed, doc_ids[i_doc], i_sample)
                assert path_of(draw[i_sample, bounds[i_doc] : bounds[i_doc + 1]]) == expected
        assert len(lattice.viterbi_sample(**options)) == 3 * len(documents)


def lattice_draw(lattice: Lattice, scores: Any, alpha: float, num_samples: int, seed: int, doc_ids: Any) -> Any:
    options = viterbi_sample.SampleOptions(num_samples, seed, doc_ids)
    args = lattice._launcher, lattice._arrays, lattice._segments, scores, alpha, options, lattice._check_fits
    return viterbi_sample.draw(*args)


@pytest.mark.skipif(compiler() is None, reason="needs g++")
@settings(max_examples=60)
@given(situations(), ALPHAS, SEEDS)
def test_any_rules_for_unknown_text_and_any_chunks_give_the_same_on_both_devices(
    situation: Situation, alpha: float, seed: int
) -> None:
    backends = CpuBackend(situation.model, 1), CudaBackend(situation.model, HostDevice(reversed=True))
    cpu, cuda = (Lattice.of(situation.model, b, situation.batch, ~situation.is_null, None) for b in backends)
    options = {"alpha": alpha, "num_samples": 2, "seed": seed, "doc_ids": situation.doc_ids}
    if 0 in cpu.num_paths():
        for lattice in (cpu, cuda):
            with pytest.raises(ValueError, match="has no segmentation"):
                lattice.viterbi_sample(**options)
        return
    assert cuda.viterbi_sample(**options).tolist() == cpu.viterbi_sample(**options).tolist()


@pytest.mark.parametrize("device", DEVICES)
def test_groups_and_batches_do_not_matter(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a new dawn", "", "hello world " * 5, "x"]
    doc_ids = np.array([3, 1, 4, 2**63], np.uint64)
    tokenizer = on(device, Tokenizer.default(device="cpu"))
    options: dict[str, Any] = {"alpha": 0.2, "num_samples": 5, "seed": 2**40}
    expected = tokenizer.lattice(texts).viterbi_sample(**options, doc_ids=doc_ids).tolist()
    for group, slice_ in ((1, 1), (300, 7), (10**6, 100)):
        monkeypatch.setattr(viterbi_sample, "SAMPLED_ARCS", group)
        monkeypatch.setattr(viterbi_sample, "LOGITS", slice_)
        alone = []
        for i, text in enumerate(texts):
            alone += tokenizer.lattice(text).viterbi_sample(**options, doc_ids=doc_ids[i : i + 1]).tolist()
        assert alone == expected
        assert tokenizer.lattice(texts).viterbi_sample(**options, doc_ids=doc_ids).tolist() == expected
    more = tokenizer.lattice(texts).viterbi_sample(**options | {"num_samples": 7}, doc_ids=doc_ids).tolist()
    assert [more[i * 7 + k] for i in range(4) for k in range(5)] == expected


def test_a_great_alpha_gives_the_best_path() -> None:
    texts = (DATA / "en.txt").read_text("utf-8").split("\n")[:40]
    lattice = Tokenizer.default(device="cpu").lattice(texts)
    assert lattice.viterbi_sample(alpha=1e6).tolist() == lattice.viterbi().tokens.tolist()


def test_sums_run_through_the_whole_text() -> None:
    """A text that others come before is drawn as it would be alone, but for rounding: cuts neither help nor harm."""
    tokenizer = Tokenizer.from_pieces({"a": -1.0, "aa": -1.9, "b": -0.25}, device="cpu")
    lattice = tokenizer.lattice(["aab" * 50])
    assert len(lattice._segments.starts) > 50
    rows = lattice.viterbi_sample(alpha=1.0, num_samples=2000, seed=9)
    # Of the arcs a, aa into the second a, the longer one stands first.
    share = float((rows.ids == 1).sum()) / (50 * 2000)
    assert share == pytest.approx(1 / (1 + math.exp(-0.1)), abs=4.5 * math.sqrt(0.25 / 1e5))


@pytest.mark.parametrize("device", DEVICES)
def test_given_weights_are_exponentials_of_scores(device: str) -> None:
    pieces = {"a": -1.0, "b": -2.0, "ab": -2.5, "ba": -0.5}
    lattice = on(device, Tokenizer.from_pieces(pieces, device="cpu")).lattice(["ababa", "", "ba"])
    expected = lattice.viterbi_sample(alpha=0.7, num_samples=50).tolist()
    by_id = np.exp(0.7 * np.array(list(pieces.values())))
    padded = np.where(lattice.piece_id >= 0, by_id[lattice.piece_id], 9.0)
    for weights in (by_id, padded, lattice._weights(0.7, None)[:, None]):
        assert lattice.viterbi_sample(weights=weights, num_samples=50).tolist() == expected
    # Arcs of weight 0 are none: the first arc that stands is the longest of the others.
    assert 2 not in lattice.viterbi_sample(weights=np.array([1.0, 1.0, 0.0, 1.0]), num_samples=99).ids
    with pytest.raises(ValueError, match="document 2 has no segmentation: no path reaches byte 2"):
        lattice.viterbi_sample(weights=np.array([1.0, 0.0, 1.0, 0.0]))


def test_parallel_arcs_of_a_ragged_lattice_compete_from_the_last_on() -> None:
    three = RaggedLattice(np.array([0, 1, 2]), np.array([1, 1, 1]), (np.array([0, 2]), np.array([0, 0, 3])))
    out = Lattice.from_ragged(three).viterbi_sample(weights=np.array([1.0, 1.0, 1.0]), num_samples=DRAWS)
    assert p_value(counted(out.tolist()), {(0,): 0.5, (1,): 0.25, (2,): 0.25}) > LEAST_P


@pytest.mark.parametrize("device", DEVICES)
def test_odd_batches_are_defined(device: str) -> None:
    tokenizer = on(device, Tokenizer.from_pieces({"a": -1.0, "bb": -2.0}, device="cpu"))
    assert tokenizer.lattice([]).viterbi_sample(num_samples=3).tolist() == []
    out = tokenizer.lattice(["", None, "abb"]).viterbi_sample(num_samples=2)
    assert out.tolist() == [[], [], None, None, [0, 1], [0, 1]]
    with pytest.raises(ValueError, match="document 1 has no segmentation: no path reaches byte 2"):
        tokenizer.lattice(["aa", "aba"]).viterbi_sample()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["en_split.tokenizer.json", "ja_whole.tokenizer.json", "zh_bytes.model"])
def test_models_with_tokens_byte_pieces_and_ids_around_rows(device: str, name: str) -> None:
    cpu = Tokenizer.from_file(DATA / name, device="cpu")
    texts = ["a new dawn 新しい朝", "<s>x</s>", "", "\x00🎉"]
    lattice = on(device, cpu).lattice(texts)
    rows = lattice.viterbi_sample(alpha=0.3, num_samples=3, seed=7).tolist()
    assert rows == cpu.lattice(texts).viterbi_sample(alpha=0.3, num_samples=3, seed=7).tolist()
    sampled = lattice.sample(alpha=0.3, num_samples=3, seed=0).tolist()
    assert cpu.decode(rows) == cpu.decode(sampled)


@pytest.mark.parametrize(
    ("alpha", "error", "message"),
    [
        (0, ValueError, "best path in BytePiece 0.4"),
        (0.0, ValueError, "give a number > 0"),
        (-1.0, ValueError, "alpha is -1.0"),
        (math.inf, ValueError, "alpha is inf"),
        ("1", TypeError, "give a number"),
    ],
)
def test_what_is_no_alpha_is_refused(alpha: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tokenizer_of(AAAA).lattice("aaaa").viterbi_sample(alpha=alpha)


def test_alpha_and_weights_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="both alpha"):
        tokenizer_of(AAAA).lattice("aaaa").viterbi_sample(alpha=1.0, weights=np.ones(4))


def test_every_arc_of_a_text_has_a_counter_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    lattice = Tokenizer.from_pieces(["a", "aa", "aaa"], device="cpu").lattice(["aaaa", "", "aa"])
    doc_ids, positions = viterbi_sample._counters(
        lattice._arrays, viterbi_sample.SampleOptions(1, 0, np.array([7, 8, 9], np.uint64))
    )
    assert doc_ids.tolist() == [7] * 9 + [9] * 3
    assert (2**32 - 2 - positions).tolist() == [*range(9), *range(3)]
    monkeypatch.setattr(viterbi_sample, "FIRST_ARC", 13)
    with pytest.raises(ValueError, match="more than 13 bytes and arcs"):
        lattice.viterbi_sample()
    monkeypatch.setattr(viterbi_sample, "FIRST_ARC", 14)
    assert len(lattice.viterbi_sample()) == 3


def test_a_uniform_number_of_zero_always_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viterbi_sample, "uniforms", lambda *args: np.zeros((1, 3)))
    out = np.empty((1, 3))
    viterbi_sample._fill_logits(out, 0, np.arange(3), 0, np.zeros(3, np.uint64))
    assert (out == -np.inf).all()
    monkeypatch.setattr(viterbi_sample, "uniforms", lambda *args: np.full((1, 3), 0.25))
    viterbi_sample._fill_logits(out, 0, np.arange(3), 0, np.zeros(3, np.uint64))
    assert (out == fixed_log(np.array(0.25)) - fixed_log(np.array(0.75))).all()


def test_what_does_not_fit_is_refused_before_it_is_allocated() -> None:
    lattice = Tokenizer.from_pieces(["a", "aa"], device="cpu").lattice(["a" * 1000], memory_limit=10_000_000)
    assert len(lattice.viterbi_sample(num_samples=100)) == 100
    with pytest.raises(MemoryError, match="1000 samples takes"):
        lattice.viterbi_sample(num_samples=1000)
