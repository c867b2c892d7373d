"""Scores stay within float64 where they can, and where they cannot, the ids are the definition's all the same."""

import numpy as np
import pytest
from by_reference import sample_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from test_table import Segment

from gpu_lattice import Tokenizer

WORDS = ["international", "tokenization", "▁the", "unbelievable", "東京都", "12345"]


@settings(max_examples=60)
@given(
    st.lists(st.floats(-40, 3), min_size=6, max_size=6),
    st.sampled_from([0.0, 0.5, 1.0, 4.0, 10.0, 13.0]),
    st.text("abé", min_size=1, max_size=40),
    st.integers(0, 2**64 - 1),
)
def test_ids_are_the_definitions_whatever_the_weights(scores: list[float], alpha: float, text: str, seed: int) -> None:
    pieces = dict(zip(["a", "b", "ab", "aab", "bé", "?"], scores, strict=True))
    tokenizer = Tokenizer.from_pieces(pieces, unk_piece="?", device="cpu")
    expected = sample_ids(tokenizer, [text, text], alpha=alpha, seed=seed, num_samples=2)
    for _ in range(3):
        assert tokenizer.sample([text, text], alpha=alpha, seed=seed, num_samples=2).tolist() == expected


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0, 4.0])
@pytest.mark.parametrize("word", WORDS)
def test_words_need_no_exponents_at_a_large_alpha(word: str, alpha: float) -> None:
    """Else each would be worked out anew wherever it comes, at many times the cost."""
    segment = Segment(Tokenizer.default(device="cpu"), word.encode(), alpha)
    assert segment.has_path
    assert segment.group.places[0] >= 0


def test_a_power_of_two_taken_out_of_the_weights_changes_no_log_probability() -> None:
    """With a constant added to all scores, another one is chosen."""
    texts = ["ab" * 30, "b", ""]
    for shift in (-9.0, 0.0, 2.0):
        pieces = {"a": -1.0 + shift, "b": -2.0 + shift, "ab": -2.5 + shift}
        tokenizer = Tokenizer.from_pieces(pieces, device="cpu")
        out = tokenizer.sample(texts, alpha=1.0, seed=3, return_log_prob=True)
        lattice = tokenizer.lattice(texts)
        log_prob = lattice.log_prob(out.tolist(), alpha=1.0)
        assert np.allclose(out.log_prob, log_prob, rtol=1e-12, atol=1e-12)
