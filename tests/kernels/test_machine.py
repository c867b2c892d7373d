"""Functions on words of eight bytes, compiled and plain, against one byte at a time."""

import sys
import tomllib

import numba
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from packaging.requirements import Requirement

from gpu_lattice.kernels.cpu.machine import (
    BOUNDS,
    ITEMS,
    LANES,
    LITTLE_ENDIAN,
    ONES,
    SUMS,
    above,
    at_most,
    bytes_equal,
    bytes_outside,
    copy_items,
    in_range,
    load_eight,
    load_word,
    ones,
    prefetch,
    starts_of,
    starts_of_characters,
    store_eight,
    trailing_zeros,
)

EIGHT = st.binary(min_size=8, max_size=8) | st.lists(
    st.sampled_from(b" !@AZ[az~\x7f\x80\xff\0\x01"), min_size=8, max_size=8
)


def word_of(raw: bytes) -> np.uint64:
    return np.frombuffer(bytes(raw), np.uint64)[0]


@njit
def compiled_trailing_zeros(word):
    return trailing_zeros(word)


@njit
def compiled_ones(word):
    return ones(word)


@njit
def compiled_move(source, i, out, at):
    store_eight(out, at, load_eight(source, i))


def plain_move(source, i, out, at):
    store_eight(out, at, load_eight(source, i))


def test_numba_is_one_that_these_functions_were_tested_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (needed,) = (one for one in map(Requirement, project["dependencies"]) if one.name == "numba")
    assert {part.operator for part in needed.specifier} == {">=", "<"}
    assert needed.specifier.contains(numba.__version__), f"numba {numba.__version__} is not {needed.specifier}"


@given(EIGHT, st.sampled_from([(0x21, 0x7E), (0x41, 0x5A), (1, 127), (5, 5)]))
def test_bytes_outside_are_told_exactly(raw, bounds):
    low, high = bounds
    expected = bytes(0 if low <= byte <= high else 0x80 for byte in raw)
    assert int(bytes_outside(word_of(raw), low, high)).to_bytes(8, sys.byteorder) == expected


@pytest.mark.skipif(not LITTLE_ENDIAN, reason="what lies above the lowest byte is not exact")
@given(EIGHT, st.sampled_from(b" !A\x80\xff\0\x01"))
def test_the_first_equal_byte_is_found(raw, byte):
    found = np.uint64(bytes_equal(word_of(raw), np.uint64(byte) * ONES))
    first = bytes(raw).find(byte)
    assert compiled_trailing_zeros(found) >> 3 == (8 if first < 0 else first)


@given(st.integers(0, 2**64 - 1) | st.integers(0, 63).map(lambda i: 1 << i))
def test_zeros_are_counted_from_the_lowest_bit(word):
    expected = (word & -word).bit_length() - 1 if word else 64
    assert trailing_zeros(np.uint64(word)) == compiled_trailing_zeros(np.uint64(word)) == expected
    assert ones(np.uint64(word)) == compiled_ones(np.uint64(word)) == f"{word:b}".count("1")


@pytest.mark.parametrize("move", [compiled_move, plain_move])
def test_words_are_moved_from_anywhere_to_anywhere(move):
    source = np.arange(30, dtype=np.uint8)
    for i, at in ((0, 0), (3, 9), (22, 16), (7, 1)):
        out = np.zeros(24, np.uint8)
        move(source, i, out, at)
        assert out.tolist() == [0] * at + list(range(i, i + 8)) + [0] * (16 - at)


@njit
def compiled_word(values, start, stop):
    return load_word(values, start, stop)


@pytest.mark.parametrize("word", [compiled_word, load_word])
def test_a_word_ends_where_the_text_ends(word):
    for values in (np.frombuffer(b"abcdefghijklmnop\xff", np.uint8), np.frombuffer(b"\xff\xfe\x00\xfd", np.uint8)):
        for start in range(len(values) + 1):
            for stop in range(start - 2, len(values) + 3):
                expected = values[start : max(start, min(stop, start + 8))].tobytes().ljust(8, b"\0")
                assert int(word(values, start, stop)).to_bytes(8, "little") == expected


@njit
def compiled_at_most(items, first, limit):
    return at_most(items, first, limit)


