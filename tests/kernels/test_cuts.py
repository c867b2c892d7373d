"""Static cuts on the CPU against their definition, by pieces laid over every position."""

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpu_lattice.kernels.cpu.bulk.cuts import N_PAIRS, NO_KEY, enter_ids, find_cuts
from gpu_lattice.kernels.cpu.bulk.layout import DIRECT, NOWHERE
from gpu_lattice.kernels.tables.cuts import build_cut_table
from gpu_lattice.text_batch import to_ragged

CHARACTERS = st.text("\0ab\x7fé\u07ff▁日本\U00010000😀", max_size=12)
BYTES = st.binary(max_size=12) | st.text("ab", max_size=12).map(str.encode)


def _symbols(text: bytes, is_bytes: bool) -> list[bytes]:
    return [text[i : i + 1] for i in range(len(text))] if is_bytes else [c.encode() for c in text.decode()]


def _is_cut(symbols: list[bytes], i: int, pieces: list[list[bytes]], reach: int) -> bool:
    """Whether no piece that agrees with up to `reach` symbols on each side spans the boundary before symbol i."""
    for piece in pieces:
        for k in range(1, len(piece)):
            left, right = min(k, reach), min(len(piece) - k, reach)
            if left <= i and piece[k - left : k + right] == symbols[i - left : i + right]:
                return False
    return True


@given(st.data(), st.booleans())
def test_cuts_are_where_no_piece_agrees_with_the_symbols_around(data: Any, is_bytes: bool) -> None:
    texts = BYTES if is_bytes else CHARACTERS.map(str.encode)
    pieces = data.draw(st.lists(texts.filter(bool), max_size=20, unique=True))
    before, chunk, after = data.draw(texts), data.draw(texts.filter(bool)), data.draw(texts)
    table = build_cut_table(*to_ragged(pieces), is_bytes)
    values = np.frombuffer(before + chunk + after, np.uint8)
    start, stop = len(before), len(before) + len(chunk)
    symbols = _symbols(chunk, is_bytes)
    split = [_symbols(piece, is_bytes) for piece in pieces]
    starts = start + np.cumsum([0, *map(len, symbols)])
    expected = [int(starts[i]) for i in range(1, len(symbols)) if _is_cut(symbols, i, split, 2 if is_bytes else 1)]
    i_first = data.draw(st.integers(0, len(symbols) - 1))
    p, size = int(starts[i_first]), data.draw(st.integers(1, len(chunk) + 1))
    limit = data.draw(st.integers(p + 1, stop))
    expected = [e for e in [*expected, stop] if e > p]
    expected = expected[: 1 + sum(e < limit for e in expected)][:size]
    characters = table.characters.copy()
    if not is_bytes:
        enter_ids(*to_ragged(pieces), np.arange(len(pieces)), table.pages, characters)
    cuts, places = np.full(size + 1, p), np.zeros(size + 1, np.int64)
    n = find_cuts(values, limit, start, stop, table.cpu_pairs, table.cpu_keys, table.pages, characters, table.joined,
                  is_bytes, cuts, 1, places)  # fmt: skip
    assert cuts[1:n].tolist() == expected
    between = [values[a:b].tobytes() for a, b in pairwise([p, *expected])]
    is_single = [not is_bytes and text in pieces and len(text.decode()) == 1 for text in between]
    assert [place != NOWHERE for place in places[: n - 1]] == is_single
    assert all(pieces[place - DIRECT] == text for place, text in zip(places, between, strict=False) if place != NOWHERE)


def test_tables_for_a_cpu_hold_every_key_of_the_set_once() -> None:
    rng = np.random.default_rng(5)
    pieces = [rng.integers(0, 256, 4, np.uint8).tobytes() for _ in range(5000)]
    table = build_cut_table(*to_ragged(pieces), True)
    held = table.cpu_keys[table.cpu_keys != NO_KEY]
    assert len(np.unique(held)) == len(held) == np.count_nonzero(table.keys)
    assert len(table.cpu_pairs) > N_PAIRS
