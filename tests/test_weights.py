"""Arc weights: exp and log to the last bits, the same bits everywhere, and errors for alphas out of range."""

import hashlib
import math
from decimal import Decimal, getcontext
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpu_lattice import Tokenizer
from gpu_lattice.kernels.fixed import fixed_exp, fixed_log
from gpu_lattice.runtime.arguments import checked_alpha
from gpu_lattice.vocabulary import Vocabulary
from gpu_lattice.weights import arc_weights

getcontext().prec = 40
RANDOM = np.random.default_rng(7)


def vocabulary_of(pieces: Any, unk_piece: Any = None) -> Vocabulary:
    return Tokenizer.from_pieces(pieces, unk_piece=unk_piece, device="cpu")._model.vocabulary


def error_in_ulps(value: float, exact: Decimal) -> float:
    return float(abs(Decimal(value) - exact) / Decimal(math.ulp(float(exact))))


# Where errors were found to be largest, among millions of arguments.
HARD_EXP = [-628.3280906743706, -105.6962481813905, 3.818662417740711]
HARD_LOG = [1.0640416630051497, 1.2327087737901359]


def test_exp_is_within_one_unit_in_the_last_place() -> None:
    x = np.concatenate([HARD_EXP, RANDOM.uniform(-700, 700, 2000), RANDOM.uniform(-30, 1, 2000)])
    errors = [error_in_ulps(y, a.exp()) for y, a in zip(fixed_exp(x).tolist(), map(Decimal, x.tolist()), strict=True)]
    assert max(errors) <= 1


def test_log_is_within_two_units_in_the_last_place() -> None:
    x = np.concatenate([HARD_LOG, RANDOM.uniform(0.5, 2, 2000), np.exp2(RANDOM.uniform(-1020, 1020, 2000))])
    errors = [error_in_ulps(y, a.ln()) for y, a in zip(fixed_log(x).tolist(), map(Decimal, x.tolist()), strict=True)]
    assert max(errors) <= 2


def digest(values: NDArray[np.float64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, "<f8").tobytes()).hexdigest()[:32]


def test_exp_and_log_are_frozen_to_the_bit() -> None:
    mantissas, exponents = np.arange(512, 1025) / 1024, np.arange(-1000, 1001)[:, None]
    assert digest(fixed_exp(np.arange(-70_000, 70_001) / 100)) == "c57af31646fc16182c1f31ded94ea649"
    assert digest(fixed_log(np.ldexp(mantissas, exponents))) == "f9913d179995c576df6af06fa62118d2"
    assert [value.hex() for value in fixed_exp(np.array([0.1, -12.25])).tolist()] == [
        "0x1.1aec7b35a00d4p+0",
        "0x1.411fb0da07714p-18",
    ]


def test_values_do_not_depend_on_what_stands_beside_them() -> None:
    """Vector units may not change a bit: every length and alignment gives the value of the element alone."""
    x = np.linspace(-30, 1, 67)
    alone = [float(fixed_exp(np.array([value]))[0]) for value in x]
    for start in range(8):
        assert fixed_exp(x[start:]).tolist() == alone[start:]
        assert fixed_exp(x[start::3]).tolist() == alone[start::3]


def test_weights_are_exp_of_alpha_times_score_and_one_at_alpha_zero() -> None:
    vocabulary = vocabulary_of({"a": -1.0, "b": -2.5, "<unk>": None, "ab": 0.5}, "<unk>")
    weights = arc_weights(vocabulary, 0.5)
    assert weights.dtype == np.float64
    assert weights == pytest.approx([math.exp(-0.5), math.exp(-1.25), 0.0, math.exp(0.25), math.exp(-6.25)], rel=1e-15)
    assert arc_weights(vocabulary, 0).tolist() == [1, 1, 0, 1, 1]


def test_without_an_unknown_piece_the_unknown_arc_weighs_nothing() -> None:
    assert arc_weights(vocabulary_of({b"a": -1.0}), 0).tolist() == [1, 0]


@pytest.mark.parametrize("alpha", [-1, -1e-300, math.nan, math.inf, -math.inf])
def test_alpha_must_be_finite_and_not_negative(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha is .*give a finite number >= 0"):
        checked_alpha(alpha)
    with pytest.raises(ValueError, match="alpha is"):
        arc_weights(vocabulary_of({"a": -1.0}), alpha)


def test_an_alpha_out_of_range_names_the_piece_and_the_largest_alpha_that_works() -> None:
    vocabulary = vocabulary_of({"a": -1.0, "rare": -20.0, "<unk>": None}, "<unk>")
    with pytest.raises(ValueError, match=r"alpha=50 .*'the unknown token' \(score -30\).*largest alpha .* is 23\.1"):
        arc_weights(vocabulary, 50)
    without = vocabulary_of({"a": -1.0, "rare": -20.0})
    with pytest.raises(ValueError, match=r"alpha=50 .*'rare' \(score -20\).*largest alpha .* is 34\.66"):
        arc_weights(without, 50)
    assert arc_weights(without, 34.65)[1] > 0


def test_a_positive_score_can_take_alpha_out_of_range_too() -> None:
    with pytest.raises(ValueError, match=r"'b' \(score 800\)"):
        arc_weights(vocabulary_of({"a": -1.0, "b": 800.0}), 1)


@pytest.mark.parametrize(("scores", "unk_score"), [([-1.0, -4.0], -14.0), ([5.0, 3.0], -7.0), ([0.0, 2.0], -10.0)])
def test_the_unknown_score_is_the_least_score_minus_ten(scores: list[float], unk_score: float) -> None:
    vocabulary = vocabulary_of({"<unk>": None, "a": scores[0], "b": scores[1]}, "<unk>")
    assert vocabulary.unk_score == vocabulary.best_unk_score == unk_score


def test_all_scores_may_be_zero() -> None:
    assert arc_weights(vocabulary_of(["a", "b"]), 1e6).tolist() == [1, 1, 0]
