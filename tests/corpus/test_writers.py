"""A Parquet file of rows is there complete, or not at all."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu_lattice.corpus.writers import ParquetRows


def test_an_interrupt_while_a_file_is_opened_waits_until_it_can_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = pq.ParquetWriter

    def interrupted(*args: Any, **options: Any) -> pq.ParquetWriter:
        os.kill(os.getpid(), signal.SIGINT)
        opened.append(real(*args, **options))
        return opened[0]

    monkeypatch.setattr(pq, "ParquetWriter", interrupted)
    # A process started in the background of a shell would ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), ParquetRows(tmp_path / "a.parquet", pa.int64()):
            pytest.fail("the block is not entered")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(opened) == 1
    assert not opened[0].is_open
    assert not list(tmp_path.iterdir())


def test_the_end_of_the_block_waits_for_a_write_of_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = pa.array([0]), pa.array([0], pa.int32()), pa.array([[5, 6]], pa.list_(pa.int32()))
    events: list[str] = []
    writing = threading.Event()
    write_table, close = pq.ParquetWriter.write_table, pq.ParquetWriter.close

    def slow_write(*args: Any, **options: Any) -> None:
        writing.set()
        time.sleep(0.2)
        write_table(*args, **options)
        events.append("written")

    def noted_close(writer: pq.ParquetWriter) -> None:
        events.append("closed")
        close(writer)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", slow_write)
    monkeypatch.setattr(pq.ParquetWriter, "close", noted_close)
    rows = ParquetRows(tmp_path / "a.parquet", pa.int64())
    thread = threading.Thread(target=rows.write, args=row)

    def interrupted() -> None:
        with rows:
            thread.start()
            writing.wait(60)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    thread.join()
    assert events[:2] == ["written", "closed"]
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"a\.parquet has been closed"):
        rows.write(*row)


def test_writers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """Each writes a file of its own, and the last to end gives the name its content."""
    column = pa.array([0], pa.int32()), pa.array([[5, 6]], pa.list_(pa.int32()))
    with ParquetRows(tmp_path / "a.parquet", pa.int64()) as late:
        with ParquetRows(tmp_path / "a.parquet", pa.int64()) as early:
            late.write(pa.array([1]), *column)
            early.write(pa.array([2]), *column)
        late.write(pa.array([1]), *column)
        assert pq.read_table(tmp_path / "a.parquet")["id"].to_pylist() == [2]
    assert pq.read_table(tmp_path / "a.parquet")["id"].to_pylist() == [1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_write_outside_of_the_block_is_refused(tmp_path: Path) -> None:
    rows = ParquetRows(tmp_path / "a.parquet", pa.int64())
    with pytest.raises(ValueError, match="write within the block"):
        rows.write(pa.array([0]), pa.array([0], pa.int32()), pa.array([[5, 6]], pa.list_(pa.int32())))
    assert not list(tmp_path.iterdir())
