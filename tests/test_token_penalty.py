"""token_penalty: a path of n arcs weighs exp(alpha * score - token_penalty * n), everywhere."""

import math
from typing import Any

import numpy as np
import pytest
from brute_force import Enumeration, brute_force, counted, p_value
from by_reference import sample_ids
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from lattices import DEVICES, both, on
from strategies import cases

from gpu_lattice import Tokenizer

DRAWS = 100_000
LEAST_P = 1e-6
TILTS = [(0.0, 1.0), (0.0, -0.7), (0.5, 2.0), (1.0, 0.3)]
# The last has unknown symbols that some pieces cover.
FIXED: list[tuple[dict[Any, float | None], Any, str | bytes]] = [
    ({"a": -1.0, "b": -2.0, "ab": -2.5, "ba": -0.5, "aba": -3.0}, None, "abababab"),
    ({b"a": None, b"aa": None, b"aaa": None}, None, b"aaaaaaaa"),
    ({"aa": -1.0, "<unk>": None, "b": -0.5, "ab": -3.0, "xx": -2.0}, "<unk>", "xxaaabxaa"),
]


def made(pieces: Any, unk_piece: Any) -> Tokenizer:
    return Tokenizer.from_pieces(pieces, unk_piece=unk_piece, device="cpu", threads=1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("alpha", "penalty"), TILTS)
@pytest.mark.parametrize(("pieces", "unk_piece", "text"), FIXED)
def test_samples_have_the_enumerated_probabilities(
    device: str, pieces: Any, unk_piece: Any, text: Any, alpha: float, penalty: float
) -> None:
    tokenizer = on(device, made(pieces, unk_piece))
    every = brute_force(text, pieces, unk_piece)
    options = {"alpha": alpha, "token_penalty": penalty, "num_samples": DRAWS, "seed": 23, "return_log_prob": True}
    out = tokenizer.sample(text, **options)
    assert p_value(counted(out.tolist()), every.probabilities(alpha, penalty)) > LEAST_P
    log_z = every.log_z(alpha, penalty)
    possible = {round(weight - log_z, 10) for weight in every.log_weights(alpha, penalty)}
    assert {round(log_prob, 10) for log_prob in out.log_prob.tolist()} <= possible
    assert tokenizer.lattice(text).sample(**options | {"num_samples": 99}).tolist() == out.tolist()[:99]


@settings(max_examples=40)
@given(cases(), st.sampled_from(TILTS))
def test_every_operation_equals_enumeration(case: Any, tilt: tuple[float, float]) -> None:
    alpha, penalty = tilt
    every = [brute_force(text, case.pieces, case.unk_piece) for text in case.texts]
    tokenizer = case.tokenizer()
    for lattice in both(tokenizer, case.texts):
        log_z = lattice.log_partition(alpha, token_penalty=penalty).tolist()
        assert log_z == pytest.approx([log_z_of(one, alpha, penalty) for one in every], abs=1e-12)
        forward = lattice.forward_scores(alpha, token_penalty=penalty)
        backward = lattice.backward_scores(alpha, token_penalty=penalty)
        assert backward[:, 0].tolist() == pytest.approx(log_z, abs=1e-12)
        assert forward[np.arange(len(every)), lattice.num_bytes].tolist() == pytest.approx(log_z, abs=1e-12)
        probabilities = [np.exp(one.log_probs(alpha, penalty)) if one.ids else [] for one in every]
        arcs = [float(np.dot(p, one.num_arcs)) for p, one in zip(probabilities, every, strict=True)]
        marginals = lattice.marginals(alpha, token_penalty=penalty)
        assert marginals.sum(axis=(1, 2)).tolist() == pytest.approx(arcs, abs=1e-12)
        entropies = [-float(np.dot(p, np.log(p))) for p in probabilities]
        assert lattice.entropy(alpha, token_penalty=penalty).tolist() == pytest.approx(entropies, abs=1e-12)
        for i_doc, one in enumerate(every):
            ranked = sorted(one.log_weights(alpha, penalty), reverse=True)[:5]
            alone = lattice.take([i_doc])
            assert alone.nbest(5, alpha=alpha, token_penalty=penalty).scores.tolist() == pytest.approx(
                ranked, abs=1e-12
            )
            for ids, p in list(one.probabilities(alpha, penalty).items() if one.ids else [])[:20]:
                found = alone.log_prob([ids], alpha=alpha, token_penalty=penalty)
                assert found.tolist() == pytest.approx([math.log(p)], abs=1e-12)


def log_z_of(one: Enumeration, alpha: float, penalty: float) -> float:
    return one.log_z(alpha, penalty) if one.ids else -math.inf


