"""Eight bytes of an array at once: to hash and compare short texts, and to find and copy runs of plain bytes."""

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from gpu_lattice.kernels.compiled import compiled

LITTLE_ENDIAN = sys.byteorder == "little"
LANES = 32
N_LANES = np.uint64(LANES)
BOUNDS = 64
SUMS = 8
N_SUMS = np.uint64(SUMS)
ITEMS = 8
N_ITEMS = np.uint64(ITEMS)

# Numba turns uint64 with a plain int into int64 or float64.
ONE, TWO = np.uint64(1), np.uint64(2)

# The multiplier of hashes: 2**64 over the golden ratio.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)

ONES = np.uint64(0x0101010101010101)
HIGH_BITS = np.uint64(0x8080808080808080)


def load_eight(array: Any, index: Any) -> Any:
    """The eight bytes from `index` on as one uint64 in the machine's order; the caller makes sure that they exist."""
    return np.uint64(int.from_bytes(array[index : index + 8].tobytes(), sys.byteorder))


def load_word(values: Any, start: Any, stop: Any) -> Any:
    """Up to eight bytes from start, at most to stop, the first one lowest, as a uint64 filled up with 0.

    Written in LLVM's terms, since a Numba function that takes an array would cost more than it does.
    """
    return np.uint64(int.from_bytes(values[start : min(start + 8, max(start, stop))].tobytes(), "little"))


def store_eight(array: Any, index: Any, word: Any) -> None:
    """Write a uint64 in the machine's order; the caller makes sure that there is room."""
    array[index : index + 8] = np.frombuffer(int(word).to_bytes(8, sys.byteorder), np.uint8)


def trailing_zeros(word: Any) -> Any:
    """The number of zero bits below the lowest that is set; 64 for 0."""
    word = int(word)
    return (word & -word).bit_length() - 1 if word else 64


def ones(word: Any) -> Any:
    """The number of bits of a uint64 that are set."""
    return int(word).bit_count()


def at_most(array: Any, index: Any, limit: Any) -> Any:
    """A bit for each of the BOUNDS uint16 items from `index` on, the first one lowest: whether it is at most limit.

    The caller makes sure that all of them exist.
    """
    return np.uint64(sum(int(array[index + i] <= limit) << i for i in range(BOUNDS)))


def above(array: Any, index: Any, limit: Any) -> Any:
    """A bit for each of the SUMS float64 items from `index` on, the first one lowest: whether it is greater than limit.

    The caller makes sure that all of them exist.
    """
    return np.uint64(sum(int(array[index + i] > limit) << i for i in range(SUMS)))


def starts_of(values: Any, index: Any, character: Any) -> Any:
    """A bit for each of the LANES positions from `index` on, the first one lowest: whether the character begins there.

    character: three bytes, the first one lowest, as a uint64. The caller makes sure that there are LANES + 2 bytes.
    """
    sought = int(character).to_bytes(8, "little")[:3]
    return np.uint64(sum(int(values[index + i : index + i + 3].tobytes() == sought) << i for i in range(LANES)))


def starts_of_characters(values: Any, index: Any) -> Any:
    """A bit for each of the LANES positions from `index` on, the first one lowest: whether a character of UTF-8 begins
    there. The caller makes sure that there are LANES bytes.
    """
    return np.uint64(sum(int(values[index + i] & 0xC0 != 0x80) << i for i in range(LANES)))


def in_range(values: Any, index: Any, low: Any, high: Any) -> Any:
    """A bit for each of the BOUNDS bytes from `index` on, the first one lowest: whether it is one of low to high.

    The caller makes sure that all of them exist.
    """
    return np.uint64(sum(int(low <= values[index + i] <= high) << i for i in range(BOUNDS)))


def copy_items(source: Any, index: Any, target: Any, at: Any) -> None:
    """Write ITEMS items of an array of integers, from `index` on, to an int32 one, from `at` on.

    The caller makes sure that all of them exist.
    """
    target[at : at + ITEMS] = source[index : index + ITEMS]


def prefetch(array: Any, index: Any) -> None:
    """Have the processor fetch the cache line of an item that is read soon. Any index is safe."""


@overload(at_most)
def _compiled_at_most(array, index, limit):
    return lambda array, index, limit: _at_most(array, index, limit)


