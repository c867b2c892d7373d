"""For every number, a table of paths picks what a trace through the segment's nodes picks, and reference.py with it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from by_reference import rules_of, with_byte_pieces
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpu_lattice import Tokenizer
from gpu_lattice.kernels import reference
from gpu_lattice.kernels.cpu.bulk.forward import forward
from gpu_lattice.kernels.cpu.bulk.lists import trace_lists
from gpu_lattice.kernels.cpu.bulk.memo import (
    DIRECT,
    HEAD,
    LISTED,
    NODED,
    NODES,
    SINGLE,
    SPARE,
    begin_group,
    hash_listed,
    new_memo,
    words_before,
)
from gpu_lattice.kernels.cpu.bulk.nodes import trace_nodes, write_nodes
from gpu_lattice.kernels.cpu.bulk.sample import _forward_listed
from gpu_lattice.kernels.cpu.bulk.table import MOST_PATHS, TABLE_BITS
from gpu_lattice.kernels.cpu.bulk.trace import MARGIN, trace_plain
from gpu_lattice.kernels.cpu.bulk.walk import find_lists
from gpu_lattice.kernels.cpu.philox import DRAW_BITS, DRAW_BYTES
from gpu_lattice.models.pieces import from_pieces
from gpu_lattice.weights import arc_weights

UNIT = 1 << (DRAW_BITS - TABLE_BITS)
LAST = 2**DRAW_BITS - 1


class Segment:
    """One segment of a vocabulary's, with its record in a memo: a table if it has few paths, else nodes or lists."""

    def __init__(self, tokenizer: Tokenizer, text: bytes, alpha: float, n_ids: int = 0) -> None:
        self.tokenizer, self.text, self.alpha = tokenizer, text, alpha
        self.model = tokenizer._backend.sample_model(alpha)
        self.memo = new_memo(n_ids)
        self.places = np.zeros(1, np.int64)
        self.values = np.frombuffer(text, np.uint8)
        self.bounds_of_segment = np.array([0, len(text)])
        hashes, words = np.zeros(1, np.int64), np.zeros(2, np.int64)
        z = np.empty(len(text) + 1), np.empty(len(text) + 1, np.int64)
        todo, found = np.zeros(1, np.int64), np.empty(len(text), np.int32)
        begin_group(self.memo.slots, self.memo.near, self.memo.used)
        hash_listed(self.values, self.bounds_of_segment, todo, 1, hashes, words)
        bad = _forward_listed(self.values, self.bounds_of_segment, todo, 1, hashes, words, self.model, self.memo, *z,
                              self.places, found)  # fmt: skip
        self.has_path = bad < 0
        # Where its record is, whatever its place: the first of a memo.
        self.base = words_before(len(text))

    @property
    def bounds(self) -> list[int]:
        """Where the table's paths give way to each other, in units of its resolution."""
        n_paths = int(self.memo.arena[self.base + 1])
        return [] if n_paths >= SINGLE else self.memo.halves[4 * (self.base + HEAD) :][: max(0, n_paths - 1)].tolist()

    def trace(self, numbers: Sequence[int], by_nodes: bool = False) -> list[list[int]]:
        """The arcs that each number gives, by the segment's record or by its nodes; [] where its table cannot tell."""
        length = len(self.text)
        memo, model = self.memo, self.model
        place = self._record_of_nodes() if by_nodes else int(self.places[0])
        zeros = np.zeros(1, np.int64)
        arcs, ends, odd = np.empty(length + MARGIN, np.int32), np.zeros(1, np.int64), np.zeros(1, np.int64)
        paths = np.empty(length + MARGIN, np.int32)
        # The segment is drawn unless its place says all.
        n_drawn = int(place < DIRECT)
        drawn = np.array([1 - n_drawn, 1])
        rows = []
        for number in numbers:
            bits = np.array([number], np.uint64)
            trace_nodes(
                self.values, self.bounds_of_segment, drawn, zeros, int(NODES <= place < DIRECT), zeros + place,
                memo.arena, memo.sums, bits, model.inverses, model.unk_inverse, model.unk_id, model.spells,
                model.byte_ids, np.uint64(0), zeros, np.zeros(1, np.uint64), 0, paths, ends
            )  # fmt: skip
            trace_lists(
                self.values, self.bounds_of_segment, drawn, zeros, int(LISTED <= place < NODES), zeros + place,
                memo.sums, memo.cells, bits, model.count_bits, model.arc_weights, model.arc_words, model.inverses,
                model.unk_inverse, model.unk_id, model.spells, model.byte_ids, model.is_bytes, np.uint64(0), zeros,
                np.zeros(1, np.uint64), 0, paths, ends
            )  # fmt: skip
            *_, n_arcs, _ = trace_plain(
                self.bounds_of_segment, 0, drawn, 0, n_drawn, zeros + place, memo.arena, memo.halves, memo.narrow,
                bits, paths, arcs, 0, ends, odd, 0
            )  # fmt: skip
            rows.append(arcs[:n_arcs].tolist())
        return rows

    def _record_of_nodes(self) -> int:
        memo, model, length = self.memo, self.model, len(self.text)
        found = np.empty(length, np.int32)
        find_lists(self.values, self.bounds_of_segment, np.zeros(1, np.int64), 1, model.states, model.lists,
                   model.arc_words, model.count_bits, found)  # fmt: skip
        memo.sums[SPARE] = forward(self.values, 0, length, found, 0, model.count_bits, model.arc_weights,
                                   model.arc_words, model.unk_weight, model.is_bytes, model.z_low, model.z_high,
                                   memo.sums, SPARE + HEAD, np.empty(length + 1, np.int64))  # fmt: skip
        write_nodes(self.values, 0, length, found, -1, model.count_bits, model.arc_weights, model.arc_words,
                    model.is_bytes, memo.arena, memo.sums, SPARE)  # fmt: skip
        return NODES + SPARE


