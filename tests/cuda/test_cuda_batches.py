"""How the CUDA backend takes the texts of a call and gives its rows: by ranges and streams, on the host build."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest import DATA
from cuda_on_cpu.host_device import HostDevice, OnDevice, compiler
from situations import MODELS

from gpu_lattice import TextBatch, Tokenizer
from gpu_lattice.backends import cuda as cuda_backend
from gpu_lattice.backends.cuda import CudaBackend, Output
from gpu_lattice.normalizers import NormalizedBatch, PendingBatch

pytestmark = pytest.mark.skipif(compiler() is None, reason="no g++: the CUDA sources cannot be built for this machine")
LINES = [line for name in ("odd.txt", "en.txt", "ja.txt") for line in (DATA / name).read_bytes().decode().split("\n")]
TEXTS = [None, "", *LINES, "a" * 700, "", None]


def on(device: HostDevice, cpu: Tokenizer, memory_limit: int | None = None) -> Tokenizer:
    return cpu.on(CudaBackend(cpu.model, device, memory_limit))


def assert_same_rows(cpu: Tokenizer, cuda: Tokenizer, texts: Any = TEXTS) -> None:
    for name, options in (("encode", {}), ("sample", {"num_samples": 2, "seed": 0, "return_log_prob": True})):
        got, expected = getattr(cuda, name)(texts, **options), getattr(cpu, name)(texts, **options)
        assert got.ids.dtype == np.int32
        assert got.offsets.tolist() == expected.offsets.tolist()
        assert got.ids.tolist() == expected.ids.tolist()
        assert expected.log_prob is None or got.log_prob.tolist() == expected.log_prob.tolist()


@pytest.mark.parametrize("name", ["ja_bytes.model", "ja_whole.tokenizer.json", "bytepiece.json"])
def test_texts_normalized_range_by_range_give_the_rows_of_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Tokenizer.from_file(DATA / name, device="cpu", threads=2)
    cuda = on(HostDevice(), cpu)
    for range_bytes, batch_bytes in ((1, 1 << 20), (1000, 300), (1 << 20, 1 << 20)):
        monkeypatch.setattr(cuda_backend, "RANGE_BYTES", range_bytes)
        monkeypatch.setattr(cuda_backend, "DEVICE_BATCH_BYTES", batch_bytes)
        assert_same_rows(cpu, cuda)


@pytest.mark.parametrize("name", MODELS)
def test_ranges_are_what_is_normalized_at_once(name: str) -> None:
    tokenizer = Tokenizer.from_file(DATA / name, device="cpu")
    texts = TextBatch.from_texts(TEXTS)
    for n_bytes in (1, 700, 1 << 20):
        pending = PendingBatch(texts, tokenizer._normalize, 0, 2)
        whole, parts = pending.whole(), list(pending.ranges(n_bytes, lambda n: np.full(n, 0xA5, np.uint8)))
        assert len(parts) == (1 if n_bytes == 1 << 20 else len(parts))
        assert sum(map(len, parts)) == len(texts)
        assert [doc for part in parts for doc in docs_of(part)] == docs_of(whole)


def docs_of(batch: NormalizedBatch) -> list[Any]:
    """Every document's chunks, each with its id."""
    offsets, ids = batch.chunks
    chunks = [(batch.values[a:b].tobytes(), i) for a, b, i in zip(offsets, offsets[1:], ids.tolist(), strict=False)]
    at = np.searchsorted(offsets, batch.offsets).tolist()
    return [chunks[a:b] for a, b in pairwise(at)]


def test_text_is_normalized_while_the_device_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "RANGE_BYTES", 1000)
    cpu = Tokenizer.from_file(DATA / "ja_whole.tokenizer.json", device="cpu", threads=1)
    cuda, events = on(HostDevice(), cpu), []

    def noted(owner: Any, name: str, event: str) -> None:
        work = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: (events.append(event), work(*args))[1])

    noted(PendingBatch, "_range", "normalize")
    noted(CudaBackend, "_begin", "begin")
    noted(CudaBackend, "_finish", "finish")
    cuda.encode(["a" * 1000] * 4)
    step = ["normalize", "begin", "finish"]
    assert events == ["normalize", "begin", *step, *step, *step, "finish"]


