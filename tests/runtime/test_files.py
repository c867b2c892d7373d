"""Files are there whole or not at all, no link leads elsewhere, and a folder has one run at a time."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from gpu_lattice.runtime import files
from gpu_lattice.runtime.files import LOCK, PREFIX, SUFFIX, locked, remove_leftovers, whole_file, write_whole


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with whole_file(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def fail() -> None:
        with whole_file(path) as file:
            file.write(b"after")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"before"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_waits_for_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def interrupted(descriptor: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            write_whole(tmp_path / "file", b"whole")
    finally:
        signal.signal(signal.SIGINT, before)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"whole")]


def test_no_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").write_bytes(b"of another program")
    (tmp_path / "file").symlink_to("other")
    write_whole(tmp_path / "file", b"whole")
    assert not (tmp_path / "file").is_symlink()
    names = iter(["taken", "free"])
    monkeypatch.setattr(files, "token_hex", lambda _: next(names))
    (tmp_path / f"{PREFIX}taken{SUFFIX}").symlink_to("other")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "file", b"again")
    assert (tmp_path / "other").read_bytes() == b"of another program"
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), b"whole")
    assert len(list(tmp_path.iterdir())) == 1


def test_many_writers_of_one_name_leave_a_file_of_one_of_them(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from gpu_lattice.runtime.files import remove_leftovers, write_whole
for _ in range(100):
    write_whole(Path(sys.argv[1], "file"), sys.argv[2].encode() * 100_000)
    remove_leftovers(Path(sys.argv[1]))
"""
    writers = [python(code, tmp_path, letter) for letter in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    for writer in writers:
        writer.communicate()
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    content = (tmp_path / "file").read_bytes()
    assert len(content) == 100_000
    assert len(set(content)) == 1


def test_what_was_killed_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from gpu_lattice.runtime.files import whole_file
with whole_file(Path(sys.argv[1], "file")) as file:
    print("open", flush=True)
    sys.stdin.read()
"""
    writer = python(code, tmp_path)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    (tmp_path / "of another program.tmp").write_bytes(b"")
    os.mkfifo(tmp_path / f"{PREFIX}pipe{SUFFIX}")
    (tmp_path / f"{PREFIX}link{SUFFIX}").symlink_to("of another program.tmp")
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    writer.kill()
    writer.communicate()
    remove_leftovers(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"{PREFIX}link{SUFFIX}", "of another program.tmp"]


def test_a_locked_folder_names_its_process_and_a_dead_ones_lock_is_taken_over(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from gpu_lattice.runtime.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
    holder = python(code, tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(BlockingIOError, match=f"process {holder.pid} is writing into .*; wait"), locked(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} "), locked(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"of another program")
    (tmp_path / LOCK).symlink_to("other")
    with pytest.raises(OSError, match=LOCK), locked(tmp_path):
        pass
    assert (tmp_path / "other").read_bytes() == b"of another program"


@pytest.mark.parametrize("lacks", ["the module", "the file system"])
def test_without_locks_files_are_whole_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    if lacks == "the module":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        monkeypatch.setattr(files.fcntl, "flock", refuse)
    (tmp_path / f"{PREFIX}left{SUFFIX}").write_bytes(b"")
    with locked(tmp_path):
        remove_leftovers(tmp_path)
        write_whole(tmp_path / "file", b"whole")
    assert sorted(one.name for one in tmp_path.iterdir()) == [f"{PREFIX}left{SUFFIX}", "file"]
