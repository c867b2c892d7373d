"""The slowest steps of loading a large model, cached on disk for later processes.

A file holds one result and is named by a digest of everything that the result depends on, including the package's own
code, so it is never out of date. It begins with a digest of its content, so a file with a wrong bit is not read.
Whatever is wrong with a file or the folder, the result is then made as if there were no cache.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache, partial
from hashlib import blake2b, file_digest
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np

from gpu_lattice.kernels.compiled import KERNELS, code_digest
from gpu_lattice.runtime.files import remove_leftovers, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Inputs = Iterable[bytes | bool | NDArray[Any]]

T = TypeVar("T", bound=NamedTuple)

# Less is processed about as fast as the code for it is loaded, and a file read.
LEAST_BYTES = 1 << 16
MOST_BYTES = 1 << 30
DIGEST_BYTES = 32
_content_digest = partial(blake2b, digest_size=DIGEST_BYTES)


def cached(kind: type[T], inputs: Inputs, make: Callable[[], T], least_bytes: int | None = None) -> T:
    """make(), or what it returned to an earlier process for the same inputs.

    kind: the named tuple of arrays and NumPy scalars that make() returns; inputs: all that it depends on. For less than
    least_bytes of them (LEAST_BYTES) no file is read or written. Errors of make() are raised, and nothing is cached.
    The folder is $GPU_LATTICE_CACHE ("off" or empty: none), else gpu_lattice in $XDG_CACHE_HOME, else in ~/.cache. When
    it exceeds MOST_BYTES, the least recently used files are removed.
    """
    arrays = _arrays(inputs)
    least_bytes = LEAST_BYTES if least_bytes is None else least_bytes
    where = folder() if sum(array.nbytes for array in arrays) >= least_bytes else None
    if where is None:
        return make()
    path = _path(where, kind, arrays)
    result = _read(kind, path)
    if result is None:
        result = make()
        # If nothing can be written, the next process makes it again.
        with suppress(OSError):
            _write(result, path)
            _make_room(where)
    return result


def forget(kind: type[NamedTuple], inputs: Inputs) -> None:
    """Remove the result for these inputs, if there is one."""
    where = folder()
    if where is not None:
        with suppress(OSError):
            _path(where, kind, _arrays(inputs)).unlink(missing_ok=True)


def _arrays(inputs: Inputs) -> list[NDArray[Any]]:
    return [np.frombuffer(one, np.uint8) if isinstance(one, bytes) else np.ascontiguousarray(one) for one in inputs]


def _path(folder: Path, kind: type[NamedTuple], arrays: list[NDArray[Any]]) -> Path:
    return folder / f"{kind.__name__}-{_digest(arrays)}.npz"


def folder() -> Path | None:
    """Where results are kept; None: nowhere."""
    chosen = os.environ.get("GPU_LATTICE_CACHE")
    if chosen is not None:
        return None if chosen in ("", "off") else Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gpu_lattice")
    except RuntimeError:  # this user has no home
        return None


def _digest(arrays: list[NDArray[Any]]) -> str:
    digest = blake2b(_code_digest(), digest_size=20)
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.size} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


@cache
def _code_digest() -> bytes:
    """A digest of the package, since another version may make something else of the same inputs."""
    return code_digest(Path(__file__).parents[1], KERNELS)


def _read(kind: type[T], path: Path) -> T | None:
    """The content of a file; None if there is none, or one with a wrong bit."""
    try:
        with path.open("rb") as file:
            digest = file.read(DIGEST_BYTES)
            if file_digest(file, _content_digest).digest() != digest:
                return None
            file.seek(DIGEST_BYTES)
            with np.load(file, allow_pickle=False) as arrays:
                result: T = cast(Any, kind)(**{name: arrays[name][()] for name in arrays.files})
    except Exception:  # zipfile and NumPy raise all kinds of errors for other files
        return None
    with suppress(OSError):
        os.utime(path)
    return result


def _write(result: NamedTuple, path: Path) -> None:
    """Write a file that is complete or not there at all, even if others write the same one at the same time."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = BytesIO()
    np.savez(file, **result._asdict())
    write_whole(path, _content_digest(file.getbuffer()).digest() + file.getbuffer())


def _make_room(folder: Path) -> None:
    """Remove the least recently used files above MOST_BYTES, and what killed processes left."""
    room = MOST_BYTES
    for path in sorted(folder.glob("*.npz"), key=os.path.getmtime, reverse=True):
        room -= path.stat().st_size
        if room < 0:
            path.unlink(missing_ok=True)
    remove_leftovers(folder)
