"""What of CuPy is used here, with CuPy 14's signatures and refusals, on NumPy's arrays and the kernels' host build.

A pytest plugin too: with `-p cuda_on_cpu.cupy_on_host`, tests marked gpu run on this, and so do CudaDevice and all that
speaks with CuPy. Streams do their work at once. `events` tells what was asked of them, in order, and `races` what a GPU
might have done in another: memory that one stream uses while another may still be writing to it, or that is freed, for
its stream to use anew, while another stream may still need it; memory on the host that is used anew too soon.
"""

import re
import sys
import threading
import traceback
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.host_device import HERE, POISON, HostDevice
from numpy.lib.mixins import NDArrayOperatorsMixin

from gpu_lattice.backends import cuda_device
from gpu_lattice.kernels.cuda.loader import _KERNEL, FILES, OPTIONS, kernels_in, read_source

WARP = 32
CONST = re.compile(r"const [\w ]+\* *(?:__restrict__ )?(\w+)")
MICRO = str(HERE.parents[1] / "bench" / "gpu")
events: list[tuple[Any, ...]] = []
races: list[str] = []
_local = threading.local()


class Memory:
    """What an array lies in, and by which streams it has been used, each with the number of its work that did so last.

    written: the stream that wrote to it last, and when
    """

    def __init__(self) -> None:
        self._stream = get_current_stream()
        self._reads: dict[Stream, int] = {}
        self._written = self._stream, self._stream.work()

    def read(self, stream: Any = None) -> None:
        self._use(stream or get_current_stream(), dict([self._written]))

    def write(self, stream: Any = None) -> None:
        stream = stream or get_current_stream()
        self._use(stream, self._reads | dict([self._written]))
        self._reads, self._written = {}, (stream, stream.work())

    def _use(self, stream: "Stream", before: dict["Stream", int]) -> None:
        self._reads[stream] = stream.work()
        if not stream.is_after(before):
            races.append("".join(traceback.format_stack(limit=6)[:-2]))

    def __del__(self) -> None:
        if not self._stream.is_after(self._reads | dict([self._written])):
            races.append("freed while another stream may need it")


class ndarray(NDArrayOperatorsMixin):  # noqa: N801
    """An array that NumPy cannot read, that does not mix with NumPy's, and whose reductions are arrays too."""

    def __init__(self, host: Any, memory: Memory | None = None) -> None:
        self._host = np.asarray(host)
        self.memory = memory or Memory()

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        assert method == "__call__", method
        for one in out or ():
            one.memory.write()
        if out is not None:
            options["out"] = tuple(one._host for one in out)
        result = ufunc(*map(_operand, inputs), **options)
        return out[0] if out is not None else ndarray(result)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return _called(function, *args, **options)

    def __getitem__(self, key: Any) -> Any:
        part = self._host[_key(key)]
        if part.base is None:
            self.memory.read()
            return ndarray(part)
        return ndarray(part, self.memory)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.memory.write()
        self._host[_key(key)] = _operand(value)

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        stream = stream or get_current_stream()
        events.append(("get", stream, blocking))
        self.memory.read(stream)
        if blocking:
            _wait_for(stream.before)
        if out is None:
            return self._host.copy()
        assert type(out) is np.ndarray
        assert (out.dtype, out.shape) == (self.dtype, self.shape)
        assert out.flags.c_contiguous
        assert self._host.flags.c_contiguous
        _copied(out, stream)
        out[...] = self._host
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        assert type(arr) is np.ndarray
        assert (arr.dtype, arr.shape) == (self.dtype, self.shape)
        events.append(("set", stream or get_current_stream()))
        self.memory.write(stream)
        _copied(arr, stream or get_current_stream())
        self._host[...] = arr

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> Any:
        if self.dtype == dtype and not copy:
            return self
        return ndarray(_operand(self).astype(dtype))

    def view(self, dtype: Any) -> Any:
        return ndarray(self._host.view(dtype), self.memory)

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        return ndarray(self._host.reshape(*shape), self.memory)

    def copy(self, order: str = "C") -> Any:
        return ndarray(_operand(self).copy())

    def fill(self, value: Any) -> None:
        assert np.ndim(value) == 0
        self.memory.write()
        self._host.fill(value)

    def tolist(self) -> Any:
        return self.get().tolist()

    def ravel(self, order: str = "C") -> Any:
        return ndarray(self._host.ravel(), self.memory)

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return ndarray(_operand(self).sum(axis=axis, dtype=dtype, keepdims=keepdims))

    def cumsum(self, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        return ndarray(_operand(self).cumsum(axis=axis, dtype=dtype))

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return ndarray(_operand(self).min(axis=axis, keepdims=keepdims))

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return ndarray(_operand(self).max(axis=axis, keepdims=keepdims))

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return ndarray(_operand(self).any(axis=axis, keepdims=keepdims))

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return ndarray(_operand(self).all(axis=axis, keepdims=keepdims))

    def item(self) -> Any:
        return self.get().item()

    def __dlpack__(self, **options: Any) -> Any:
        return self._host.__dlpack__()

    @property
    def device(self) -> Any:
        return Device(0)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._host.ctypes.data)

    @property
    def T(self) -> Any:  # noqa: N802
        return ndarray(self._host.T, self.memory)

    dtype = property(lambda self: self._host.dtype)
    shape = property(lambda self: self._host.shape)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    flags = property(lambda self: self._host.flags)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __index__(self) -> int:
        return int(self.get().item())

    def __bool__(self) -> bool:
        return bool(self.get())

    __hash__ = None  # type: ignore[assignment]


