"""Functions compiled by Numba, cached on disk until anything that they may call changes."""

from __future__ import annotations

import pickle
import sys
import warnings
from contextlib import contextmanager, suppress
from functools import cache, cached_property, partial, update_wrapper
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numba import config, njit, typeof, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.runtime.nrt import rtsys
from numba.core.typed_passes import NativeLowering
from numba.core.typing.templates import make_concrete_template

from gpu_lattice.kernels.cpu.passing import handed_over

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

KERNELS = Path(__file__).parent
DIGEST_BYTES = 32
# A file is written within a moment.
ABANDONED_SECONDS = 600.0


@overload
def compiled(function: Callable[..., Any]) -> Any: ...


@overload
def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]: ...


def compiled(function: Any = None, **options: Any) -> Any:
    """Compile a function at its first call, to run without the GIL; a decorator, with or without options of `njit`.

    A compiled function may call others in this package and in its own folder. The compiled code is kept in the folder
    that Numba chooses, `__pycache__` beside the file or $NUMBA_CACHE_DIR, until one of these files changes. (Numba by
    itself would go on using it after a change to a function that is called from another file.) A damaged file counts
    as none. If no folder is writable, each process compiles for itself, and a RuntimeWarning says so.
    """
    if function is None:
        return partial(compiled, **options)
    return function if config.DISABLE_JIT else _Compiled(function, options)  # type: ignore[attr-defined]


