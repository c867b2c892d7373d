"""What only a GPU can show: streams, memory, and arrays handed on. The ids are test_cuda_parity.py's matter."""

import json
import pickle
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from conftest import DATA

from gpu_lattice import TextBatch, TokenBatch, Tokenizer
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.backends.cuda_device import CudaDevice, device_count
from gpu_lattice.models.hf_tokenizers import read
from gpu_lattice.runtime.on_host import on_host

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(device_count() == 0, reason="no CUDA device answers through CuPy"),
]


PIECES_OF_BYTES = {bytes([byte]): -3.0 for byte in range(256)} | {b"th": -2.0, b"e ": -2.5, b"the ": -4.0}


@pytest.fixture(scope="module")
def cpu() -> Tokenizer:
    return Tokenizer.default(device="cpu")


@pytest.fixture(scope="module")
def cuda(cpu: Tokenizer) -> Tokenizer:
    return on_device(cpu)


def on_device(cpu: Tokenizer, memory_limit: int | None = None) -> Tokenizer:
    tokenizer = Tokenizer(cpu._model, device="cpu")
    tokenizer._backend = CudaBackend(cpu._model, CudaDevice(), memory_limit)
    return tokenizer


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [
        line
        for name in ("en.txt", "ja.txt", "zh.txt", "odd.txt")
        for line in (DATA / name).read_bytes().decode().split("\n")
    ]


def same(expected: Any, got: Any) -> bool:
    return np.array_equal(expected.ids, got.ids.get()) and np.array_equal(expected.offsets, got.offsets.get())


def test_auto_is_the_first_device(cpu: Tokenizer, texts: Any) -> None:
    auto = Tokenizer.default()
    assert auto.device == "cuda:0"
    assert same(cpu.encode(texts), auto.encode(texts))
    again = pickle.loads(pickle.dumps(Tokenizer.default(device="cuda", memory_limit=10**9)))
    assert again.device == "cuda:0"
    assert same(cpu.encode(texts), again.encode(texts))


def test_results_are_on_the_device_and_ready_for_the_callers_stream(
    cpu: Tokenizer, cuda: Tokenizer, texts: Any
) -> None:
    cupy = pytest.importorskip("cupy")
    expected = cpu.sample(texts, seed=1, num_samples=3)
    with cupy.cuda.Stream(non_blocking=True):
        out = cuda.sample(texts, seed=1, num_samples=3)
        total = out.ids.astype(cupy.int64).sum()
        assert int(total) == int(expected.ids.astype(np.int64).sum())
    assert same(expected, out)


def test_two_callers_streams_at_once_do_not_disturb_each_other(cpu: Tokenizer, cuda: Tokenizer, texts: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    cupy = pytest.importorskip("cupy")

    def work(seed: int) -> Any:
        with cupy.cuda.Stream(non_blocking=True) as stream:
            out = cuda.sample(texts, seed=seed)
            stream.synchronize()
            return out

    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(work, range(12)))
    assert all(same(cpu.sample(texts, seed=seed), out) for seed, out in enumerate(got))


def test_memory_full_of_nonsense_does_not_matter(cpu: Tokenizer, texts: Any) -> None:
    cupy = pytest.importorskip("cupy")
    for byte in (0x00, 0xA5, 0xFF):
        poison = cupy.full(1 << 28, byte, cupy.uint8)
        del poison
        cuda = on_device(cpu)
        assert same(cpu.sample(texts, seed=byte), cuda.sample(texts, seed=byte))
        assert same(cpu.encode(texts), cuda.encode(texts))


def test_little_memory_means_more_batches(cpu: Tokenizer, texts: Any) -> None:
    cuda = on_device(cpu, memory_limit=2_000_000)
    assert same(cpu.sample(texts, seed=2), cuda.sample(texts, seed=2))


def test_a_second_call_takes_no_new_memory(cuda: Tokenizer, texts: Any) -> None:
    cupy = pytest.importorskip("cupy")
    out = cuda.sample(texts, seed=0)
    del out
    before = cupy.get_default_memory_pool().total_bytes()
    for seed in range(1, 5):
        cuda.sample(texts, seed=seed)
    assert cupy.get_default_memory_pool().total_bytes() == before


def test_torch_takes_the_ids_without_a_copy(cuda: Tokenizer, texts: Any) -> None:
    torch = pytest.importorskip("torch")
    out = cuda.encode(texts)
    tensor = torch.from_dlpack(out.ids)
    assert tensor.is_cuda
    assert tensor.data_ptr() == out.ids.data.ptr
    assert tensor.cpu().tolist() == out.ids.get().tolist()


@pytest.mark.parametrize("kind", ["bytes", "BPE"])
def test_text_on_the_device_gives_the_ids_of_the_cpu(kind: str, texts: Any) -> None:
    cupy = pytest.importorskip("cupy")
    cpu = Tokenizer.from_pieces(PIECES_OF_BYTES, device="cpu")
    if kind == "BPE":
        pytest.importorskip("tokenizers")
        from bpe_files import trained

        cpu = Tokenizer(read(json.dumps(trained("llama3")).encode(), "t.json"), device="cpu")
    cuda, host = on_device(cpu), TextBatch.from_texts(texts)
    options: dict[str, Any] = {"seed": 4, "alpha": 0.1 if kind == "bytes" else 0.0}
    with cupy.cuda.Stream(non_blocking=True):
        values, offsets = cupy.asarray(host.values), cupy.asarray(host.offsets)
        out = cuda.sample(TextBatch.from_dlpack(values, offsets), **options)
        values.fill(0)
        assert same(cpu.sample(texts, **options), out)


