"""Where files are: folders of this machine, and URLs; one way to list, read and write them."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, NamedTuple, Protocol
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs

from gpu_lattice.runtime.files import PREFIX, SUFFIX, whole_file

STDIN = "-"


class Status(NamedTuple):
    """What is known of a file or folder; time: of its last change, ns since 1970, None if the storage keeps none."""

    is_folder: bool
    size: int
    time: int | None


class Storage(Protocol):
    """Files by path, "/" between the names of folders."""

    def status(self, path: str) -> Status | None:
        """None if there is nothing of this name."""

    def files_below(self, folder: str, is_deep: bool = True) -> dict[str, Status]:
        """The files in a folder by their paths relative to it; if deep, those of the folders in it too."""

    def open(self, path: str) -> pa.NativeFile:
        """A file to be read at any place."""

    def whole_file(self, path: str, is_durable: bool = True) -> AbstractContextManager[BinaryIO]:
        """A file to be written, which gets its name at a clean end of the block, and leaves nothing otherwise.

        is_durable: wait until the content is on disk, before the file gets its name.
        """

    def make_folder(self, path: str) -> None: ...

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""

    def remove_folder(self, path: str) -> None:
        """Remove a folder, if it is there and empty."""

    def url(self, path: str) -> str:
        """How users name the file."""


@dataclass(frozen=True)
class Local:
    """This machine's files, opened by Python: Arrow takes no name that is not UTF-8, and has no locks and no fsync."""

    def status(self, path: str) -> Status | None:
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Status(stat.S_ISDIR(found.st_mode), found.st_size, found.st_mtime_ns)

    def files_below(self, folder: str, is_deep: bool = True) -> dict[str, Status]:
        folders = os.walk(folder) if is_deep else islice(os.walk(folder), 1)
        found: dict[str, Status] = {}
        for where, _, names in folders:
            below = Path(where).relative_to(folder).as_posix()
            for name in names:
                status = self.status(os.path.join(where, name))
                if status is not None and not status.is_folder:
                    found[name if below == "." else f"{below}/{name}"] = status
        return found

    def open(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(open(path, "rb"), "r")

    def whole_file(self, path: str, is_durable: bool = True) -> AbstractContextManager[BinaryIO]:
        return whole_file(Path(path), is_durable)

    def make_folder(self, path: str) -> None:
        if not os.path.isdir(path):
            os.makedirs(path, exist_ok=True)

    def remove(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def remove_folder(self, path: str) -> None:
        with suppress(OSError):
            os.rmdir(path)

    def url(self, path: str) -> str:
        return path


@dataclass(frozen=True)
class Remote:
    """Files behind a URL, through pyarrow.fs; prefix: what precedes their paths in it."""

    filesystem: Any
    prefix: str

    def status(self, path: str) -> Status | None:
        with self._errors_name(path):
            found = self.filesystem.get_file_info(path)
        return None if found.type == pa.fs.FileType.NotFound else _status(found)

    def files_below(self, folder: str, is_deep: bool = True) -> dict[str, Status]:
        selected = pa.fs.FileSelector(folder, recursive=is_deep, allow_not_found=True)
        with self._errors_name(folder):
            found = self.filesystem.get_file_info(selected)
        below = len(folder.rstrip("/")) + 1
        return {info.path[below:]: _status(info) for info in found if info.type == pa.fs.FileType.File}

    def open(self, path: str) -> pa.NativeFile:
        return self.filesystem.open_input_file(path)

    @contextmanager
    def whole_file(self, path: str, is_durable: bool = True) -> Iterator[BinaryIO]:
        folder, _, _ = path.rpartition("/")
        temporary = f"{folder}/{PREFIX}{token_hex(8)}{SUFFIX}"
        try:
            with self.filesystem.open_output_stream(temporary) as file:
                yield file
            self.filesystem.move(temporary, path)
        except BaseException:
            with suppress(OSError):
                self.filesystem.delete_file(temporary)
            raise

    def make_folder(self, path: str) -> None:
        self.filesystem.create_dir(path, recursive=True)

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(path)

    def remove_folder(self, path: str) -> None:
        """An object store has no empty folders; elsewhere an empty folder disturbs nobody."""
        if not self.files_below(path):
            with suppress(OSError):
                self.filesystem.delete_dir(path)

    def url(self, path: str) -> str:
        return self.prefix + path

    @contextmanager
    def _errors_name(self, path: str) -> Iterator[None]:
        """Have what cannot be reached be an OSError: libraries for HTTP raise exceptions of their own."""
        try:
            yield
        except (OSError, ValueError, ImportError):
            raise
        except Exception as error:
            raise OSError(f"{self.url(path)}: {error}") from error


def _status(info: Any) -> Status:
    time = None if info.mtime_ns is None or info.mtime_ns < 0 else int(info.mtime_ns)
    return Status(info.type == pa.fs.FileType.Directory, max(0, info.size or 0), time)


@dataclass(frozen=True)
class Stdin:
    """The one file "-", which is read once, from its beginning."""

    def status(self, path: str) -> Status:
        return Status(False, 0, None)

    def open(self, path: str) -> pa.NativeFile:
        if sys.stdin is None:
            raise OSError("stdin is closed; give files, or text on stdin")
        return pa.PythonFile(_Unclosed(sys.stdin.buffer), "r")

    def url(self, path: str) -> str:
        return "stdin"


class _Unclosed:
    """A stream that belongs to others, who close it."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self.read = stream.read

    def close(self) -> None:
        self.closed = True


def resolve(name: str) -> tuple[Storage, str]:
    """The storage of a local path or a URL, and the path in it.

    URLs are pyarrow's (s3, gs, abfs, hdfs, hf, file), with its options after "?"; any other is fsspec's. Raises
    ValueError for a URL that neither knows, ImportError for one that needs another package, and OSError for one that
    cannot be reached.

    Example:
        >>> resolve("corpus/a.txt")
        (Local(), 'corpus/a.txt')
    """
    if "://" not in name:
        return Local(), name
    scheme = name.partition("://")[0]
    if scheme == "file":
        return Local(), urlsplit(name).path
    try:
        filesystem, path = pa.fs.FileSystem.from_uri(name)
    except pa.ArrowInvalid:
        filesystem, path = _by_fsspec(name)
    return Remote(filesystem, f"{scheme}://"), path


def _by_fsspec(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ImportError(f"{url} needs the package fsspec: pip install fsspec") from None
    try:
        filesystem, path = url_to_fs(url)
    except ImportError as error:
        raise ImportError(f"{url}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{url}: {error}; give a path, or a URL of pyarrow.fs or fsspec") from None
    return pa.fs.PyFileSystem(pa.fs.FSSpecHandler(filesystem)), path
