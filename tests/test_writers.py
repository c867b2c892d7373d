"""A Parquet file of rows is there complete, or not at all."""

import os
import signal
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
        with pytest.raises(KeyboardInterrupt):
            ParquetRows(tmp_path / "a.parquet", pa.int64())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(opened) == 1
    assert not opened[0].is_open
    assert not list(tmp_path.iterdir())
