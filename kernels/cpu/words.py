"""Eight bytes of an array at once, for hashing and comparing short texts."""

import sys

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

LITTLE_ENDIAN = sys.byteorder == "little"


def _eight(array, index):
    """The eight bytes from `index` on as one uint64 in the machine's order; the caller sees to it that they exist."""
    return np.uint64(int.from_bytes(array[index : index + 8].tobytes(), sys.byteorder))


@overload(_eight)
def _compiled_eight(array, index):
    return lambda array, index: _load(array, index)


@intrinsic
def _load(typing_context, array, index):
    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.gep(data, [arguments[1]])
        word = ir.IntType(64)
        return builder.load(builder.bitcast(address, word.as_pointer()), align=1, typ=word)

    return types.uint64(array, types.intp), generate


@njit(nogil=True, cache=True)
def load_word(values, start, stop):
    """Up to eight bytes from start, at most to stop, as a uint64 in which what lies beyond them is 0."""
    length = stop - start
    if length >= 8:
        return _eight(values, start)
    if start + 8 <= len(values) and LITTLE_ENDIAN:
        return _eight(values, start) & ((np.uint64(1) << np.uint64(8 * length)) - np.uint64(1))
    word = np.uint64(0)
    for i in range(length):
        word |= np.uint64(values[start + i]) << np.uint64(8 * i)
    return word
