"""The one way to write a file: whole or not at all; and a lock, so that two runs do not write into one folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from gpu_lattice.runtime.interrupts import put_off_interrupts

try:
    import fcntl
except ImportError:  # without locks of this kind, unique names must do
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".gpu_lattice-", ".tmp"
LOCK = ".gpu_lattice.lock"


@contextmanager
def whole_file(path: Path, is_durable: bool = True) -> Iterator[BinaryIO]:
    """A file to be written, which gets its name at a clean end of the block and is removed otherwise.

    Until then it is in the same folder under a temporary name that `remove_leftovers` recognizes, and is locked, which
    shows that its writer is alive. It is always created, so that it never follows a link; a link with the final name is
    replaced, not followed. is_durable: its content is on disk before it gets its name, so that a power failure leaves
    none half-written. Raises OSError if it cannot be written.

    Example:
        >>> with whole_file(Path("numbers")) as file:
        ...     file.write(b"1 2 3")
    """
    while True:
        temporary = os.path.join(os.path.dirname(path), f"{PREFIX}{token_hex(8)}{SUFFIX}")
        try:
            with open(temporary, "xb") as file:
                if not _is_ours(file.fileno()):
                    continue
                yield file
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
                if fcntl is None:  # such systems cannot rename open files
                    file.close()
                os.replace(temporary, path)
                return
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file completely, or leave it as it was; interrupts wait."""
    with put_off_interrupts(), whole_file(path) as file:
        file.write(data)


@contextmanager
def locked(folder: Path, part: tuple[int, int] = (0, 1)) -> Iterator[None]:
    """Hold the lock of a folder, or of part I of N of the work in it, for the block.

    Other parts of the N may be held at the same time. If another process holds this part, or one of another N, a
    BlockingIOError names that process. The system releases the lock when a process ends in whatever way. If the system
    or the file system has no locks, nothing is locked.
    """
    path = folder / lock_name(part)
    with ExitStack() as stack:
        if fcntl is not None:
            with put_off_interrupts():
                stack.callback(os.close, _acquire(path))
                stack.callback(path.unlink, missing_ok=True)
                for other in folder.glob(".gpu_lattice*.lock"):
                    if not other.name.endswith(LOCK if part[1] == 1 else f"-of-{part[1]}.lock"):
                        descriptor = _acquire(other)
                        other.unlink(missing_ok=True)  # its holder was killed
                        os.close(descriptor)
        yield


def lock_name(part: tuple[int, int]) -> str:
    """Example:
    >>> lock_name((0, 1)), lock_name((3, 8))
    ('.gpu_lattice.lock', '.gpu_lattice-3-of-8.lock')
    """
    return LOCK if part[1] == 1 else f".gpu_lattice-{part[0]}-of-{part[1]}.lock"


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder: files of `whole_file` that are not locked."""
    if fcntl is None:
        return
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        # It is being written, or the file system has no locks.
        with suppress(OSError), ExitStack() as stack:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _is_ours(descriptor: int) -> bool:
    """Lock a file that was just created; False if `remove_leftovers` of another process was faster."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where nothing is removed
        return True
    return os.fstat(descriptor).st_nlink > 0


def _acquire(path: Path) -> int:
    """The descriptor of a lock file, locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace") or "of unknown number"
            os.close(descriptor)
            raise BlockingIOError(
                f"process {holder} is writing into {path.parent}; wait until it is done, or write to another folder"
            ) from None
        except OSError:
            return descriptor
        with suppress(OSError):
            # Unless its last holder has removed it.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
        os.close(descriptor)
