"""The automaton's list at every position is that of the arcs into it, whatever the pieces and however segments lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_lattice.kernels.cpu.bulk.group import Arcs
from gpu_lattice.kernels.cpu.bulk.walk import find_lists
from gpu_lattice.kernels.reference import UNKNOWN, Rules
from gpu_lattice.kernels.tables.automaton import Automaton, build_automaton
from gpu_lattice.text_batch import to_ragged


def lists_of(automaton: Automaton, texts: list[bytes]) -> list[list[list[tuple[int, int]]]]:
    """(length, piece) of every arc of every position's list, text by text."""
    values, segments = to_ragged(texts)
    found = np.empty(len(values), np.int32)
    by_arc = np.zeros(2 * len(automaton.pieces))
    arcs = Arcs(automaton.states, automaton.lists, automaton.count_bits, by_arc, by_arc.view(np.int64))
    find_lists(values, segments, np.arange(len(texts)), len(texts), arcs, found)
    mask = (1 << int(automaton.count_bits)) - 1
    listed_arcs = [
        [
            (int(automaton.lengths[k]), int(automaton.pieces[k]))
            for k in range(listed >> int(automaton.count_bits), (listed >> int(automaton.count_bits)) + (listed & mask))
        ]
        for listed in found.tolist()
    ]
    return [listed_arcs[a:b] for a, b in zip(segments[:-1].tolist(), segments[1:].tolist(), strict=True)]


@settings(max_examples=200)
@given(
    st.sets(st.text("abé漢", min_size=1, max_size=6), min_size=1, max_size=40),
    st.lists(st.text("abcé漢字", min_size=1, max_size=30), max_size=9),
    st.booleans(),
    st.booleans(),
)
def test_lists_are_the_arcs_into_every_position(
    pieces: set[str], texts: list[str], is_bytes: bool, has_unknown: bool
) -> None:
    surfaces = [piece.encode() for piece in sorted(pieces)]
    values, offsets = to_ragged(surfaces)
    automaton = build_automaton(values, offsets, np.arange(len(surfaces)) + 3, is_bytes, has_unknown)
    rules = Rules(
        {surface: i + 3 for i, surface in enumerate(surfaces)},
        "bytes" if is_bytes else "characters",
        1.0 if has_unknown else None,
    )
    data = [text.encode() for text in texts]
    for text, lists in zip(data, lists_of(automaton, data), strict=True):
        for e in range(1, len(text) + 1):
            expected = rules.arcs_into(text, e)
            # An unknown symbol with which no piece ends is not listed.
            if lists[e - 1] or (expected and expected != [(rules.symbol_length(text, e), UNKNOWN)]):
                assert lists[e - 1] == expected


@pytest.mark.parametrize("length", [1, 255, 256, 70_000])
def test_pieces_may_be_long_and_the_ends_of_each_other(length: int) -> None:
    surfaces = [b"a" * n for n in sorted({1, 2, length})]
    values, offsets = to_ragged(surfaces)
    automaton = build_automaton(values, offsets, np.arange(len(surfaces)), True, False)
    (lists,) = lists_of(automaton, [b"a" * (length + 2)])
    assert lists[length - 1] == [(len(surface), i) for i, surface in enumerate(surfaces) if len(surface) <= length]
    assert lists[length + 1] == [(len(surface), i) for i, surface in enumerate(surfaces)]


def test_a_segment_does_not_see_the_one_before() -> None:
    values, offsets = to_ragged([b"a", b"b", b"ab"])
    automaton = build_automaton(values, offsets, np.arange(3), True, False)
    assert lists_of(automaton, [b"a", b"b", b"ab"]) == [[[(1, 0)]], [[(1, 1)]], [[(1, 0)], [(1, 1), (2, 2)]]]
