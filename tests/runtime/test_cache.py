"""What is kept on disk: the same as what was made, or nothing."""

import base64
import dataclasses
import io
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import DATA, ROOT
from handmade import hugging_face_file, random_pieces, sentencepiece_model
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gpu_lattice import Tokenizer
from gpu_lattice.runtime import cache
from gpu_lattice.runtime.files import PREFIX, SUFFIX, whole_file
from gpu_lattice.text_batch import decoded, to_ragged, to_strings


class Squares(NamedTuple):
    values: NDArray[np.int64]
    grid: NDArray[np.uint8]
    total: np.uint64


def squares(of: NDArray[np.int64]) -> Squares:
    return Squares(of**2, np.arange(6, dtype=np.uint8).reshape(2, 3), np.uint64((of**2).sum()))


class Maker:
    """Squares by way of the folder, and how often they were made."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, of: NDArray[np.int64]) -> Squares:
        return cache.cached(Squares, [of], lambda: self._make(of))

    def _make(self, of: NDArray[np.int64]) -> Squares:
        self.times += 1
        return squares(of)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a test's own, for results of any size."""
    monkeypatch.setattr(cache, "LEAST_BYTES", 0)
    monkeypatch.setenv("GPU_LATTICE_CACHE", str(tmp_path / "of" / "its own"))
    return tmp_path / "of" / "its own"


@pytest.fixture
def make() -> Maker:
    return Maker()


def assert_same(one: Any, other: Any) -> None:
    """Equal in every array and every field, types included."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        assert one.flags.c_contiguous == other.flags.c_contiguous
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        if not all(isinstance(item, str | bytes) for item in one):
            for pair in zip(one, other, strict=True):
                assert_same(*pair)
        else:
            assert one == other
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif type(one).__module__.startswith("gpu_lattice.normalizers"):
        assert repr(one) == repr(other)
    else:
        assert one == other


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_what_was_made_once_is_read_after_that(folder: Path, make: Maker) -> None:
    of = np.arange(10)
    for _ in range(3):
        assert_same(make(of), squares(of))
    assert make.times == 1
    assert files(folder) == [".npz"]


def test_other_inputs_and_another_version_have_files_of_their_own(folder: Path, monkeypatch: Any) -> None:
    def key(*inputs: Any) -> Squares:
        return cache.cached(Squares, inputs, lambda: squares(np.arange(len(seen))))

    different: list[list[Any]] = [
        [b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"ab", b"c", b""], [True], [False],
        [np.arange(3)], [np.arange(3, dtype=np.uint64)], [np.arange(3, dtype=np.int32)], [np.arange(3)[::-1]],
    ]  # fmt: skip
    seen: list[Squares] = []
    for inputs in different:
        seen.append(key(*inputs))
    monkeypatch.setattr(cache, "_code_digest", lambda: b"the next version")
    seen.append(key(*different[0]))
    assert [len(result.values) for result in seen] == list(range(len(different) + 1))
    assert len(files(folder)) == len(seen)


def test_a_change_of_the_package_is_another_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digest = cache._code_digest.__wrapped__
    monkeypatch.setattr(cache, "KERNELS", tmp_path / "kernels")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "runtime").mkdir()
    seen = {cache._code_digest(), digest()}
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "runtime" / "cache.py"))
    for path in ("kernels/code.py", "runtime/code.py"):
        for source in ("one = 1", "one = 2"):
            (tmp_path / path).write_text(source)
            seen.add(digest())
    assert len(seen) == 6


def test_no_wrong_bit_is_believed(folder: Path, make: Maker) -> None:
    of = np.arange(10)
    made = make(of)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for i in range(0, len(whole), 3):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        times = make.times
        assert_same(make(of), made)
        assert make.times == times + 1
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:10],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: b"\x93NUMPY" + whole,
        lambda whole: b"no zip at all",
        lambda whole: b"\x80\x04N.",
    ],
)
def test_a_damaged_file_is_made_anew(folder: Path, make: Maker, damage: Callable[[bytes], bytes]) -> None:
    of = np.arange(10)
    make(of)
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert_same(make(of), squares(of))
    assert make.times == 2
    assert_same(make(of), squares(of))
    assert make.times == 2


def test_a_file_of_other_arrays_is_made_anew(folder: Path, make: Maker) -> None:
    of = np.arange(10)
    make(of)
    (path,) = folder.iterdir()
    for arrays in ({"values": of, "pickled": np.array([{}], object)}, {"values": of}):
        file = io.BytesIO()
        np.savez(file, **arrays)
        path.write_bytes(cache._content_digest(file.getvalue()).digest() + file.getvalue())
        assert_same(make(of), squares(of))
    assert make.times == 3


def test_what_cannot_be_made_is_not_kept(folder: Path, make: Maker) -> None:
    def fail() -> Squares:
        raise ValueError("no squares")

    for _ in range(2):
        with pytest.raises(ValueError, match="no squares"):
            cache.cached(Squares, [np.arange(10)], fail)
    make(np.arange(10))
    assert make.times == 1


def test_processes_that_write_at_once_leave_one_whole_file(folder: Path, make: Maker) -> None:
    script = """
