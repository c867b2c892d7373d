"""For every number, a table of paths picks what a trace through the segment's arcs picks, and reference.py with it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from by_reference import rules_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpu_lattice import Tokenizer
from gpu_lattice.kernels import reference
from gpu_lattice.kernels.cpu.forward import HEAD, forward
from gpu_lattice.kernels.cpu.memo import SPARE, new_memo
from gpu_lattice.kernels.cpu.philox import DRAW_BITS, DRAW_BYTES
from gpu_lattice.kernels.cpu.sample import _forward_new
from gpu_lattice.kernels.cpu.table import CELL_BITS, SCRATCH_CELLS, TABLE_BITS
from gpu_lattice.kernels.cpu.trace import MARGIN, trace_plain
from gpu_lattice.weights import arc_weights

UNIT = 1 << (DRAW_BITS - TABLE_BITS)
LAST = 2**DRAW_BITS - 1


class Segment:
    """One segment of a vocabulary's, with its record in a memo: a table if it has few paths, else arcs."""

    def __init__(self, tokenizer: Tokenizer, text: bytes, alpha: float) -> None:
        self.tokenizer, self.text, self.alpha = tokenizer, text, alpha
        self.model = model = tokenizer._backend.sample_model(alpha)
        self.memo = memo = new_memo()
        memo.used[:] = 0
        values = np.frombuffer(text, np.uint8)
        args = (memo.slots, memo.arena, memo.sums, memo.cells, memo.counts, memo.used, model.nodes, model.piece_at,
                model.weights, model.unk_weight, model.is_bytes, model.z_low, model.z_high, model.longest,
                model.unk_id, np.empty(SCRATCH_CELLS, np.int32), np.empty(600))  # fmt: skip
        memo.slots[:] = 0
        self.base, self.z = _forward_new(values, 0, len(text), np.int64(0), *args)

    @property
    def bounds(self) -> list[int]:
        """Where the table's paths give way to each other, in units of its resolution."""
        n_paths = int(self.memo.arena[self.base + 1])
        cells = self.memo.cells[2 * (self.base + HEAD) :][: max(0, n_paths - 1)]
        return [int(cell) >> CELL_BITS for cell in cells]

    def trace(self, base: int, numbers: Sequence[int]) -> list[Any]:
        """The arcs that each number gives by the record at base; None where its table leaves a number undecided."""
        n, length = len(numbers), len(self.text)
        memo, model = self.memo, self.model
        segments, zeros = np.arange(n + 1) * length, np.zeros(n, np.int64)
        arcs, ends, odd = np.empty(n * length + MARGIN, np.int32), zeros.copy(), zeros.copy()
        rows: list[Any] = []
        while len(rows) < n:
            i, _, _ = trace_plain(segments, len(rows), n, zeros.astype(np.uint8), zeros + base, memo.arena, memo.sums,
                                  memo.counts, memo.cells, np.array(numbers, np.uint64), model.inverses,
                                  model.unk_inverse, np.uint64(0), zeros, zeros.astype(np.uint64), zeros, 0, arcs, 0,
                                  ends, odd, 0)  # fmt: skip
            starts = [0, *ends[len(rows) : i].tolist()]
            rows += [arcs[a:b].tolist() for a, b in pairwise(starts)]
            rows += [None] * (len(rows) < n)
        return rows

    def by_arcs(self, numbers: Sequence[int]) -> list[Any]:
        """The same by the arcs, never by a table."""
        memo, model = self.memo, self.model
        values = np.frombuffer(self.text, np.uint8)
        _, memo.sums[SPARE], _ = forward(values, 0, len(values), model.nodes, model.piece_at, model.weights,
                                         model.unk_weight, model.is_bytes, model.z_low, model.z_high, memo.arena,
                                         memo.sums, memo.counts, SPARE + HEAD, model.unk_id,
                                         np.empty(600))  # fmt: skip
        memo.arena[SPARE + 1] = 0
        return self.trace(SPARE, numbers)


@st.composite
def segments(draw: Any) -> Segment:
    """Of vocabularies without "b" in some, so that there are positions that no path reaches."""
    pieces = ["a", "ab", "ba", "aa", "bb", "aba", "abab", "bbb", "b"][: draw(st.integers(8, 9))]
    scores = draw(st.lists(st.floats(-12, 2), min_size=len(pieces), max_size=len(pieces)))
    tokenizer = Tokenizer.from_pieces(dict(zip(pieces, scores, strict=True)), device="cpu")
    text = draw(st.text("ab", min_size=1, max_size=DRAW_BYTES)).encode()
    segment = Segment(tokenizer, text, draw(st.sampled_from([0.0, 0.1, 1.0, 3.0])))
    assume(segment.z > 0)
    return segment


@settings(deadline=None, max_examples=150)
@given(segments(), st.lists(st.integers(0, LAST), max_size=50))
def test_a_table_picks_what_the_trace_through_the_arcs_picks(segment: Segment, numbers: list[int]) -> None:
    steps = (-2 * UNIT, -UNIT - 1, -UNIT, -1, 0, 1, UNIT - 1, UNIT)
    close = [bound * UNIT + step for bound in segment.bounds for step in steps]
    numbers = [*numbers, 0, 1, LAST - 1, LAST, *(n for n in close if 0 <= n <= LAST)]
    by_arcs = segment.by_arcs(numbers)
    for number, by_table, expected in zip(numbers, segment.trace(segment.base, numbers), by_arcs, strict=True):
        if by_table is None:
            assert any(-1 <= number // UNIT - bound <= 0 for bound in segment.bounds)
        else:
            assert by_table == expected


@settings(deadline=None, max_examples=100)
@given(segments(), st.sampled_from([0, 1, 2**52, LAST - 1, LAST]))
def test_the_least_and_the_greatest_number_pick_the_path_of_the_definition(segment: Segment, number: int) -> None:
    """Rounding can take a target up to Z, so that no sum exceeds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "segments", lambda text, rules: [(0, len(text))])
        patch.setattr(reference, "uniform", lambda *counter: number * 2.0**-DRAW_BITS)
        weights = arc_weights(segment.tokenizer._model.vocabulary, segment.alpha).tolist()
        path, _ = reference.sample(segment.text, rules_of(segment.tokenizer), weights)
    assert segment.by_arcs([number]) == [[arc for _, arc in path]]