def _operand(value: Any) -> Any:
    """What may meet an array in an operation: another one, or a number."""
    if isinstance(value, ndarray):
        value.memory.read()
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _key(key: Any) -> Any:
    """An index, in which NumPy's arrays and lists are allowed."""
    return tuple(map(_key, key)) if isinstance(key, tuple) else _operand(key) if isinstance(key, ndarray) else key


def _inside(value: Any) -> Any:
    return type(value)(map(_inside, value)) if type(value) in (tuple, list) else _operand(value)


def _called(function: Any, *args: Any, out: Any = None, **options: Any) -> Any:
    given = {name: _inside(value) for name, value in options.items()}
    if out is not None:
        out.memory.write()
        function(*map(_inside, args), out=out._host, **given)
        return out
    result = function(*map(_inside, args), **given)
    return tuple(map(ndarray, result)) if isinstance(result, tuple) else ndarray(result)


def _function(name: str) -> Any:
    """NumPy's function by this name for such arrays; CuPy's take no others for the arrays that they work on."""
    function = getattr(np, name)

    def call(*args: Any, **options: Any) -> Any:
        return _called(function, *args, **options)

    return call


def asarray(a: Any, dtype: Any = None, order: Any = None, *, blocking: bool = False) -> Any:
    if isinstance(a, ndarray):
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    return ndarray(np.array(a, dtype))


def empty(shape: Any, dtype: Any = float, order: str = "C") -> Any:
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8).fill(POISON)
    return ndarray(array)


def from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> Any:
    return ndarray(np.from_dlpack(array))


def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    """CuPy's needs the numbers on the host."""
    if isinstance(repeats, (ndarray, np.ndarray)):
        raise ValueError("repeats should be int or sequence")
    return _called(np.repeat, a, repeats, axis)


def _copied(host: Any, stream: "Stream") -> None:
    """The host has filled or emptied this memory since the copy before, so it must have seen that done."""
    last, number = _copies.get(host.ctypes.data, (stream, 0))
    if _seen.get(last, 0) < number:
        races.append("memory on the host is used anew before its last copy is done")
    _copies[host.ctypes.data] = stream, stream.work()


def _wait_for(work: dict["Stream", int]) -> None:
    """The host has seen this work done, so all that it asks for later comes after it."""
    for stream, number in work.items():
        _seen[stream] = max(_seen.get(stream, 0), number)


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.before: dict[Stream, int] = {}

    def record(self, stream: Any = None) -> None:
        (stream or get_current_stream()).record(self)

    def synchronize(self) -> None:
        events.append(("synchronize", self))
        _wait_for(self.before)


class Stream:
    """before: of every stream, the number of its work that comes before what this one does next."""

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        self.before: dict[Stream, int] = {}

    def work(self) -> int:
        """The number of a further piece of work."""
        self.before[self] = self.before.get(self, 0) + 1
        return self.before[self]

    def is_after(self, work: dict["Stream", int]) -> bool:
        return all(max(self.before.get(one, 0), _seen.get(one, 0)) >= number for one, number in work.items())

    def __enter__(self) -> "Stream":
        _stack().append(self)
        return self

    def __exit__(self, *error: object) -> None:
        assert _stack().pop() is self

    def record(self, event: Any = None) -> Any:
        event = event or Event()
        event.before = _seen | self.before
        events.append(("record", self, event))
        return event

    def wait_event(self, event: Event) -> None:
        assert isinstance(event, Event)
        events.append(("wait", self, event))
        for stream, number in event.before.items():
            self.before[stream] = max(self.before.get(stream, 0), number)

    def synchronize(self) -> None:
        events.append(("synchronize", self))
        _wait_for(self.before)


