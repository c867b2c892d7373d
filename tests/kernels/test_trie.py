"""The double-array trie holds the reversed pieces and nothing else, wherever its nodes were placed."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_lattice.kernels.tables.trie import FEW_KEYS, Trie, build_trie
from gpu_lattice.text_batch import to_ragged


def nodes_of(trie: Trie) -> dict[bytes, int]:
    """The piece at every node, by the text that leads to it, read backwards."""
    base, check = trie.slots[0::2], trie.slots[1::2]
    found, waiting = {}, [(b"", 0)]
    while waiting:
        text, node = waiting.pop()
        found[text] = int(trie.piece[node])
        children = np.flatnonzero(check[base[node] : base[node] + 256] == node)
        waiting += [(bytes([byte]) + text, int(base[node]) + byte) for byte in children.tolist()]
    return found


def assert_holds(surfaces: list[bytes], ids: list[int], distinct_bases: bool = False) -> None:
    trie = build_trie(*to_ragged(surfaces), np.array(ids, np.int64), distinct_bases)
    expected = {surface[i:]: -1 for surface in [b"", *surfaces] for i in range(len(surface) + 1)}
    expected |= dict(zip(surfaces, ids, strict=True))
    assert nodes_of(trie) == expected
    base, check = trie.slots[0::2], trie.slots[1::2]
    assert len(base) == len(check) == len(trie.piece)
    assert base.min() >= 0
    assert base.max() + 255 < len(base)
    assert np.count_nonzero(check != -1) == len(expected), "no other slot is taken for a node"
    assert np.all(trie.piece[check == -1] == -1)
    if distinct_bases:
        parents = np.unique(check[check >= 0])
        assert len(np.unique(base[parents])) == len(parents)


@settings(max_examples=60)
@given(st.data())
def test_every_ending_of_every_piece_is_a_node(data):
    lengths = st.integers(1, data.draw(st.sampled_from([1, 2, 4, 30])))
    alphabet = st.sampled_from(
        data.draw(st.sampled_from([b"ab", b"\x00\x01\xff", bytes(range(97, 123)), bytes(range(256))]))
    )
    piece = lengths.flatmap(lambda n: st.lists(alphabet, min_size=n, max_size=n)).map(bytes)
    surfaces = data.draw(st.lists(piece, unique=True, max_size=4 * FEW_KEYS))
    assert_holds(surfaces, data.draw(st.permutations(range(len(surfaces)))), data.draw(st.booleans()))


@pytest.mark.parametrize("distinct_bases", [False, True])
@pytest.mark.parametrize("num_bytes", [1, FEW_KEYS, FEW_KEYS + 1, 256])
def test_nodes_with_any_number_of_children_are_placed(num_bytes, distinct_bases):
    symbols = [bytes([byte]) for byte in range(256 - num_bytes, 256)]
    surfaces = symbols + [b"".join(pair) for pair in product(symbols, symbols)]
    assert_holds(surfaces, list(range(len(surfaces))), distinct_bases)


def test_children_far_apart_leave_no_room_unused():
    """Pairs of children of every distance, and tails to fill the gaps."""
    surfaces = [bytes([last, 0, i]) for i in range(200) for last in (0, i + 1)] + [
        bytes([i]) * 300 for i in range(200, 256)
    ]
    trie = build_trie(*to_ragged(surfaces), np.arange(len(surfaces)))
    assert_holds(surfaces, list(range(len(surfaces))))
    assert len(trie.piece) < 1.2 * np.count_nonzero(trie.slots[1::2] != -1)