def test_errors_name_documents_and_bytes_across_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "RANGE_BYTES", 4)
    cpu = Tokenizer.from_pieces({"a": -1.0, "ab": -2.0, "c": -1.0}, device="cpu")
    cuda = on(HostDevice(), cpu)
    for call in ("encode", "sample"):
        with pytest.raises(ValueError, match="cannot be spelled") as expected:
            getattr(cpu, call)(["aaaa", "abca", "ab?c", "a"])
        with pytest.raises(ValueError, match="document 2 cannot be spelled") as got:
            getattr(cuda, call)(["aaaa", "abca", "ab?c", "a"])
        assert str(got.value) == str(expected.value)
    with pytest.raises(MemoryError, match="document 2 has 4000 normalized bytes"):
        on(HostDevice(), cpu, 100_000).encode(["aaaa", "abca", "a" * 4000])


def test_what_the_device_refuses_is_divided_and_nothing_is_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "RANGE_BYTES", 3000)
    cpu = Tokenizer.from_file(DATA / "ja_whole.tokenizer.json", device="cpu", threads=1)
    device = HostDevice(memory=600_000)
    assert_same_rows(cpu, on(device, cpu, 1 << 40))
    assert device.refused > 0


def test_ids_are_put_where_they_stay() -> None:
    output = Output(np, 3)
    first = output.room(40, 0.4)
    first[:] = 7
    output.add(40, np.array([30, 40]), None)
    second = output.room(61, 1.0)
    assert first.base is second.base
    second[:] = 8
    output.add(61, np.array([61]), None)
    rows = output.rows()
    assert rows.offsets.tolist() == [0, 30, 40, 101]
    assert rows.ids.tolist() == [7] * 40 + [8] * 61


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5])
def test_ids_are_kept_where_the_text_was_not_as_expected(share: float) -> None:
    output = Output(np, 2)
    output.room(1, share)[:] = 7
    output.add(1, np.array([1]), None)
    output.room(99, 1.0)[:] = 8
    output.add(99, np.array([99]), None)
    rows = output.rows()
    assert rows.ids.tolist() == [7] + [8] * 99
    assert rows.ids.base is None or rows.ids.base.size <= 125


def test_text_on_the_device_stays_there_where_the_model_takes_it_as_it_is() -> None:
    texts = [b"abba", b"", b"ab" * 900, b"b"]
    host = TextBatch.from_texts(texts)
    batch = TextBatch.from_dlpack(host.values.view(OnDevice), host.offsets)
    assert batch.device == "cuda:host"
    cpu = Tokenizer.from_pieces({b"ab": -1.0, b"a": -2.0, b"b": -2.5}, device="cpu")
    cuda = on(HostDevice(), cpu)
    OnDevice.fetched = 0
    assert cuda.encode(batch).ids.tolist() == cpu.encode(texts).ids.tolist()
    assert cuda.sample(batch, seed=1).ids.tolist() == cpu.sample(texts, seed=1).ids.tolist()
    assert OnDevice.fetched == 0
    assert_same_rows(cpu, cuda, batch)
    assert cuda.sample(batch, seed=1, rate=0.5).tolist() == cpu.sample(texts, seed=1, rate=0.5).tolist()
    assert cuda.sample(batch, seed=1, nbest_size=3).tolist() == cpu.sample(texts, seed=1, nbest_size=3).tolist()
    assert (
        cuda.encode(batch, return_offsets="bytes").spans.tolist()
        == cpu.encode(texts, return_offsets="bytes").spans.tolist()
    )
    assert cpu.encode(batch).tolist() == cpu.encode(texts).tolist()
    assert cuda.lattice(batch).num_arcs.tolist() == cpu.lattice(texts).num_arcs.tolist()
    assert batch.tolist() == texts
    normalizing = Tokenizer.from_file(DATA / "ja_whole.tokenizer.json", device="cpu")
    assert on(HostDevice(), normalizing).encode(batch).tolist() == normalizing.encode(texts).tolist()
    bad = TextBatch.from_dlpack(np.frombuffer(b"ab?", np.uint8).view(OnDevice), np.array([0, 3]))
    with pytest.raises(ValueError, match=r"no segmentation reaches byte 3 of it, after b'ab\?'"):
        cuda.encode(bad)
