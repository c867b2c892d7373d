"""Segments without a table are traced through their lists of arcs, as the definition says."""

import numpy as np
import pytest
from by_reference import sample_ids
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_lattice import Tokenizer


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 2**64 - 1),
)
def test_segments_of_any_lengths_give_the_paths_of_the_definition(lengths: list[int], alpha: float, seed: int) -> None:
    """No piece spans a comma. One of more than DRAW_BYTES needs numbers on its way. Texts become known call by call."""
    pieces = {"a" * k: -float(k % 5) for k in range(1, 12)} | {",": 0.0, "ba": -1.0, "水": -2.0, "?": None}
    tokenizer = Tokenizer.from_pieces(pieces, unk_piece="?", device="cpu")
    texts = [",".join("a" * n for n in lengths), ",".join("水ba水é"[i % 4 :] * (n // 7) for i, n in enumerate(lengths))]
    expected = sample_ids(tokenizer, texts, alpha=alpha, seed=seed, num_samples=2)
    for _ in range(3):
        assert tokenizer.sample(texts, alpha=alpha, seed=seed, num_samples=2).tolist() == expected


@pytest.mark.parametrize("n_arcs", [1, 2, 9, 40, 66])
def test_every_arc_is_drawn_however_many_lead_to_a_position(n_arcs: int) -> None:
    """All segmentations are as probable as those that end in any one of the arcs, seeds enough to meet each."""
    tokenizer = Tokenizer.from_pieces({b"a" * k: 0.0 if k > 1 else -9.0 for k in range(1, n_arcs + 1)}, device="cpu")
    text = b"a" * n_arcs
    rows = tokenizer.sample([text], alpha=1.0, num_samples=8 * n_arcs, seed=0).tolist()
    assert rows == sample_ids(tokenizer, [text], alpha=1.0, num_samples=8 * n_arcs)
    weights = np.exp([0.0 if k > 1 else -9.0 for k in range(1, n_arcs + 1)])
    z = [1.0]
    for e in range(1, n_arcs + 1):
        z.append(sum(z[e - k] * weights[k - 1] for k in range(1, e + 1)))
    likely = {k - 1 for k in range(1, n_arcs + 1) if z[n_arcs - k] * weights[k - 1] > 0.1 * z[n_arcs]}
    assert likely <= {row[-1] for row in rows}
