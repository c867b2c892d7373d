"""For every number, a table of paths picks what a trace through the segment's lists picks, and reference.py with it."""

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
from gpu_lattice.kernels.cpu.bulk.group import MARGIN, new_draws, new_group
from gpu_lattice.kernels.cpu.bulk.layout import BODY, KIND, SINGLE, words_before
from gpu_lattice.kernels.cpu.bulk.memo import MEETINGS, begin_group, hash_listed, new_memo
from gpu_lattice.kernels.cpu.bulk.sample import _trace_by_lists, forward_listed, list_drawn, trace_group
from gpu_lattice.kernels.cpu.bulk.table import MOST_PATHS, TABLE_BITS
from gpu_lattice.kernels.cpu.bulk.trace import trace_plain
from gpu_lattice.kernels.cpu.philox import DRAW_BITS, DRAW_BYTES
from gpu_lattice.models.pieces import from_pieces
from gpu_lattice.weights import arc_weights

UNIT = 1 << (DRAW_BITS - TABLE_BITS)
LAST = 2**DRAW_BITS - 1


class Segment:
    """One segment of a vocabulary's, with its record in a memo: a table if it has few paths, else lists."""

    def __init__(self, tokenizer: Tokenizer, text: bytes, alpha: float, n_ids: int = 0) -> None:
        self.tokenizer, self.text, self.alpha = tokenizer, text, alpha
        self.model = tokenizer._backend.tables.sample_model(alpha)
        self.memo, self.group, self.draws = new_memo(n_ids), new_group(len(text), 1), new_draws(len(text))
        self.values = np.frombuffer(text, np.uint8)
        self.group.segments[:2] = 0, len(text)
        self.draws.positions[:1], self.draws.doc_ids[:1] = len(text), 0
        for _ in range(MEETINGS):
            self.group.todo[0] = 0
            begin_group(self.memo)
            hash_listed(self.values, self.group.segments, self.group.todo, 1, self.group.hashes, self.group.words, 0)
            self.has_path = forward_listed(self.values, 1, self.model, self.memo, self.group, self.draws) < 0
        # Where its record is, whatever its place: the first of a memo.
        self.base = words_before(len(text))

    @property
    def kind(self) -> int:
        return int(self.memo.arena[self.base + KIND])

    @property
    def bounds(self) -> list[int]:
        """Where the table's paths give way to each other, in units of its resolution."""
        n_paths = 0 if self.kind >= SINGLE else self.kind
        return self.memo.halves[4 * (self.base + BODY) :][: max(0, n_paths - 1)].tolist()

    def trace(self, numbers: Sequence[int], by_lists: bool = False) -> list[list[int]]:
        """The arcs that each number gives, by the segment's record or by its lists."""
        return [self._trace(number, by_lists) for number in numbers]

    def _trace(self, number: int, by_lists: bool) -> list[int]:
        arcs = np.empty(len(self.text) + MARGIN, np.int32)
        place = int(self.group.places[0])
        # By its lists also where its place would say all.
        self.group.places[0] = min(place, 0) if by_lists else place
        n_drawn = list_drawn(1, self.group, self.draws)
        self.draws.numbers[0] = number
        rest = self.model, self.memo, self.group, self.draws
        if by_lists:
            _trace_by_lists(self.values, 0, 0, np.uint64(0), 0, *rest)
            *_, n_arcs, _ = trace_plain(0, 0, 1, *rest[1:], arcs, 0, 0)
        else:
            n_arcs, _ = trace_group(self.values, 1, n_drawn, np.uint64(0), 0, *rest, arcs, 0)
        self.group.places[0] = place
        return arcs[:n_arcs].tolist()


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
    # What needs exponents has neither a table nor lists.
    assume(segment.has_path and segment.group.places[0] >= 0)
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
    assert segment.kind > 0
    if b"a" not in segment.text:
        assert segment.trace([0, LAST]) == [[6 + byte for byte in segment.text]] * 2


def test_each_unknown_byte_of_a_vocabulary_of_bytes_is_an_arc_of_its_own() -> None:
    """One that would go on with a character, were symbols characters, has an unknown arc's score too."""
    model = from_pieces([b"?", b"a"], b"?")
    model = dataclasses.replace(model, vocabulary=with_byte_pieces(model.vocabulary, range(256)))
    out = Tokenizer(model, device="cpu").sample([b"\xbc"], alpha=0.2, return_log_prob=True, seed=0)
    assert out.tolist() == [[2 + 0xBC]]
    assert out.log_prob == [0.0]


@settings(max_examples=200)
@given(segments() | spelled_segments(), st.lists(st.integers(0, LAST), max_size=50))
def test_a_table_picks_what_the_trace_through_the_lists_picks(segment: Segment, numbers: list[int]) -> None:
    steps = (-2 * UNIT, -UNIT - 1, -UNIT, -1, 0, 1, UNIT - 1, UNIT)
    close = [bound * UNIT + step for bound in segment.bounds for step in steps]
    numbers = [*numbers, 0, 1, LAST - 1, LAST, *(n for n in close if 0 <= n <= LAST)]
    assert segment.trace(numbers) == segment.trace(numbers, by_lists=True)


@settings(max_examples=100)
@given(segments())
def test_a_table_has_the_paths_that_there_are_and_no_others(segment: Segment) -> None:
    """Also where positions are that no path reaches."""
    counts = [1]
    for e in range(1, len(segment.text) + 1):
        pieces = segment.tokenizer._model.vocabulary.surfaces
        counts.append(sum(counts[e - len(piece)] for piece in pieces if segment.text[:e].endswith(piece)))
    n_paths = segment.kind
    if counts[-1] > MOST_PATHS:
        assert n_paths == 0
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
