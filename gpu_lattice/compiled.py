"""Functions that Numba compiles, kept on disk for as long as the package's code stays what it was."""

from __future__ import annotations

import warnings
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from numba import njit

from gpu_lattice.cache import code_digest

if TYPE_CHECKING:
    from collections.abc import Callable


@overload
def compiled(function: Callable[..., Any]) -> Any: ...


@overload
def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]: ...


def compiled(function: Any = None, **options: Any) -> Any:
    """Compile a function at its first call, to run without the GIL; a decorator, with or without options of `njit`.

    What was compiled is kept in the folder that Numba chooses, `__pycache__` beside the file or $NUMBA_CACHE_DIR. Numba
    alone would go on using it after a change to another file, of a function that is called. Where no folder can be
    written, each process compiles for itself, and a RuntimeWarning says so.
    """
    if function is None:
        return partial(compiled, **options)
    try:
        dispatcher = njit(function, nogil=True, cache=True, **options)
    except RuntimeError:  # Numba finds no folder
        _warn()
        return njit(function, nogil=True, **options)
    if dispatcher is not function:  # as it is with NUMBA_DISABLE_JIT
        _discard_outdated(Path(dispatcher.stats.cache_path))
    return dispatcher


@cache
def _warn() -> None:
    warnings.warn(
        "compiled code cannot be kept, so that every process takes a minute for it: "
        "set NUMBA_CACHE_DIR to a folder that can be written",
        RuntimeWarning,
        stacklevel=3,
    )


@cache
def _discard_outdated(folder: Path) -> None:
    """Remove from a folder of this package's compiled code what was made by another version of it."""
    stamp = folder / "gpu_lattice.digest"
    if stamp.exists() and stamp.read_bytes() == code_digest():
        return
    for path in folder.glob("*.nb[ic]"):
        path.unlink(missing_ok=True)
    stamp.write_bytes(code_digest())