def _stack() -> list[Stream]:
    if not hasattr(_local, "streams"):
        _local.streams = [null]
    return _local.streams  # type: ignore[no-any-return]


_seen: dict[Stream, int] = {}
_copies: dict[int, tuple[Stream, int]] = {}
null = Stream(null=True)


def get_current_stream(device_id: int = -1) -> Stream:
    return _stack()[-1]


class Device:
    mem_info = 1 << 34, 1 << 34

    def __init__(self, device: int = 0) -> None:
        self.id = device
        self.attributes = {"MultiProcessorCount": 1}

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *args: object) -> None: ...


def alloc_pinned_memory(size: int) -> Any:
    """An object with a buffer of at least so many bytes."""
    return memoryview(bytearray([POISON]) * (1 << (max(512, size) - 1).bit_length()))


class RawKernel:
    shared_size_bytes = 0
    preferred_shared_memory_carveout = -1

    def __init__(self, file: str, name: str, options: tuple[str, ...]) -> None:
        self._launch = HostDevice().kernel(file, name, options)
        parameters = dict(_KERNEL.findall(read_source(f"{file}.cu")))[name]
        self._parameters, self._read_only = kernels_in(file)[name], set(CONST.findall(parameters))

    def __call__(self, grid: tuple[int], block: tuple[int], args: Any, *, shared_mem: int = 0) -> None:
        assert not any(isinstance(arg, np.ndarray) for arg in args)
        for name, arg in zip(self._parameters, args, strict=True):
            if isinstance(arg, ndarray):
                arg.memory.read() if name in self._read_only else arg.memory.write()
        host = tuple(arg._host if isinstance(arg, ndarray) else arg for arg in args)
        # In the host build, one thread does a warp's work.
        self._launch(grid, (1,) if block == (WARP,) else block, host)


class RawModule:
    def __init__(
        self, code: Any = None, *, path: Any = None, options: tuple[str, ...] = (), backend: str = "nvrtc",
        translate_cucomplex: bool = False, enable_cooperative_groups: bool = False, name_expressions: Any = None,
        jitify: Any = None,
    ) -> None:  # fmt: skip
        assert options[: len(OPTIONS)] == OPTIONS
        self._file = next(file for file in (*FILES, MICRO) if read_source(f"{file}.cu") == code)
        self._options = options[len(OPTIONS) :]

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(self._file, name, self._options)


class _Pool:
    def free_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0

    def free_all_blocks(self) -> None: ...


FUNCTIONS = (
    "add", "append", "arange", "bincount", "clip", "concatenate", "cumsum", "diff", "exp", "flatnonzero", "full",
    "ldexp", "log", "log1p", "maximum", "minimum", "ones", "searchsorted", "stack", "tile", "where", "zeros",
)  # fmt: skip


def module() -> Any:
    cupy: Any = ModuleType("cupy")
    names: dict[str, Any] = {name: _function(name) for name in FUNCTIONS}
    names |= {one.__name__: one for one in (ndarray, asarray, empty, repeat, from_dlpack, RawModule)}
    names |= {kind: getattr(np, kind) for kind in ("int8", "int32", "int64", "uint8", "uint32", "uint64", "float64")}
    names |= {"inf": np.inf, "get_default_memory_pool": _Pool, "__version__": "14.2.0 on the host"}
    runtime = SimpleNamespace(
        getDeviceProperties=lambda ordinal: {"name": b"the host"},
        getDeviceCount=lambda: 1,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        CUDARuntimeError=RuntimeError,
    )
    names["cuda"] = SimpleNamespace(
        Device=Device, Stream=Stream, Event=Event, runtime=runtime, alloc_pinned_memory=alloc_pinned_memory,
        get_current_stream=get_current_stream, get_elapsed_time=lambda first, last: 1.0,
        set_allocator=lambda allocator=None: None,
    )  # fmt: skip
    vars(cupy).update(names)
    return cupy


def pytest_configure() -> None:
    sys.modules["cupy"] = module()
    cuda_device.device_count = lambda: 1


@pytest.fixture(autouse=True)
def no_races() -> Iterator[None]:
    races.clear()
    yield
    assert not races, races[0]
