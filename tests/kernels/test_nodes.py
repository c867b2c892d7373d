"""Segments of many paths are traced through their nodes, several in turn, or their lists, as the definition says."""

import numpy as np
import pytest
from by_reference import sample_ids
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_lattice import Tokenizer
from gpu_lattice.backends import tables
from gpu_lattice.kernels.cpu.bulk.layout import LONGEST_RECORDED
from gpu_lattice.kernels.cpu.bulk.memo import TRANSIENT_WORDS
from gpu_lattice.kernels.cpu.bulk.nodes import IN_TURN, MOST_ARCS, MOST_COUNT, MOST_LENGTH, MOST_WORDS
from gpu_lattice.kernels.cpu.machine import SUMS


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=3 * IN_TURN),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 2**64 - 1),
)
def test_segments_of_any_lengths_in_turn_give_the_paths_of_the_definition(
    lengths: list[int], alpha: float, seed: int
) -> None:
    """No piece spans a comma. One of more than DRAW_BYTES needs numbers on its way."""
    pieces = {"a" * k: -float(k % 5) for k in range(1, 12)} | {",": 0.0, "ba": -1.0, "水": -2.0, "?": None}
    tokenizer = Tokenizer.from_pieces(pieces, unk_piece="?", device="cpu")
    texts = [",".join("a" * n for n in lengths), ",".join("水ba水é"[i % 4 :] * (n // 7) for i, n in enumerate(lengths))]
    out = tokenizer.sample(texts, alpha=alpha, seed=seed, num_samples=2)
    assert out.tolist() == sample_ids(tokenizer, texts, alpha=alpha, seed=seed, num_samples=2)


@pytest.mark.parametrize("n_arcs", [SUMS - 1, SUMS, SUMS + 1, 2 * SUMS, 2 * SUMS + 1, 5 * SUMS])
def test_every_arc_is_drawn_however_many_lead_to_a_position(n_arcs: int) -> None:
    """All segmentations are as probable as those that end in any one of the arcs, seeds enough to meet each."""
    tokenizer = Tokenizer.from_pieces({b"a" * k: 0.0 if k > 1 else -9.0 for k in range(1, n_arcs + 1)}, device="cpu")
    text = b"a" * n_arcs
    rows = tokenizer.sample([text], alpha=1.0, num_samples=8 * n_arcs).tolist()
    assert rows == sample_ids(tokenizer, [text], alpha=1.0, num_samples=8 * n_arcs)
    weights = np.exp([0.0 if k > 1 else -9.0 for k in range(1, n_arcs + 1)])
    z = [1.0]
    for e in range(1, n_arcs + 1):
        z.append(sum(z[e - k] * weights[k - 1] for k in range(1, e + 1)))
    likely = {k - 1 for k in range(1, n_arcs + 1) if z[n_arcs - k] * weights[k - 1] > 0.1 * z[n_arcs]}
    assert likely <= {row[-1] for row in rows}


def test_a_word_has_room_for_every_length_and_every_record() -> None:
    assert LONGEST_RECORDED <= MOST_LENGTH
    assert MOST_ARCS <= MOST_COUNT
    assert TRANSIENT_WORDS <= MOST_WORDS


def test_more_arcs_than_nodes_are_made_for_give_the_paths_of_the_definition() -> None:
    longest = MOST_ARCS + 2
    tokenizer = Tokenizer.from_pieces({b"a" * k: -0.1 * k for k in range(1, longest + 1)}, device="cpu")
    texts = [b"a" * n for n in (longest + 70, longest - 3, 11, 12)]
    assert tokenizer.sample(texts, alpha=0.5).tolist() == sample_ids(tokenizer, texts, alpha=0.5)


def test_a_vocabulary_of_more_ids_than_a_node_can_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_IDS", 2)
    tokenizer = Tokenizer.from_pieces([b"a", b"b", b"ab"], device="cpu")
    assert tokenizer.encode([b"ab"]).tolist() == [[2]]
    with pytest.raises(ValueError, match="a vocabulary of 3 ids: samples on the CPU take at most 2"):
        tokenizer.sample([b"ab"])