def test_text_of_torch_on_the_device_gives_the_ids_of_the_cpu(texts: Any) -> None:
    torch = pytest.importorskip("torch")
    cpu = Tokenizer.from_pieces(PIECES_OF_BYTES, device="cpu")
    cuda, host = on_device(cpu), TextBatch.from_texts(texts)
    tensors = torch.tensor(host.values).cuda(), torch.tensor(host.offsets)
    batch = TextBatch.from_dlpack(*tensors)
    assert batch.device == "cuda:0"
    assert same(cpu.encode(texts), cuda.encode(batch))
    assert batch.tolist() == host.tolist()


SOME = ["A new dawn.", "", None, "吾輩は猫である。" * 9, "the the the \U0001f600"]
# What is done with ids where they are.
CALLS: dict[str, Any] = {
    "offsets": lambda tok: tok.encode(SOME, return_offsets="characters"),
    "rate": lambda tok: tok.sample(SOME, rate=0.4, seed=1, num_samples=3, return_log_prob=True),
    "nbest_size": lambda tok: tok.sample(SOME, nbest_size=4, alpha=0.3, seed=1),
    "token_penalty": lambda tok: tok.sample(SOME, token_penalty=0.5, seed=1),
    "max_length": lambda tok: tok.encode(SOME, max_length=3, truncation="left"),
    "rows": lambda tok: tok.encode(SOME)[1:4],
    "every second row": lambda tok: tok.encode(SOME)[::2],
    "one row": lambda tok: tok.encode(SOME)[0],
    "padded": lambda tok: tok.encode(SOME).to_padded(0, return_mask=True),
    "padded on the left": lambda tok: tok.encode(SOME).to_padded(0, side="left", max_length=5),
    "Arrow": lambda tok: tok.encode(SOME).to_arrow().to_pylist(),
    "pieces": lambda tok: tok.encode(SOME).pieces(),
    "decode": lambda tok: tok.decode(tok.encode(SOME)),
    "verify": lambda tok: tok.verify(SOME, tok.encode(SOME)),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_done_with_ids_on_the_device_is_what_is_done_on_the_host(
    cpu: Tokenizer, cuda: Tokenizer, name: str
) -> None:
    assert as_lists(CALLS[name](cuda)) == as_lists(CALLS[name](cpu))


def as_lists(result: Any) -> Any:
    if isinstance(result, TokenBatch):
        fields = (result.ids, result.offsets, result.log_prob, result.valid, result.spans)
        return [None if field is None else on_host(field).tolist() for field in fields]
    if isinstance(result, tuple):
        return [as_lists(one) for one in result]
    return on_host(result).tolist() if hasattr(result, "dtype") else result


def test_many_ids_come_to_the_host_whole() -> None:
    cupy = pytest.importorskip("cupy")
    for high in (2**16 - 1, 2**16):
        ids = np.arange(20_000_001, dtype=np.int32) % (high + 1)
        assert np.array_equal(on_host(cupy.asarray(ids)), ids)


@pytest.mark.slow
def test_two_gigabytes_at_once_give_the_ids_of_the_cpu(cpu: Tokenizer, cuda: Tokenizer, texts: Any) -> None:
    block = "\n".join(texts)[:500_000]
    many = [block] * (2_000_000_000 // len(block.encode()))
    out = cuda.sample(many, seed=3)
    for row in (0, len(many) // 2, len(many) - 1):
        expected = cpu.sample([block], seed=3, doc_ids=[row])
        assert np.array_equal(out.ids[int(out.offsets[row]) : int(out.offsets[row + 1])].get(), expected.ids)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a" * 10_000_000, "ACGT" * 2_500_000], ids=["a", "dna"])
def test_ten_megabytes_without_a_cut_take_seconds(text: str) -> None:
    cpu = Tokenizer.from_pieces([*"ACGTa", *("a" * n for n in range(2, 17)), "AC", "GT", "CG", "TA"], device="cpu")
    assert_soon_the_same(cpu, text)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ja_bytes.model", "ja_whole.tokenizer.json"])
def test_ten_megabytes_of_unknown_text_take_seconds(name: str) -> None:
    assert_soon_the_same(Tokenizer.from_file(DATA / name, device="cpu"), "\U0010ffff" * 2_500_000)


def assert_soon_the_same(cpu: Tokenizer, text: str) -> None:
    """One thread that took a second per megabyte would need 10."""
    cuda = on_device(cpu)
    for call in (lambda it, text: it.sample([text], seed=1), lambda it, text: it.encode([text])):
        call(cuda, text[:1000])
        start = perf_counter()
        out = call(cuda, text)
        out.ids.get()
        assert perf_counter() - start < 10
        assert same(call(cpu, text), out)