@pytest.mark.parametrize("device", DEVICES)
def test_the_best_paths_have_the_fewest_tokens_for_their_score(device: str) -> None:
    pieces = {"a": -1.0, "aa": -2.5, "aaa": -4.5}
    tokenizer = on(device, made(pieces, None))
    assert tokenizer.nbest("aaa", 1).tolist() == [[[0, 0, 0]]]
    out = tokenizer.nbest("aaa", 4, token_penalty=1.0)
    assert out.tolist()[0][0] == [2]
    assert out.scores.tolist() == pytest.approx([-5.5, -5.5, -5.5, -6.0])
    # Of the two of greatest weight, not of greatest score.
    drawn = tokenizer.sample("aaa", nbest_size=1, token_penalty=5.0, seed=0)
    assert drawn.tolist() == tokenizer.encode("aaa").tolist()
    drawn = tokenizer.sample("aaa", alpha=1.0, nbest_size=2, token_penalty=2.0, num_samples=500, seed=0)
    assert set(map(tuple, drawn.tolist())) == {(2,), (1, 0)} or set(map(tuple, drawn.tolist())) == {(2,), (0, 1)}
    odds = counted(drawn.tolist())[(2,)] / 500
    assert odds == pytest.approx(1 / (1 + math.exp(1.0 - 2.0)), abs=0.07)


def test_without_replacement_has_the_enumerated_probabilities() -> None:
    pieces, _, text = FIXED[0]
    every = brute_force(text, pieces)
    out = made(pieces, None).lattice(text).sample_without_replacement(6, alpha=0.5, token_penalty=1.5, seed=3)
    probabilities = every.probabilities(0.5, 1.5)
    rows = out.tokens.tolist()
    assert out.log_prob.tolist() == pytest.approx([math.log(probabilities[tuple(row)]) for row in rows], abs=1e-12)


@settings(max_examples=30)
@given(cases(longest_text=30, always_spelled=True), st.sampled_from(TILTS))
def test_both_devices_draw_as_the_reference_does(case: Any, tilt: tuple[float, float]) -> None:
    alpha, penalty = tilt
    cpu = case.tokenizer()
    options = {"alpha": alpha, "token_penalty": penalty, "seed": 5, "num_samples": 3}
    wanted = sample_ids(cpu, case.texts, **options)
    for device in ("cpu", "cuda"):
        assert on(device, cpu).sample(case.texts, **options).tolist() == wanted


def test_a_penalty_shortens_real_text_and_zero_changes_nothing() -> None:
    texts = (DATA / "en.txt").read_text("utf-8").split("\n")
    tokenizer = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    plain = tokenizer.sample(texts, alpha=0.1, seed=1)
    assert tokenizer.sample(texts, alpha=0.1, seed=1, token_penalty=0).tolist() == plain.tolist()
    sizes = [len(tokenizer.sample(texts, alpha=0.1, seed=1, token_penalty=b).ids) for b in (-2.0, 0.0, 2.0, 8.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[3] < 0.8 * sizes[1]


@pytest.mark.parametrize(
    ("penalty", "error", "message"),
    [
        (math.nan, ValueError, "token_penalty is nan; give a number from -500 to 500"),
        (math.inf, ValueError, "token_penalty is inf"),
        (501, ValueError, "token_penalty is 501"),
        ("1", TypeError, "token_penalty is '1'; give a number"),
        (True, TypeError, "token_penalty is True"),
    ],
)
def test_what_is_no_penalty_is_refused_by_name(penalty: Any, error: type[Exception], message: str) -> None:
    tokenizer = made({"a": -1.0}, None)
    lattice = tokenizer.lattice("a")
    for call in (
        lambda: tokenizer.sample("a", token_penalty=penalty),
        lambda: tokenizer.nbest("a", 1, token_penalty=penalty),
        lambda: lattice.entropy(token_penalty=penalty),
        lambda: lattice.sample_nbest(1, token_penalty=penalty),
    ):
        with pytest.raises(error, match=message):
            call()


def test_weights_and_a_penalty_exclude_each_other_and_weights_have_bounds() -> None:
    tokenizer = made({"a": -300.0, "b": -1.0}, None)
    with pytest.raises(ValueError, match=r"both token_penalty \(1.0\) and weights are given"):
        tokenizer.lattice("a").log_partition(token_penalty=1.0, weights=np.ones(2))
    with pytest.raises(ValueError, match=r"alpha=1 with token_penalty=450 takes the weight of 'a' .* out of range"):
        tokenizer.sample("a", alpha=1.0, token_penalty=450)