def as_written(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that was compiled, for Python to call with NumPy's arrays in place of numbers."""
    plain: Callable[..., Any] = getattr(function, "__wrapped__", function)
    return plain


def readonly(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a view of it, that nothing is written to: Numba compiles once for what may be written to, once
    for what may not.
    """
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


class _Compiled:
    """A function that becomes Numba's when it is first called or asked for; for the most part it is not, but is within
    compiled code that is read from disk, and to make two hundred functions Numba's takes a tenth of a second.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        update_wrapper(self, function)
        self._options = {"nogil": True, "no_cfunc_wrapper": True, **options}

    @cached_property
    def _dispatcher(self) -> Any:
        function: Any = self.__wrapped__
        dispatcher: Any = njit(function, pipeline_class=_HandingPipeline, **self._options)
        linked = _Linked(dispatcher)
        dispatcher.get_call_template, dispatcher.get_overload = linked.get_call_template, linked.get_overload
        try:
            dispatcher._cache = _Cache(function)
        except RuntimeError:  # Numba finds no folder
            _warn()
            return dispatcher
        _discard_outdated(Path(dispatcher.stats.cache_path), Path(function.__code__.co_filename).parent)
        return dispatcher

    @property
    def _numba_type_(self) -> Any:
        """What Numba asks an object for that compiled code calls."""
        return self._dispatcher._numba_type_

    def __call__(self, *args: Any) -> Any:
        return self._dispatcher(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatcher, name)

    def __reduce__(self) -> str | tuple[Any, ...]:
        name: str = self.__qualname__
        return (_Compiled, (self.__wrapped__, self._options)) if "<locals>" in name else name


class Bound:
    """A compiled function whose arguments always have the types that they had in the first call.

    The caller answers for that: nobody looks at them again, which takes Numba longer than a short text, as it goes
    through each array of a model.

    only_reads: what the function writes to is held; other arrays are compiled as read only, so that it does not matter
    whether an array that comes may be written to.
    """

    def __init__(self, function: Any, only_reads: bool = False) -> None:
        self._function, self._only_reads = function, only_reads
        self._code: Any = None if isinstance(function, _Compiled) else function

    def __call__(self, *args: Any) -> Any:
        if self._code is None:
            self._code = self._function.compile(self.types_of(args))
        return self._code(*args)

    def types_of(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """For which types these arguments have the function compiled."""
        return tuple(map(typeof, _as_read(args) if self._only_reads else args))


def _as_read(value: Any) -> Any:
    """The value with each array in it read-only."""
    if isinstance(value, np.ndarray):
        return readonly(value)
    if not isinstance(value, tuple):
        return value
    items = map(_as_read, value)
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)


class _Linked:
    """A function as compiled callers have it: a part of their code, with no machine code and no file of its own.

    Numba by itself optimizes, translates, wraps for Python and keeps each function that another one calls, all of which
    is done once more for the caller, and compiles it anew for every constant that it is called with.
    """

    def __init__(self, dispatcher: Any) -> None:
        self._compiler = type(dispatcher._compiler)(
            dispatcher.py_func, dispatcher.targetdescr, dispatcher.targetoptions, {}, _LinkedPipeline
        )
        self._results: dict[Any, Any] = {}

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """What `types.Dispatcher` asks a dispatcher for when a call of it is typed."""
        signature, args = self._compiler.fold_argument_types(args, kws)
        args = tuple(map(types.unliteral, args))
        if args not in self._results:
            _progress.advance()
            self._results[args] = self._compiler.compile(args, None)
        name = self._compiler.py_func.__name__
        template = make_concrete_template(name, key=name, signatures=[self._results[args].signature])
        return template, signature, args, {}

    def get_overload(self, args: Any) -> Any:
        return self._results[tuple(args)].entry_point


class _LinkedPipeline(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        return [_lowered_by(_LinkedLowering, self.state)]


class _HandingPipeline(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        return [_lowered_by(_HandingLowering, self.state)]


def _lowered_by(lowering: type[NativeLowering], state: Any) -> Any:
    passes = DefaultPassBuilder.define_nopython_pipeline(state)
    passes.passes = [(lowering if a_pass is NativeLowering else a_pass, reason) for a_pass, reason in passes.passes]
    passes.finalize()
    return passes


class _Handing(Lower):
    def create_cpython_wrapper(self, release_gil: bool = False) -> None:
        """The function as Python calls it, to which arrays are handed over (kernels/cpu/passing.py)."""
        kind = self.fndesc.restype
        self.fndesc.restype = handed_over(kind)
        super().create_cpython_wrapper(release_gil)
        self.fndesc.restype = kind


@register_pass(mutates_CFG=True, analysis_only=False)
class _HandingLowering(NativeLowering):
    _name = "handing_lowering"

    @property
    def lowering_class(self) -> type[Lower]:
        return _Handing


@register_pass(mutates_CFG=True, analysis_only=False)
class _LinkedLowering(NativeLowering):
    _name = "linked_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = state.flags.no_cpython_wrapper = state.flags.no_cfunc_wrapper = True
        super().run_pass(state)
        key = object()
        state.targetctx.insert_user_function(key, state.cr.fndesc, [state.library])
        state.cr = state.cr._replace(cfunc=key)
        return True


class _LinkedLibrary(JITCodeLibrary):
    """LLVM's code to be linked into that of callers, which is optimized as a whole."""

    def _optimize_final_module(self) -> None: ...

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _WholeFiles(IndexDataCacheFile):
    """Numba's two files for a function, each followed by a digest of its content: machine code is run unchecked."""

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[BytesIO]:
        content = BytesIO()
        yield content
        with super()._open_for_write(filepath) as file:
            file.write(content.getvalue() + _content_digest(content.getvalue()))

    def _load_index(self) -> dict[Any, str]:
        index: dict[Any, str] = {} if _whole(self._index_path) is None else super()._load_index()
        return index

    def _load_data(self, name: str) -> Any:
        content = _whole(self._data_path(name))
        if content is None:
            raise FileNotFoundError(name)  # so that it is compiled again
        return pickle.loads(content)


class _Cache(FunctionCache):
    """Numba's cache of a function, which can be called in spite of damaged files or a full disk."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _WholeFiles(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        # Numba's own key is the same for code that checks its indices and code that does not.
        return *super()._index_key(sig, codegen), config.BOUNDSCHECK  # type: ignore[attr-defined]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        # Unlike Numba's, without loading what only compiling needs, for half a second; but arrays need the runtime.
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)
        if found is None:
            _progress.advance()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        _progress.clear()
        try:
            super().save_overload(sig, data)
        except OSError:
            _warn()


class _Progress:
    """A line on a terminal while functions are compiled, for which a first call takes a minute."""

    def __init__(self) -> None:
        self._n_functions = 0

    def advance(self) -> None:
        self._n_functions += 1
        self._show(f"gpu_lattice compiles its kernels, once per installation: {self._n_functions} functions")

    def clear(self) -> None:
        self._show("")

    def _show(self, line: str) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


_progress = _Progress()


def _content_digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


def _whole(path: str) -> bytes | None:
    """The content of a file before its digest; None if there is no file, or a damaged one."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return None
    content = data[:-DIGEST_BYTES]
    return content if _content_digest(content) == data[-DIGEST_BYTES:] else None


def code_digest(*folders: Path) -> bytes:
    """A digest of all Python sources in and below some folders."""
    digest = blake2b(digest_size=32)
    for path in sorted({path for folder in folders for path in folder.rglob("*.py")}):
        digest.update(path.read_bytes())
    return digest.digest()


@cache
def _warn() -> None:
    warnings.warn(
        "compiled code cannot be kept, so that every process takes a minute for it: "
        "set NUMBA_CACHE_DIR to a folder that can be written",
        RuntimeWarning,
        stacklevel=3,
    )


@cache
def _discard_outdated(folder: Path, sources: Path) -> None:
    """Remove from a folder the compiled code of `sources` that was made from another version of the sources, and what
    processes that were killed have left of a file.
    """
    for path in folder.glob("*.nb[ic].tmp.*"):
        with suppress(OSError):  # another process may do the same
            if time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()
    stamp, now = folder / "gpu_lattice.digest", code_digest(KERNELS, sources)
    if stamp.exists() and stamp.read_bytes() == now:
        return
    for path in folder.glob("*.nb[ic]"):
        path.unlink(missing_ok=True)
    try:
        stamp.write_bytes(now)
    except OSError:
        _warn()
