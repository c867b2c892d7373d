"""Functions compiled by Numba, cached on disk until anything that they may call changes."""

from __future__ import annotations

import warnings
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

KERNELS = Path(__file__).parent


@overload
def compiled(function: Callable[..., Any]) -> Any: ...


@overload
def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]: ...


def compiled(function: Any = None, **options: Any) -> Any:
    """Compile a function at its first call, to run without the GIL; a decorator, with or without options of `njit`.

    A compiled function may call others in this package and in its own folder. The compiled code is kept in the folder
    that Numba chooses, `__pycache__` beside the file or $NUMBA_CACHE_DIR, until one of these files changes. (Numba by
    itself would go on using it after a change to a function that is called from another file.) If no folder is
    writable, each process compiles for itself, and a RuntimeWarning says so.
    """
    if function is None:
        return partial(compiled, **options)
    try:
        dispatcher = njit(function, nogil=True, cache=True, **options)
    except RuntimeError:  # Numba finds no folder
        _warn()
        return njit(function, nogil=True, **options)
    if dispatcher is not function:  # with NUMBA_DISABLE_JIT they are the same
        _discard_outdated(Path(dispatcher.stats.cache_path), Path(function.__code__.co_filename).parent)
    return dispatcher


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
    stamp.write_bytes(now)
