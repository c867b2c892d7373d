"""Samples near the best segmentation: by weight from those that differ in few words, and from no other."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from brute_force import brute_force, counted, p_value
from conftest import ROOT
from lattices import DEVICES, on

from gpu_lattice import Tokenizer

DATA = ROOT / "tests" / "data"
PIECES = {"▁a": -1.0, "▁": -2.0, "a": -2.0, "▁ab": -1.5, "b": -2.5, "ab": -3.0, "<unk>": None}
WORDS = ["▁ab", "▁a?b", "▁b", "▁abab"]


def law(words: list[str], pieces: Any, alpha: float, k: int, best: list[tuple[int, ...]]) -> dict[Any, float]:
    """Of every segmentation of some words that differs from the best in at most k of them."""
    parts = [brute_force(word, pieces, "<unk>").probabilities(alpha) for word in words]
    out: dict[Any, float] = {}
    for rows in product(*parts):
        if sum(row != own for row, own in zip(rows, best, strict=True)) <= k:
            p = math.prod(part[row] for part, row in zip(parts, rows, strict=True))
            key = tuple(i for row in rows for i in row)
            out[key] = out.get(key, 0.0) + p
    total = math.fsum(out.values())
    return {row: p / total for row, p in out.items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [0, 1, 2, 9])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_samples_have_the_distribution_of_what_is_near(device: str, k: int, alpha: float) -> None:
    tokenizer = on(device, Tokenizer.from_pieces(PIECES, unk_piece="<unk>", device="cpu"))
    best = [tuple(row) for row in tokenizer.encode(WORDS).tolist()]
    truth = law(WORDS, PIECES, alpha, k, best)
    n = 100_000 if device == "cpu" else 300
    out = tokenizer.sample_near("".join(WORDS), k, alpha=alpha, num_samples=n, seed=k, return_log_prob=True)
    if device == "cpu":
        assert p_value(counted(out.tolist()), truth) > 1e-3
    for row, log_prob in list(zip(out.tolist(), np.asarray(out.log_prob).tolist(), strict=True))[:300]:
        assert math.exp(log_prob) == pytest.approx(truth[tuple(row)], rel=1e-11)


def test_no_change_is_the_best_segmentation_and_all_are_samples() -> None:
    texts = ["a new dawn, again", "", None, "watching the watchers"]
    for name in ("en_bpe.model", "en_nmt_nfkc.model", "en_split.tokenizer.json"):
        tokenizer = Tokenizer.from_file(DATA / name, device="cpu")
        assert tokenizer.sample_near(texts, 0, alpha=0, seed=1).tolist() == tokenizer.encode(texts).tolist()
        out = tokenizer.sample_near(texts, 10**6, alpha=0, num_samples=2, seed=1, return_log_prob=True)
        expected = tokenizer.lattice(texts).log_prob(out, alpha=0)
        np.testing.assert_allclose(out.log_prob, expected, 1e-10, 1e-10)


def test_a_row_does_not_depend_on_the_batch_or_the_threads() -> None:
    texts = ["a new dawn, again", "watching the watchers", "unbelievable"]
    one = Tokenizer.default(device="cpu", threads=1)
    out = one.sample_near(texts, 2, num_samples=3, seed=5, doc_ids=[4, 5, 6])
    assert Tokenizer.default(device="cpu", threads=3).sample_near(
        texts, 2, num_samples=3, seed=5, doc_ids=[4, 5, 6]
    ).tolist() == out.tolist()  # fmt: skip
    assert one.sample_near(texts[1], 2, num_samples=3, seed=5, doc_ids=[5]).tolist() == out.tolist()[3:6]
    assert out.seed == 5
    assert out.log_prob is None


def test_options_are_checked() -> None:
    tokenizer = Tokenizer.from_pieces(["a"], device="cpu")
    with pytest.raises(ValueError, match="max_changes"):
        tokenizer.sample_near("a", -1)
    with pytest.raises(ValueError, match="cannot be spelled"):
        tokenizer.sample_near("ab", 1)
