"""What passes between Python and compiled code, for calls that are as short as a text.

At every call, Numba makes a header of each array that comes in and counts it among its references, and compiled code
counts again wherever it reads a field: for the thirty arrays of a model that takes longer than a short text. What is
`Held` has its headers made once, and its references are not counted, as it keeps its arrays alive.

For each array that goes out, Numba asks Python what class it is to have. That takes time, too; and if an interrupt is
raised there, Numba does not look, and gives a tuple without some of its items, or crashes. What is handed over
(`handed_over`) has NumPy's class.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, typeof, types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import NativeValue, box, intrinsic, models, register_model, typeof_impl, unbox
from numba.np.numpy_support import as_dtype

CELL_BYTES = 8
INT64 = ir.IntType(64)


class Held(bytes):
    """A tuple of contiguous arrays, numbers and such tuples, as one argument of a compiled function that opens it.

    The caller keeps it for as long as the function runs, which returns none of its arrays, nor views of them.
    Its bytes are cells: of an array its address, then its shape; else the number.

    content: the tuple
    """

    content: Any

    def __new__(cls, content: Any) -> "Held":
        held = super().__new__(cls, b"".join(_cells(content)))
        held.content = content
        return held

    def __reduce__(self) -> tuple[Any, ...]:
        return Held, (self.content,)


def opened(held: Any) -> Any:
    """The tuple that is held; anything else as it is. In compiled functions alone."""
    return held.content if isinstance(held, Held) else held


def handed_over(kind: Any) -> Any:
    """The type by which a compiled function hands a value of this one over to Python."""
    return HandedType(kind) if isinstance(kind, types.Array | types.BaseTuple) else kind


def _cells(content: Any) -> list[bytes]:
    if isinstance(content, tuple):
        return [cell for item in content for cell in _cells(item)]
    if isinstance(content, np.ndarray):
        if not content.flags.c_contiguous:
            raise ValueError("an array that is held is not contiguous; give a copy")
        return [np.array([content.ctypes.data, *content.shape], np.int64).tobytes()]
    return [np.asarray(content).tobytes().ljust(CELL_BYTES, b"\0")]


class HeldType(types.Type):
    """The type of a Held in compiled code, where it is the address of its cells."""

    def __init__(self, content: Any) -> None:
        self.content = content
        super().__init__(f"held({content})")

    @property
    def key(self) -> Any:
        return self.content


register_model(HeldType)(models.OpaqueModel)


@typeof_impl.register(Held)
def _type_of_held(held, context):
    return HeldType(typeof(held.content))


@unbox(HeldType)
def _address_of_held(kind, held, c):
    address = c.pyapi.bytes_as_string(held)
    return NativeValue(address, is_error=cgutils.is_null(c.builder, address))


@intrinsic
def _open(typing_context, held):
    def generate(context, builder, signature, arguments):
        if not isinstance(signature.args[0], HeldType):
            return impl_ret_borrowed(context, builder, signature.return_type, arguments[0])
        cells = builder.bitcast(arguments[0], INT64.as_pointer())
        return _read(context, builder, signature.return_type, cells, 0)[0]

    return (held.content if isinstance(held, HeldType) else held)(held), generate


def _read(context, builder, kind, cells, at):
    """(the value of this type that begins at a cell, the cell after it)"""
    from numba.np.arrayobj import make_array, populate_array

    if isinstance(kind, types.BaseTuple):
        items = []
        for item_kind in kind:
            item, at = _read(context, builder, item_kind, cells, at)
            items.append(item)
        return context.make_tuple(builder, kind, items), at

    def cell(i):
        return builder.gep(cells, [INT64(i)])

    if not isinstance(kind, types.Array):
        pointer = builder.bitcast(cell(at), context.get_data_type(kind).as_pointer())
        return context.unpack_value(builder, kind, pointer), at + 1
    array = make_array(kind)(context, builder)
    shape = [builder.load(cell(at + 1 + i)) for i in range(kind.ndim)]
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides = [itemsize]
    for length in shape[:0:-1]:
        strides.insert(0, builder.mul(strides[0], length))
    data = builder.inttoptr(builder.load(cell(at)), array.data.type)
    # No meminfo: nothing is counted.
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue(), at + 1 + kind.ndim


class HandedType(types.Type):
    """The type of arrays, or tuples of them, that are handed over: as the content, but for the way out."""

    def __init__(self, content: Any) -> None:
        self.content = content
        super().__init__(f"handed({content})")


@register_model(HandedType)
def _model_of_content(manager, kind):
    return manager.lookup(kind.content)


if not config.DISABLE_JIT:  # type: ignore[attr-defined]
    # Not by `overload`, by which each use would be a function that takes or returns hundreds of words.
    opened = _open  # type: ignore[assignment]


@box(HandedType)
def _hand_over(kind, value, c):
    if isinstance(kind.content, types.Array):
        return _hand_array_over(kind.content, value, c)
    # If an item is missing, an error is set: only the making of a named tuple goes through Python.
    items, is_whole = c.pyapi.tuple_new(len(kind.content)), cgutils.true_bit
    for i, item_kind in enumerate(kind.content):
        item = c.box(handed_over(item_kind), c.builder.extract_value(value, i))
        is_whole = c.builder.and_(is_whole, cgutils.is_not_null(c.builder, item))
        c.pyapi.tuple_setitem(items, i, item)
    done = cgutils.alloca_once_value(c.builder, c.pyapi.get_null_object())
    with c.builder.if_then(is_whole, likely=True):
        if isinstance(kind.content, types.BaseNamedTuple):
            c.builder.store(c.pyapi.call(_constant(kind.content.instance_class, c), items), done)
        else:
            c.pyapi.incref(items)
            c.builder.store(items, done)
    c.pyapi.decref(items)
    return c.builder.load(done)


def _hand_array_over(kind, value, c):
    byte_pointer, int32 = c.pyapi.voidptr, ir.IntType(32)
    signature = ir.FunctionType(c.pyapi.pyobj, [byte_pointer, c.pyapi.pyobj, int32, int32, c.pyapi.pyobj])
    adapt = cgutils.get_or_insert_function(c.builder.module, signature, "NRT_adapt_ndarray_to_python_acqref")
    header = c.builder.bitcast(cgutils.alloca_once_value(c.builder, value), byte_pointer)
    array_class, dtype = _constant(np.ndarray, c), _constant(as_dtype(kind.dtype), c)
    array = c.builder.call(adapt, [header, array_class, int32(kind.ndim), int32(int(kind.mutable)), dtype])
    c.context.nrt.decref(c.builder, kind, value)
    return array


def _constant(value, c):
    """A Python object, borrowed from those that compiled code keeps."""
    return c.env_manager.read_const(c.env_manager.add_const(value))