@overload(above)
def _compiled_above(array, index, limit):
    return lambda array, index, limit: _above(array, index, limit)


@overload(starts_of)
def _compiled_starts_of(values, index, character):
    return lambda values, index, character: _starts_of(values, index, character)


@overload(starts_of_characters)
def _compiled_starts_of_characters(values, index):
    return lambda values, index: _starts_of_characters(values, index)


@overload(in_range)
def _compiled_in_range(values, index, low, high):
    return lambda values, index, low, high: _in_range(values, index, low, high)


@overload(copy_items)
def _compiled_copy_items(source, index, target, at):
    return lambda source, index, target, at: _copy_items(source, index, target, at)


@overload(prefetch)
def _compiled_prefetch(array, index):
    return lambda array, index: _prefetch(array, index)


@overload(load_eight)
def _compiled_load_eight(array, index):
    return lambda array, index: _load(array, index)


@overload(load_word)
def _compiled_load_word(values, start, stop):
    return lambda values, start, stop: _load_up_to(values, start, stop)


@overload(store_eight)
def _compiled_store_eight(array, index, word):
    return lambda array, index, word: _store(array, index, word)


@overload(trailing_zeros)
def _compiled_trailing_zeros(word):
    return lambda word: _count(word)


@overload(ones)
def _compiled_ones(word):
    return lambda word: _count_ones(word)


@intrinsic
def _load(typing_context, array, index):
    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        return builder.load(address, align=1, typ=ir.IntType(64))

    return types.uint64(array, types.intp), generate


@intrinsic
def _load_up_to(typing_context, values, start, stop):
    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        start, stop = arguments[1:]
        word, byte, zero, eight = ir.IntType(64), ir.IntType(8), ir.IntType(64)(0), ir.IntType(64)(8)

        def least(x, y):
            return builder.select(builder.icmp_signed("<", x, y), x, y)

        def from_zero(x):
            return builder.select(builder.icmp_signed("<", x, zero), zero, x)

        source = builder.bitcast(builder.gep(array.data, [start]), byte.as_pointer())
        room = builder.sub(array.nitems, start)
        loaded = cgutils.alloca_once_value(builder, zero)
        with builder.if_else(builder.icmp_signed(">=", room, eight), likely=True) as (within, near_the_end):
            with within:
                builder.store(builder.load(builder.bitcast(source, word.as_pointer()), align=1), loaded)
            with near_the_end:
                cgutils.raw_memcpy(builder, builder.bitcast(loaded, byte.as_pointer()), source, from_zero(room), 1)
        bits = builder.load(loaded)
        if not LITTLE_ENDIAN:
            bits = builder.bswap(bits)
        # In two steps, since a shift by 64 is undefined.
        half = builder.shl(from_zero(least(builder.sub(stop, start), eight)), word(2))
        beyond = builder.shl(builder.shl(word(-1), half), half)
        return builder.and_(bits, builder.not_(beyond))

    return types.uint64(values, types.intp, types.intp), generate


@intrinsic
def _store(typing_context, array, index, word):
    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _address(context, builder, signature, arguments), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.uint64), generate


@intrinsic
def _at_most(typing_context, array, index, limit):
    def generate(context, builder, signature, arguments):
        items, everywhere = ir.VectorType(ir.IntType(16), BOUNDS), ir.VectorType(ir.IntType(32), BOUNDS)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), items.as_pointer())
        limits = builder.insert_element(items(ir.Undefined), arguments[2], ir.IntType(32)(0))
        limits = builder.shuffle_vector(limits, items(ir.Undefined), ir.Constant(everywhere, [0] * BOUNDS))
        found = builder.icmp_unsigned("<=", builder.load(address, align=2), limits)
        return builder.bitcast(found, ir.IntType(BOUNDS))

    return types.uint64(array, types.intp, types.uint16), generate


@intrinsic
def _above(typing_context, array, index, limit):
    def generate(context, builder, signature, arguments):
        items, everywhere = ir.VectorType(ir.DoubleType(), SUMS), ir.VectorType(ir.IntType(32), SUMS)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), items.as_pointer())
        limits = builder.insert_element(items(ir.Undefined), arguments[2], ir.IntType(32)(0))
        limits = builder.shuffle_vector(limits, items(ir.Undefined), ir.Constant(everywhere, [0] * SUMS))
        found = builder.fcmp_ordered(">", builder.load(address, align=8), limits)
        return builder.zext(builder.bitcast(found, ir.IntType(SUMS)), ir.IntType(64))

    return types.uint64(array, types.intp, types.float64), generate