@pytest.mark.parametrize("mask", [compiled_at_most, at_most])
def test_each_lane_is_compared_with_the_limit(mask):
    items = np.random.default_rng(3).integers(0, 1 << 16, 4 * BOUNDS).astype(np.uint16)
    for first in (0, 1, BOUNDS + 3, 3 * BOUNDS):
        for limit in (0, 1, 0x7FFF, 0x8000, 0xFFFF, *items[first : first + 3]):
            expected = sum(int(items[first + i] <= limit) << i for i in range(BOUNDS))
            assert int(mask(items, first, np.uint16(limit))) == expected


@njit
def compiled_above(items, first, limit):
    return above(items, first, limit)


@pytest.mark.parametrize("mask", [compiled_above, above])
def test_each_sum_is_compared_with_the_limit(mask):
    items = np.sort(np.random.default_rng(4).random(4 * SUMS))
    for first in (0, 1, SUMS + 3, 3 * SUMS):
        for limit in (-1.0, 0.0, 2.0, *items[first : first + SUMS], *np.nextafter(items[first : first + SUMS], 0)):
            expected = sum(int(items[first + i] > limit) << i for i in range(SUMS))
            assert int(mask(items, first, limit)) == expected


@njit
def compiled_in_range(values, first, low, high):
    return in_range(values, first, low, high)


@pytest.mark.parametrize("mask", [compiled_in_range, in_range])
def test_each_byte_is_told_to_be_in_a_range(mask):
    values = np.random.default_rng(6).permutation(256).astype(np.uint8)
    for first in (0, 1, BOUNDS + 3, 3 * BOUNDS):
        for low, high in ((0, 0), (0, 255), (32, 32), (48, 57), (100, 200), (128, 255), (255, 255)):
            expected = sum(int(low <= values[first + i] <= high) << i for i in range(BOUNDS))
            assert int(mask(values, first, np.uint8(low), np.uint8(high))) == expected


@njit
def compiled_copy_items(source, index, target, at):
    copy_items(source, index, target, at)


@pytest.mark.parametrize("copy", [compiled_copy_items, copy_items])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_items_are_copied_and_none_beside_them(copy, dtype):
    source = np.random.default_rng(5).integers(0, 1 << 16, 4 * ITEMS).astype(dtype)
    for index in (0, 3, 3 * ITEMS):
        target = np.full(3 * ITEMS, -1, np.int32)
        copy(source, index, target, ITEMS - 1)
        expected = np.full(3 * ITEMS, -1)
        expected[ITEMS - 1 : 2 * ITEMS - 1] = source[index : index + ITEMS]
        assert target.tolist() == expected.tolist()


@njit
def compiled_starts_of(values, first, character):
    return starts_of(values, first, character)


@pytest.mark.parametrize("mask", [compiled_starts_of, starts_of])
def test_each_start_of_a_character_is_found(mask):
    text = "▁a▁▁b\u2580\u2582 é▁cdefghijklmnopqrst▁u".encode() + b"\xe2\x96\xe2\x96\x81\x81" + "▁".encode() * 20
    sought = "▁".encode()
    for first in range(len(text) - LANES - 1):
        expected = sum(text.startswith(sought, first + i) << i for i in range(LANES))
        assert int(mask(np.frombuffer(text, np.uint8), first, np.uint64(int.from_bytes(sought, "little")))) == expected


@njit
def compiled_starts_of_characters(values, first):
    return starts_of_characters(values, first)


@pytest.mark.parametrize("mask", [compiled_starts_of_characters, starts_of_characters])
def test_every_start_of_a_character_is_found(mask):
    text = "aé漢😀".encode() * LANES
    values = np.frombuffer(text, np.uint8)
    for first in range(2 * LANES):
        expected = sum((text[first + i] & 0xC0 != 0x80) << i for i in range(LANES))
        assert int(mask(values, first)) == expected


@njit
def compiled_prefetch(values, index):
    prefetch(values, index)


@pytest.mark.parametrize("fetch", [compiled_prefetch, prefetch])
def test_any_item_is_fetched_ahead(fetch):
    for index in (0, 99, 10**12, -(10**12)):
        assert fetch(np.arange(4), index) is None
