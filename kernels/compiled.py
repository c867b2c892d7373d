"""Functions compiled by Numba, cached on disk until anything that they may call changes."""

from __future__ import annotations

import pickle
import warnings
from contextlib import contextmanager
from functools import cache, partial
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from numba import config, njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KERNELS = Path(__file__).parent
DIGEST_BYTES = 32


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
    dispatcher = njit(function, nogil=True, **options)
    if dispatcher is function:  # with NUMBA_DISABLE_JIT
        return function
    try:
        dispatcher._cache = _Cache(function)
    except RuntimeError:  # Numba finds no folder
        _warn()
        return dispatcher
    _discard_outdated(Path(dispatcher.stats.cache_path), Path(function.__code__.co_filename).parent)
    return dispatcher


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

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            _warn()


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
    """Remove from a folder the compiled code of `sources` that was made from another version of the sources."""
    stamp, now = folder / "gpu_lattice.digest", code_digest(KERNELS, sources)
    if stamp.exists() and stamp.read_bytes() == now:
        return
    for path in folder.glob("*.nb[ic]"):
        path.unlink(missing_ok=True)
    try:
        stamp.write_bytes(now)
    except OSError:
        _warn()