@intrinsic
def _starts_of(typing_context, values, index, character):
    def generate(context, builder, signature, arguments):
        byte, lanes = ir.IntType(8), ir.VectorType(ir.IntType(8), LANES)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        found = None
        for i in range(3):
            address = builder.gep(data, [builder.add(arguments[1], ir.IntType(64)(i))])
            loaded = builder.load(builder.bitcast(address, lanes.as_pointer()), align=1)
            sought = builder.trunc(builder.lshr(arguments[2], ir.IntType(64)(8 * i)), byte)
            repeated = builder.insert_element(lanes(ir.Undefined), sought, ir.IntType(32)(0))
            repeated = builder.shuffle_vector(repeated, lanes(ir.Undefined), everywhere)
            equal = builder.icmp_unsigned("==", loaded, repeated)
            found = equal if found is None else builder.and_(found, equal)
        return builder.zext(builder.bitcast(found, ir.IntType(LANES)), ir.IntType(64))

    return types.uint64(values, types.intp, types.uint64), generate


@intrinsic
def _starts_of_characters(typing_context, values, index):
    def generate(context, builder, signature, arguments):
        byte, lanes = ir.IntType(8), ir.VectorType(ir.IntType(8), LANES)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), lanes.as_pointer())
        # As signed numbers, 0x80 to 0xBF are those below -64.
        lowest = ir.Constant(lanes, [byte(-64)] * LANES)
        starts = builder.icmp_signed(">=", builder.load(address, align=1), lowest)
        return builder.zext(builder.bitcast(starts, ir.IntType(LANES)), ir.IntType(64))

    return types.uint64(values, types.intp), generate


@intrinsic
def _in_range(typing_context, values, index, low, high):
    def generate(context, builder, signature, arguments):
        lanes, everywhere = ir.VectorType(ir.IntType(8), BOUNDS), ir.VectorType(ir.IntType(32), BOUNDS)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), lanes.as_pointer())

        def repeated(byte):
            first = builder.insert_element(lanes(ir.Undefined), byte, ir.IntType(32)(0))
            return builder.shuffle_vector(first, lanes(ir.Undefined), ir.Constant(everywhere, [0] * BOUNDS))

        low, high = arguments[2:]
        # One comparison: bytes below `low` wrap around.
        above_low = builder.sub(builder.load(address, align=1), repeated(low))
        found = builder.icmp_unsigned("<=", above_low, repeated(builder.sub(high, low)))
        return builder.bitcast(found, ir.IntType(BOUNDS))

    return types.uint64(values, types.intp, types.uint8, types.uint8), generate


@intrinsic
def _copy_items(typing_context, source, index, target, at):
    def generate(context, builder, signature, arguments):
        def address(i, width):
            data = context.make_array(signature.args[i])(context, builder, arguments[i]).data
            items = ir.VectorType(ir.IntType(width), ITEMS)
            return builder.bitcast(builder.gep(data, [arguments[i + 1]]), items.as_pointer())

        width = source.dtype.bitwidth
        items = builder.load(address(0, width), align=width // 8)
        if width < 32:
            items = builder.zext(items, ir.VectorType(ir.IntType(32), ITEMS))
        builder.store(items, address(2, 32), align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), generate


@intrinsic
def _prefetch(typing_context, array, index):
    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", (address.type,), kind)
        # For reading, to be kept close, in the data cache.
        builder.call(function, [address, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def _count(typing_context, word):
    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def _count_ones(typing_context, word):
    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


def _address(context, builder, signature, arguments):
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(64).as_pointer())


@compiled
def bytes_outside(word, low, high):
    """The high bits of the bytes that are outside low to high, 1 <= low <= high <= 127; exact for each byte."""
    below = ~((word | HIGH_BITS) - np.uint64(low) * ONES)
    above = (word & ~HIGH_BITS) + np.uint64(127 - high) * ONES
    return (word | below | above) & HIGH_BITS


@compiled
def bytes_equal(word, repeated):
    """The high bits of the bytes that two words share; exact up to the lowest of them, little-endian."""
    different = word ^ repeated
    return (different - ONES) & ~different & HIGH_BITS