@st.composite
def segments(draw: Any) -> Segment:
    """Of vocabularies without "b" in some, so that there are positions that no path reaches."""
    pieces = ["a", "ab", "ba", "aa", "bb", "aba", "abab", "bbb", "b"][: draw(st.integers(8, 9))]
    scores = draw(st.lists(st.floats(-12, 2), min_size=len(pieces), max_size=len(pieces)))
    tokenizer = Tokenizer.from_pieces(dict(zip(pieces, scores, strict=True)), device="cpu")
    text = draw(st.text("ab", min_size=1, max_size=DRAW_BYTES)).encode()
    # As for a small vocabulary, or for one whose ids need more bits.
    n_ids = draw(st.sampled_from([len(pieces), 1 << 20]))
    segment = Segment(tokenizer, text, draw(st.sampled_from([0.0, 0.1, 1.0, 3.0])), n_ids)
    assume(segment.has_path)
    return segment


@st.composite
def spelled_segments(draw: Any) -> Segment:
    """Of a vocabulary with all byte pieces, so that characters without a piece are spelled."""
    pieces = {"?": 0.0, "a": -1.0, "aé": -2.0, "水a": -1.5, "a水": -2.5, "水水a": -3.0}
    model = from_pieces(pieces, "?")
    model = dataclasses.replace(model, vocabulary=with_byte_pieces(model.vocabulary, range(256)))
    text = draw(st.text("aé水", min_size=1, max_size=5)).encode()
    return Segment(Tokenizer(model, device="cpu"), text, draw(st.sampled_from([0.0, 0.1, 1.0])))


@settings(max_examples=30)
@given(spelled_segments())
def test_a_table_holds_the_byte_pieces_of_unknown_characters(segment: Segment) -> None:
    assert int(segment.memo.arena[segment.base + 1]) > 0
    if b"a" not in segment.text:
        assert segment.trace([0, LAST]) == [[6 + byte for byte in segment.text]] * 2


def test_each_unknown_byte_of_a_vocabulary_of_bytes_is_an_arc_of_its_own() -> None:
    """One that would go on with a character, were symbols characters, has an unknown arc's score too."""
    model = from_pieces([b"?", b"a"], b"?")
    model = dataclasses.replace(model, vocabulary=with_byte_pieces(model.vocabulary, range(256)))
    out = Tokenizer(model, device="cpu").sample([b"\xbc"], alpha=0.2, return_log_prob=True)
    assert out.tolist() == [[2 + 0xBC]]
    assert out.log_prob == [0.0]


@settings(max_examples=200)
@given(segments() | spelled_segments(), st.lists(st.integers(0, LAST), max_size=50))
def test_a_table_picks_what_the_trace_through_the_nodes_picks(segment: Segment, numbers: list[int]) -> None:
    steps = (-2 * UNIT, -UNIT - 1, -UNIT, -1, 0, 1, UNIT - 1, UNIT)
    close = [bound * UNIT + step for bound in segment.bounds for step in steps]
    numbers = [*numbers, 0, 1, LAST - 1, LAST, *(n for n in close if 0 <= n <= LAST)]
    for number, by_table, expected in zip(numbers, segment.trace(numbers), segment.trace(numbers, True), strict=True):
        if by_table == []:
            assert any(-1 <= number // UNIT - bound <= 0 for bound in segment.bounds)
        else:
            assert by_table == expected


@settings(max_examples=100)
@given(segments())
def test_a_table_has_the_paths_that_there_are_and_no_others(segment: Segment) -> None:
    """Also where positions are that no path reaches."""
    counts = [1]
    for e in range(1, len(segment.text) + 1):
        pieces = segment.tokenizer._model.vocabulary.surfaces
        counts.append(sum(counts[e - len(piece)] for piece in pieces if segment.text[:e].endswith(piece)))
    n_paths = int(segment.memo.arena[segment.base + 1])
    if counts[-1] > MOST_PATHS:
        assert n_paths == 0 or n_paths >= NODED
    elif n_paths >= SINGLE:
        assert counts[-1] == 1
        assert n_paths < 2 * SINGLE
    else:
        assert n_paths == counts[-1]


@settings(max_examples=100)
@given(segments(), st.sampled_from([0, 1, 2**52, LAST - 1, LAST]))
def test_the_least_and_the_greatest_number_pick_the_path_of_the_definition(segment: Segment, number: int) -> None:
    """Rounding can take a target up to Z, so that no sum exceeds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "segments", lambda text, rules: [(0, len(text))])
        patch.setattr(reference, "uniform", lambda *counter: number * 2.0**-DRAW_BITS)
        weights = arc_weights(segment.tokenizer._model.vocabulary, segment.alpha).tolist()
        path, _ = reference.sample(segment.text, rules_of(segment.tokenizer), weights)
    assert segment.trace([number], True) == [[arc for _, arc in path]]