import sys
sys.path[:0] = ["tests", "tests/runtime"]
import numpy as np
from test_cache import cache, squares, Squares
cache.LEAST_BYTES = 0
of = np.arange(10)
for _ in range(40):
    assert cache.cached(Squares, [of], lambda: squares(of)).values.tolist() == squares(of).values.tolist()
    for path in cache.folder().glob("*.npz"):
        path.unlink(missing_ok=True)
assert cache.cached(Squares, [of], lambda: squares(of)).values.tolist() == squares(of).values.tolist()
"""
    writers = [subprocess.Popen([sys.executable, "-W", "error", "-c", script], cwd=ROOT) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert set(files(folder)) <= {".npz"}
    assert_same(make(np.arange(10)), squares(np.arange(10)))


def test_a_folder_that_cannot_be_is_done_without(monkeypatch: Any, tmp_path: Path, make: Maker) -> None:
    monkeypatch.setattr(cache, "LEAST_BYTES", 0)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GPU_LATTICE_CACHE", str(tmp_path / "file" / "folder"))
    for _ in range(2):
        assert_same(make(np.arange(10)), squares(np.arange(10)))
    assert make.times == 2


def test_a_folder_that_cannot_be_written_to_is_read(folder: Path, make: Maker, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    make(np.arange(10))
    for name in ("utime", "replace", "unlink"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(cache, "write_whole", refuse)
    assert_same(make(np.arange(10)), squares(np.arange(10)))
    assert make.times == 1
    assert_same(make(np.arange(11)), squares(np.arange(11)))
    assert make.times == 2


@pytest.mark.parametrize("room", [0, 100, 600])
def test_a_full_disk_leaves_nothing_half_written(folder: Path, make: Maker, room: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        result = make(np.arange(10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same(result, squares(np.arange(10)))
    assert files(folder) == []


def test_small_inputs_never_touch_the_disk(folder: Path, make: Maker, monkeypatch: Any) -> None:
    monkeypatch.setattr(cache, "LEAST_BYTES", 81)
    make(np.arange(10))
    assert not folder.exists()
    make(np.arange(11))
    assert files(folder) == [".npz"]


@pytest.mark.parametrize("switch", ["off", ""])
def test_it_can_be_turned_off(folder: Path, make: Maker, monkeypatch: Any, switch: str) -> None:
    monkeypatch.setenv("GPU_LATTICE_CACHE", switch)
    monkeypatch.chdir(folder.parents[1])
    for _ in range(2):
        make(np.arange(10))
    assert make.times == 2
    assert list(folder.parents[1].iterdir()) == []


def test_the_folder_is_where_caches_are(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.delenv("GPU_LATTICE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder() == tmp_path / ".cache" / "gpu_lattice"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache.folder() == tmp_path / "elsewhere" / "gpu_lattice"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache.folder() is None


def test_above_the_limit_the_least_recently_used_goes(folder: Path, make: Maker, monkeypatch: Any) -> None:
    inputs = [np.arange(n) for n in range(10, 14)]
    for age, of in zip([40, 30, 20], inputs, strict=False):
        make(of)
        newest = max(folder.iterdir(), key=os.path.getmtime)
        os.utime(newest, (time.time() - age, time.time() - age))
    (folder / "of another program.txt").write_text("stays")
    size = next(folder.glob("*.npz")).stat().st_size
    monkeypatch.setattr(cache, "MOST_BYTES", 3 * size + 100)
    make(inputs[0])
    make(inputs[3])
    assert make.times == 4
    assert files(folder) == [".npz"] * 3 + [".txt"]
    for of in (inputs[0], inputs[2], inputs[3]):
        make(of)
    assert make.times == 4, "the one that was not used for longest is gone"


def test_what_a_killed_process_left_is_removed(folder: Path, make: Maker) -> None:
    folder.mkdir(parents=True)
    (folder / f"{PREFIX}left{SUFFIX}").write_bytes(b"half")
    (folder / "of another program.tmp").write_bytes(b"whole")
    with whole_file(folder / "being written.txt"):
        make(np.arange(10))
        assert files(folder) == [".npz", ".tmp", ".tmp"]
    assert files(folder) == [".npz", ".tmp", ".txt"]


PIECES = random_pieces(random.Random(3), "abé漢<", 60)


def byte_piece_file() -> bytes:
    tokens = [bytes([byte]) for byte in range(256)] + [piece.encode() for piece in PIECES if len(piece.encode()) > 1]
    tokens += [b"\0\1", "漢".encode()[:2]]
    entries = {base64.b64encode(token).decode(): [3 + i, "", 2**53 + i] for i, token in enumerate(tokens)}
    return json.dumps(entries).encode()


MODELS = {
    "SentencePiece": lambda: sentencepiece_model([("<unk>", 0.0, "UNKNOWN"), *((p, -2.0, "NORMAL") for p in PIECES)]),
    "Hugging Face": lambda: hugging_face_file(
        [("<unk>", 0.0), *((piece, -2.0) for piece in PIECES), ("a", -3.0)], 0, False
    ),
    "Hugging Face, trained": (DATA / "en_split.tokenizer.json").read_bytes,
    "BytePiece": byte_piece_file,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_from_the_cache_is_the_model_in_everything(
    name: str, folder: Path, monkeypatch: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    path.write_bytes(MODELS[name]())
    texts = ["abab é漢< a", "", "ba" * 300]

    def everything() -> Any:
        tokenizer = Tokenizer.from_file(path, device="cpu")
        ids = tokenizer.encode(texts).tolist(), tokenizer.sample(texts, alpha=0.3, seed=5, num_samples=2).tolist()
        tables: Any = tokenizer._backend.tables
        return tokenizer._model, tables.cuts, tables.best, tables.sample_model(0.3), ids

    with monkeypatch.context() as without:
        without.setenv("GPU_LATTICE_CACHE", "off")
        fresh = everything()
    assert not folder.exists()
    assert_same(everything(), fresh)
    assert len(files(folder)) == (3 if name == "SentencePiece" else 4)
    monkeypatch.setattr(cache, "_write", lambda *_: pytest.fail("something was made again"))
    assert_same(everything(), fresh)


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_file_is_the_same_error_every_time(name: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(MODELS[name]())
    Tokenizer.from_file(path, device="cpu")
    kept = len(files(folder))
    path.write_bytes(path.read_bytes()[:-3])
    errors = []
    for _ in range(2):
        with pytest.raises(ValueError, match=path.name) as caught:
            Tokenizer.from_file(path, device="cpu")
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert len(files(folder)) == kept


strings = st.lists(st.text("\0\1ab", max_size=4).map(str.encode) | st.binary(max_size=4), max_size=8)


@given(strings)
def test_many_strings_at_once_are_what_each_is_alone(strings: list[bytes]) -> None:
    assert to_strings(*to_ragged(strings)) == strings
    assert decoded(strings, "backslashreplace") == [string.decode(errors="backslashreplace") for string in strings]
    try:
        expected = [string.decode() for string in strings]
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            decoded(strings)
    else:
        assert decoded(strings) == expected
