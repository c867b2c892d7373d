"""Eight bytes of an array at once: to hash and compare short texts, and to find and copy runs of plain bytes."""

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

LITTLE_ENDIAN = sys.byteorder == "little"

ONES = np.uint64(0x0101010101010101)
HIGH_BITS = np.uint64(0x8080808080808080)


def load_eight(array: Any, index: Any) -> Any:
    """The eight bytes from `index` on as one uint64 in the machine's order; the caller sees to it that they exist."""
    return np.uint64(int.from_bytes(array[index : index + 8].tobytes(), sys.byteorder))


def store_eight(array: Any, index: Any, word: Any) -> None:
    """Write a uint64 in the machine's order; the caller sees to it that there is room."""
    array[index : index + 8] = np.frombuffer(int(word).to_bytes(8, sys.byteorder), np.uint8)


def trailing_zeros(word: Any) -> Any:
    """The number of zero bits below the lowest that is set; 64 for 0."""
    word = int(word)
    return (word & -word).bit_length() - 1 if word else 64


def prefetch(array: Any, index: Any) -> None:
    """Have the processor fetch the cache line of an item that is read soon. Any index will do."""


@overload(prefetch)
def _compiled_prefetch(array, index):
    return lambda array, index: _prefetch(array, index)


@overload(load_eight)
def _compiled_load_eight(array, index):
    return lambda array, index: _load(array, index)


@overload(store_eight)
def _compiled_store_eight(array, index, word):
    return lambda array, index, word: _store(array, index, word)


@overload(trailing_zeros)
def _compiled_trailing_zeros(word):
    return lambda word: _count(word)


@intrinsic
def _load(typing_context, array, index):
    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature, arguments)
        return builder.load(address, align=1, typ=ir.IntType(64))

    return types.uint64(array, types.intp), generate


@intrinsic
def _store(typing_context, array, index, word):
    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _address(context, builder, signature, arguments), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.uint64), generate


@intrinsic
def _prefetch(typing_context, array, index):
    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", (address.type,), kind)
        # To be read, soon and often, from the data cache.
        builder.call(function, [address, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def _count(typing_context, word):
    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


def _address(context, builder, signature, arguments):
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(64).as_pointer())


@njit(nogil=True, cache=True)
def load_word(values, start, stop):
    """Up to eight bytes from start, at most to stop, as a uint64 in which what lies beyond them is 0."""
    length = stop - start
    if length >= 8:
        return load_eight(values, start)
    if start + 8 <= len(values) and LITTLE_ENDIAN:
        return load_eight(values, start) & ((np.uint64(1) << np.uint64(8 * length)) - np.uint64(1))
    word = np.uint64(0)
    for i in range(length):
        word |= np.uint64(values[start + i]) << np.uint64(8 * i)
    return word


@njit(nogil=True, cache=True)
def bytes_outside(word, low, high):
    """The high bits of the bytes that are not from low to high, 1 <= low <= high <= 127; exact for each byte."""
    below = ~((word | HIGH_BITS) - np.uint64(low) * ONES)
    above = (word & ~HIGH_BITS) + np.uint64(127 - high) * ONES
    return (word | below | above) & HIGH_BITS


@njit(nogil=True, cache=True)
def bytes_equal(word, repeated):
    """The high bits of the bytes that two words share; exact up to the lowest of them, little-endian."""
    different = word ^ repeated
    return (different - ONES) & ~different & HIGH_BITS
