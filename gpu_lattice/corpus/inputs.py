"""The files that names, folders, patterns and URLs stand for, and what each is called below its root."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import pyarrow as pa

from gpu_lattice.corpus.formats import SUFFIXES, suffixes_of
from gpu_lattice.corpus.storage import STDIN, Local, Status, Stdin, Storage, resolve

# What the datasets library keeps beside its Arrow files (save_to_disk), and what retokenize keeps beside its own.
NO_INPUTS = {"state.json", "dataset_info.json", "dataset_dict.json", "_gpu_lattice.json"}


@dataclass(frozen=True)
class InputFile:
    """A file to read.

    relative   its path below the root of the inputs, "/" between the names: part of its documents' ids
    size       in bytes, 0 for stdin
    time       of the last change, ns since 1970; None if unknown
    """

    storage: Storage | Stdin
    path: str
    relative: str
    size: int
    time: int | None

    @property
    def url(self) -> str:
        return self.storage.url(self.path)

    @property
    def is_stdin(self) -> bool:
        return isinstance(self.storage, Stdin)

    def open(self) -> pa.NativeFile:
        return self.storage.open(self.path)


def input_file(path: str | os.PathLike[str]) -> InputFile:
    """One file by its path or URL; the root is its folder."""
    (file,) = _Expansion(None, None).expand(os.fspath(path), None)
    return file


def expand_inputs(
    inputs: Sequence[str | os.PathLike[str]], root: str | None = None, leave_out: str | None = None
) -> list[InputFile]:
    """The files that inputs stand for: in the order given, sorted within a folder or pattern.

    A folder stands for the files below it with a suffix of a known format, except hidden ones; a pattern (* ? [ and **)
    for the files that match it, but in URLs "?" begins options; "-" for stdin. root: the folder that paths in ids and
    outputs are relative to; by default a folder given, the part of a pattern before its first wildcard, and of the
    files listed the deepest folder that holds them all. leave_out: a folder whose files a
    folder around it, or a pattern, does not stand for.
    Raises ValueError for a name that matches nothing or is below no root, OSError for a file that cannot be opened.
    """
    names = [os.fspath(name) for name in inputs]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"an input is {name!r:.60}; give a str, a path or a URL")
    resolved = None if leave_out is None else resolve(leave_out)
    found = _Expansion(None if root is None else resolve(root)[1], resolved)
    shared = found.root if root is not None else _shared_folder(names)
    files = [file for name in names for file in found.expand(name, shared)]
    for file in files:
        _check_access(file)
    return files


def _shared_folder(names: list[str]) -> str | None:
    """The deepest folder that holds all files that are listed one by one."""
    listed = [name for name in names if name != STDIN and not _has_magic(name)]
    folders: dict[str, None] = {}
    for name in listed:
        storage, path = resolve(name)
        status = storage.status(path)
        if status is None or not status.is_folder:
            folders[_parent(_absolute(storage, path))] = None
    return os.path.commonpath(list(folders)) if len(folders) > 1 and _comparable(list(folders)) else None


def _comparable(folders: list[str]) -> bool:
    return len({folder.startswith("/") for folder in folders}) == 1


@dataclass(frozen=True)
class _Expansion:
    """root: as users give it, else None; leave_out: a folder and where it is."""

    root: str | None
    leave_out: tuple[Storage, str] | None

    def expand(self, name: str, shared: str | None) -> Iterator[InputFile]:
        if name == STDIN:
            yield InputFile(Stdin(), STDIN, "stdin", 0, None)
            return
        if _has_magic(name) and ("://" in name or not os.path.exists(name)):
            yield from self._matches(name)
            return
        storage, path = resolve(name)
        status = storage.status(path)
        if status is None:
            raise FileNotFoundError(2, "No such file or directory", storage.url(path))
        if not status.is_folder:
            yield _file(storage, path, status, shared)
            return
        found = self._below(storage, path)
        names = sorted((relative for relative in found if _is_input(relative)), key=_parts)
        if not names:
            raise ValueError(f"the folder {name} holds no {', '.join(SUFFIXES)} file (or a compressed one)")
        yield from (self._found(storage, _join(path, name), name, found[name]) for name in names)

    def _matches(self, pattern: str) -> Iterator[InputFile]:
        fixed, rest, options = _divide(pattern)
        storage, folder = resolve((fixed or ".") + options)
        found, parts = self._below(storage, folder, "/" in rest or "**" in rest), rest.split("/")
        names = sorted((name for name in found if _fits(_parts(name), parts)), key=_parts)
        if not names:
            raise ValueError(f"no file matches {pattern}")
        for relative in names:
            path = _join(folder, relative) if fixed else relative
            yield self._found(storage, path, relative, found[relative])

    def _found(self, storage: Storage, path: str, below: str, status: Status) -> InputFile:
        """below: its path in a folder that is its root, unless users have named another."""
        if self.root is not None:
            return _file(storage, path, status, self.root)
        return InputFile(storage, path, below, status.size, status.time)

    def _below(self, storage: Storage, folder: str, is_deep: bool = True) -> dict[str, Status]:
        found = storage.files_below(folder, is_deep)
        if self.leave_out is None or self.leave_out[0] != storage:
            return found
        out = _absolute(storage, self.leave_out[1]).rstrip("/") + "/"
        if (_absolute(storage, folder).rstrip("/") + "/").startswith(out):
            return found
        return {name: one for name, one in found.items() if not _absolute(storage, _join(folder, name)).startswith(out)}


def _join(folder: str, relative: str) -> str:
    return f"{folder.rstrip('/')}/{relative}" if folder else relative


def _divide(pattern: str) -> tuple[str, str, str]:
    """(the folders before the first wildcard, what follows them, the options of a URL)."""
    url, mark, options = pattern.partition("?") if "://" in pattern else (pattern, "", "")
    first = re.search(r"[*?[]", url)
    end = url.rfind("/", 0, first.start() if first else None) + 1
    return url[:end], url[end:], mark + options


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the names of a path fit a pattern's, as in the module glob: hidden ones only where a dot is written."""
    if not pattern:
        return not names
    is_shown = bool(names) and (names[0][0] != "." or pattern[0][0] == ".")
    if pattern[0] == "**":
        return _fits(names, pattern[1:] or ["*"]) or (is_shown and _fits(names[1:], pattern))
    return is_shown and fnmatchcase(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def _has_magic(name: str) -> bool:
    return bool(re.search(r"[*[]", name.partition("?")[0])) if "://" in name else glob.has_magic(name)


def _file(storage: Storage, path: str, status: Status, root: str | None) -> InputFile:
    return InputFile(storage, path, _relative(storage, path, root), status.size, status.time)


def _relative(storage: Storage, path: str, root: str | None) -> str:
    if root is None:
        return PurePosixPath(path).name
    relative = os.path.relpath(_absolute(storage, path), _absolute(storage, root or "."))
    if relative.startswith(".."):
        raise ValueError(f"{storage.url(path)} is not below the root {root}; name a folder that holds every input")
    return Path(relative).as_posix()


def identity(storage: Storage | Stdin, path: str) -> str:
    """The same for every name of a file."""
    return os.path.realpath(path) if isinstance(storage, Local) else storage.url(path)


def _absolute(storage: Storage, path: str) -> str:
    return os.path.abspath(path) if isinstance(storage, Local) else path


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _is_input(relative: str) -> bool:
    names = _parts(relative)
    is_hidden = any(name.startswith(".") for name in names)
    return not is_hidden and names[-1] not in NO_INPUTS and suffixes_of(names[-1]).kind is not None


def _parts(relative: str) -> list[str]:
    return relative.split("/")


def _check_access(file: InputFile) -> None:
    if isinstance(file.storage, Local):
        if not os.path.isfile(file.path):
            raise ValueError(f"{file.path} is not a regular file; it is read twice, so save its content as a file")
        os.close(os.open(file.path, os.O_RDONLY))


def stem_of(name: str) -> str:
    """A name without the suffixes of its format: "a.b" for a.b.jsonl.gz.

    Example:
        >>> stem_of("shards/part-01.jsonl.zst")
        'shards/part-01'
    """
    found = suffixes_of(name)
    for suffix in (found.compression, found.format):
        name = name[: len(name) - len(suffix)]
    return name
