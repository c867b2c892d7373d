"""The CUDA sources give the ids and log-probabilities of the CPU backend: built by g++ and run here, and on a GPU.

CUDA_ON_CPU_SANITIZE=address,undefined in the environment builds them with these sanitizers (which must be preloaded).
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_reference import with_byte_pieces
from conftest import DATA, ROOT
from cuda_on_cpu.host_device import HostDevice, compiler, gcc_version
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from situations import MODELS, Situation, situations
from strategies import EXTREME

from gpu_lattice import Tokenizer
from gpu_lattice.backends import NoPathError
from gpu_lattice.backends import cuda as cuda_backend
from gpu_lattice.backends.cpu import CpuBackend
from gpu_lattice.backends.cuda import CudaBackend, most_arcs
from gpu_lattice.backends.cuda_device import CudaDevice, device_count
from gpu_lattice.kernels.cuda.loader import kernel_files
from gpu_lattice.kernels.tables.trie import build_trie
from gpu_lattice.models.pieces import from_pieces
from gpu_lattice.text_batch import to_ragged

ALPHAS = [0.0, 0.2, 1.0, 20.0]
EXAMPLES = int(os.environ.get("CUDA_EXAMPLES", 100))


@pytest.fixture(params=["host", "host, last thread first", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Any:
    if request.param == "gpu":
        if device_count() == 0:
            pytest.skip("no CUDA device answers through CuPy")
        return CudaDevice()
    return host_device(reversed="last" in request.param)


def host_device(**options: Any) -> HostDevice:
    if compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    return HostDevice(**options)


@pytest.fixture(params=[(256, 512), (8, 5)], ids=["as shipped", "tiny stretches"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny stretches and segments bring every boundary, and the kernels for long segments, into short texts."""
    monkeypatch.setattr(cuda_backend, "STRETCH", request.param[0])
    monkeypatch.setattr(cuda_backend, "LONGEST", request.param[1])


def assert_same(expected: Any, got: Any) -> None:
    for name in ("offsets", "ids", "log_prob"):
        one, other = getattr(expected, name), getattr(got, name)
        if one is not None:
            assert other.dtype == one.dtype
            np.testing.assert_array_equal(other.get() if hasattr(other, "get") else other, one)


def outcome(work: Any) -> Any:
    try:
        return work()
    except NoPathError as error:
        return error.position


def assert_same_outcome(expected: Any, got: Any) -> None:
    if isinstance(expected, int) or isinstance(got, int):
        assert got == expected
    else:
        assert_same(expected, got)


@pytest.mark.usefixtures("sizes")
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(situations(), st.sampled_from(ALPHAS), st.integers(0, 2**64 - 1), st.sampled_from([1, 2, 16]))
def test_random_vocabularies_give_the_ids_of_the_cpu(
    device: Any, situation: Situation, alpha: float, seed: int, num_samples: int
) -> None:
    cpu, cuda = CpuBackend(situation.model, 1), CudaBackend(situation.model, device)
    batch, is_null = situation.batch, situation.is_null
    assert_same_outcome(outcome(lambda: cpu.encode(batch, is_null)), outcome(lambda: cuda.encode(batch, is_null)))
    options = (batch, is_null, alpha, num_samples, seed, situation.doc_ids, True)
    assert_same_outcome(outcome(lambda: cpu.sample(*options)), outcome(lambda: cuda.sample(*options)))


def lines(name: str) -> list[str]:
    return (DATA / name).read_bytes().decode().split("\n")


def texts() -> list[str | None]:
    """Short lines, empty and null ones, and documents longer than many stretches."""
    names = ("odd.txt", "en.txt", "ja.txt", "zh.txt")
    whole = ["".join(lines("odd.txt")), " ".join(lines("en.txt"))[:5000], "".join(lines("ja.txt"))[:1500]]
    odd = ["", None, "", "a" * 700, "-" * 600 + "?" * 600, "\U0010ffff" * 300, "é漢😀" * 90]
    return [*(line for name in names for line in lines(name)), *whole, *odd, None]


def tokenizers(device: Any, name: str) -> tuple[Tokenizer, Tokenizer]:
    cpu = Tokenizer.default(device="cpu") if name == "default" else Tokenizer.from_file(DATA / name, device="cpu")
    return cpu, on(device, cpu)


def on(device: Any, tokenizer: Tokenizer, memory_limit: int | None = None) -> Tokenizer:
    other = Tokenizer(tokenizer._model, device="cpu", threads=1)
    other._backend = CudaBackend(tokenizer._model, device, memory_limit)
    return other


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("name", ["default", *MODELS])
def test_every_model_and_text_gives_the_ids_of_the_cpu(device: Any, name: str) -> None:
    cpu, cuda = tokenizers(device, name)
    assert_same(cpu.encode(texts()), cuda.encode(texts()))
    doc_ids = np.arange(len(texts()), dtype=np.uint64) * np.uint64(2**33 + 1)
    for alpha in ALPHAS:
        for num_samples in (1, 16):
            options: dict[str, Any] = {
                "alpha": alpha, "num_samples": num_samples, "seed": 5, "doc_ids": doc_ids, "return_log_prob": True
            }  # fmt: skip
            assert_same(cpu.sample(texts(), **options), cuda.sample(texts(), **options))


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize(("pieces", "text", "alpha"), EXTREME)
def test_scores_far_beyond_float64_give_the_ids_of_the_cpu(device: Any, pieces: Any, text: Any, alpha: float) -> None:
    cpu = Tokenizer.from_pieces(pieces, unk_piece="<unk>" if "<unk>" in pieces else None, device="cpu")
    cuda = on(device, cpu)
    options: dict[str, Any] = {"alpha": alpha, "num_samples": 5, "seed": 3, "return_log_prob": True}
    assert_same(cpu.sample([text, text[:7]], **options), cuda.sample([text, text[:7]], **options))


def test_positions_of_a_thousand_arcs_give_the_ids_of_the_cpu(device: Any) -> None:
    """More arcs into a position than lanes, and longer ones than the recent scores that a warp keeps."""
    cpu = Tokenizer.from_pieces({"a" * length: -0.001 * (length % 7) for length in range(1, 1001)}, device="cpu")
    cuda = on(device, cpu)
    assert_same(cpu.encode(["a" * 1500]), cuda.encode(["a" * 1500]))
    for alpha in (0.0, 1.0):
        options: dict[str, Any] = {"alpha": alpha, "num_samples": 2, "seed": 0, "return_log_prob": True}
        assert_same(cpu.sample(["a" * 1500], **options), cuda.sample(["a" * 1500], **options))


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("scale", [1.0, 3e4, 2e5])
@pytest.mark.parametrize("name", ["en_suffix.model", "ja_bytes.model"])
def test_float32_sums_with_resets_are_those_of_the_cpu(device: Any, name: str, scale: float) -> None:
    model = Tokenizer.from_file(DATA / name, device="cpu")._model
    vocabulary = dataclasses.replace(
        model.vocabulary,
        best_scores=(model.vocabulary.best_scores * np.float32(scale)).astype(np.float32),
        best_unk_score=float(np.float32(model.vocabulary.best_unk_score * scale)),
    )
    cpu = Tokenizer(dataclasses.replace(model, vocabulary=vocabulary), device="cpu")
    assert_same(cpu.encode(texts()), on(device, cpu).encode(texts()))


def in_floats(pieces: dict[Any, float], unk_piece: Any = None) -> Tokenizer:
    """A tokenizer whose best scores are summed in float32, as SentencePiece does."""
    model = from_pieces(pieces, unk_piece)
    vocabulary = dataclasses.replace(
        model.vocabulary,
        best_scores=np.array(list(pieces.values()), np.float32),
        best_unk_score=float(np.float32(model.vocabulary.best_unk_score)),
    )
    return Tokenizer(dataclasses.replace(model, vocabulary=vocabulary), device="cpu")


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_longest_piece_across_a_reset_is_compared_after_it(device: Any, sign: int) -> None:
    """At "bb" the sum passes 1e5 and is reset, 4 bytes before the end of "bxxxx", which no longer piece reaches."""
    text = "bb" + "x" * 4
    cpu = in_floats({"b": sign * 6e4, "x": -1.0, "bxxxx": sign * 6e4 - 2.0, "bxxx": sign * 6e4 - 9.0})
    assert cpu.encode([text]).tolist() == [[0, 2]]
    for before in ("", "x" * 9, "bb" * 3, "x" * 700):
        for after in ("", "x", "x" * 9, "bbx" * 300):
            both = [before + text + after]
            assert_same(cpu.encode(both), on(device, cpu).encode(both))


@pytest.mark.usefixtures("sizes")
def test_scores_below_the_normal_floats_count_as_on_the_cpu(device: Any) -> None:
    """CuPy's compiler takes them for zeros, by which "aa" and "bb" would be the best."""
    cpu = in_floats({"a": 2e-40, "aa": 3e-40, "b": 1e-45, "bb": 0.0, "?": -1.0}, "?")
    texts = ["aa", "aab", "bb", "a" * 700, "ab?" * 300]
    assert cpu.encode(texts).tolist()[:3] == [[0, 0], [0, 0, 2], [2, 2]]
    assert_same(cpu.encode(texts), on(device, cpu).encode(texts))


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("numbers", ["floats", "doubles"])
@pytest.mark.parametrize(("scale", "is_coarse"), [(1.0, False), (60.0, False), (1.0, True)])
def test_near_ties_far_into_a_document_are_decided_by_the_sums_of_the_cpu(
    device: Any, numbers: str, scale: float, is_coarse: bool
) -> None:
    """Words of several paths whose scores differ by less than sums are rounded by, at sums of every binade, before and
    after resets (scale 60); where scores are coarse, many sums lie midway between two numbers. Short documents among
    them, of which one thread does several.
    """
    scores = {" ": -1.25, "a": -3.1, "b": -4.7, "ab": -7.8, "ba": -7.80002, "aa": -6.200001, "bab": -12.5, "c": 0.7}
    unit = (2.0**-10 if numbers == "floats" else 2.0**-39) if is_coarse else 2.0**-60
    pieces: dict[Any, float] = {piece: round(score * scale / unit) * unit for piece, score in scores.items()}
    cpu = in_floats(pieces) if numbers == "floats" else Tokenizer.from_pieces(pieces, device="cpu")
    random = np.random.default_rng(7)
    words = ["".join(word) for word in random.choice(list("abab abc"), (9000, 5))]
    long_segment = "ab" * 400
    documents = ["ab ba", " ".join(words), "", *words[:50], " ".join([*words[:300], long_segment, *words[300:900]])]
    assert_same(cpu.encode(documents), on(device, cpu).encode(documents))


def test_a_long_document_is_no_longer_chain_of_steps_than_a_short_segment() -> None:
    """One megabyte among lines takes any thread fewer steps than 4096 positions that no static cut divides."""
    if gcc_version() < 12:
        pytest.skip("g++ is older than 12, which is the first to count steps as is needed here")
    cpu, _ = tokenizers(host_device(), "default")
    text = " ".join(lines("en.txt"))
    steps = []
    for documents in ([*lines("en.txt"), (text * (10**6 // len(text) + 1))[: 10**6]], ["e" * 4096]):
        device = host_device(counts_steps=True)
        assert_same(cpu.encode(documents), on(device, cpu).encode(documents))
        steps.append(device.most_steps)
    assert max(steps[0].values()) < steps[1]["carry_long"]


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize(
    ("rule", "bytes_with_ids"), [("apart", 0), *((rule, n) for rule in ("merge", "lookup") for n in (0, 200, 256))]
)
def test_runs_of_unknown_text_become_what_they_are_on_the_cpu(device: Any, bytes_with_ids: int, rule: Any) -> None:
    """Runs of the longest piece's length and of one symbol more, across groups and stretches, and from end to end."""
    pieces: dict[Any, float | None] = {"?": None, "a": 0.0, "漢漢漢": -1.0, "ば漢": 0.0}
    model = from_pieces(pieces, "?")
    vocabulary = dataclasses.replace(model.vocabulary, unknown_runs=rule)
    if bytes_with_ids:
        vocabulary = with_byte_pieces(vocabulary, range(bytes_with_ids))
    cpu = Tokenizer(dataclasses.replace(model, vocabulary=vocabulary), device="cpu")
    cuda = on(device, cpu)
    runs = ["漢" * 3, "漢" * 4, "漢漢", "漢\x02", "ば漢漢漢", "?", "??漢漢漢?"]
    runs += ["\x01" * 31, "\x01" * 32, "\x01é" * 30, "é" * 400]
    texts = [*runs, "a".join(runs), "".join(runs), "", *("a" * k + "漢漢漢a" for k in range(28, 33))]
    assert_same(cpu.encode(texts), cuda.encode(texts))
    for alpha in (0.0, 1.0):
        options: dict[str, Any] = {"alpha": alpha, "num_samples": 5, "seed": 0, "return_log_prob": True}
        assert_same(cpu.sample(texts, **options), cuda.sample(texts, **options))


@pytest.mark.parametrize("name", ["ja_bytes.model", "en_suffix.model", "ja_whole.tokenizer.json", "some bytes"])
def test_no_thread_walks_along_a_run_of_unknown_text(name: str) -> None:
    """A thread's work is bounded, however long the run; steps are counted by the compiler."""
    if gcc_version() < 12:
        pytest.skip("g++ is older than 12, which is the first to count steps as is needed here")
    if name == "some bytes":
        model = from_pieces({"?": None, "a": -1.0, "􏿰": -1.0}, "?")
        vocabulary = with_byte_pieces(dataclasses.replace(model.vocabulary, unknown_runs="lookup"), range(255))
        cpu = Tokenizer(dataclasses.replace(model, vocabulary=vocabulary), device="cpu")
    else:
        cpu = Tokenizer.from_file(DATA / name, device="cpu")
    steps = []
    for length in (2048, 4096):
        device = host_device(counts_steps=True)
        text = ["a" + "􏿿" * length + "a"]
        assert_same(cpu.encode(text), on(device, cpu).encode(text))
        assert_same(cpu.sample(text, num_samples=2, seed=0), on(device, cpu).sample(text, num_samples=2, seed=0))
        steps.append(
            {kernel: count for kernel, count in device.most_steps.items() if kernel_files()[kernel] == "bulk/emit"}
        )
    assert steps[0] == steps[1]
    assert {"count_ids", "measure_rows", "place_ids"} <= set(steps[0])
    assert max(steps[0].values()) < 5000


def test_text_without_a_path_is_the_error_of_the_cpu(device: Any) -> None:
    cpu = Tokenizer.from_pieces({"a": -1.0, "ab": -2.0, "c": -1.0}, device="cpu")
    cuda = on(device, cpu)
    for bad in (["a", "abc", "ab?c", "a"], ["a" * 700 + "b" * 2], ["a" * 700 + "?"]):
        for call in ("encode", "sample"):
            with pytest.raises(ValueError, match="cannot be spelled") as expected:
                getattr(cpu, call)(bad)
            with pytest.raises(ValueError, match="cannot be spelled") as got:
                getattr(cuda, call)(bad)
            assert str(got.value) == str(expected.value)
    assert_same(cpu.encode(["abc"]), cuda.encode(["abc"]))


@pytest.mark.parametrize("batch", [[], [""], [None], [None, "", None], ["", "a"]])
def test_batches_of_nothing_give_the_rows_of_the_cpu(device: Any, batch: list[Any]) -> None:
    for name in ("default", "ja_whole.tokenizer.json", "bytepiece.json"):
        cpu, cuda = tokenizers(device, name)
        assert_same(cpu.encode(batch), cuda.encode(batch))
        options: dict[str, Any] = {"num_samples": 3, "seed": 0, "return_log_prob": True}
        assert_same(cpu.sample(batch, **options), cuda.sample(batch, **options))


def test_batches_within_a_memory_limit_give_the_same_rows(device: Any) -> None:
    cpu, whole = tokenizers(device, "default")
    options: dict[str, Any] = {"num_samples": 2, "seed": 0, "return_log_prob": True}
    for limit in (3_000_000, 1_000_000):
        cuda = on(device, cpu, limit)
        assert_same(cpu.encode(texts()), cuda.encode(texts()))
        assert_same(cpu.sample(texts(), **options), cuda.sample(texts(), **options))
    assert_same(cpu.sample(texts(), **options), whole.sample(texts(), **options))


def test_large_batches_go_piece_by_piece_through_two_streams(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = tokenizers(device, "default")
    options: dict[str, Any] = {"num_samples": 2, "seed": 0, "return_log_prob": True}
    for size in (1, 1000):
        monkeypatch.setattr(cuda_backend, "DEVICE_BATCH_BYTES", size)
        assert_same(cpu.encode(texts()), cuda.encode(texts()))
        assert_same(cpu.sample(texts(), **options), cuda.sample(texts(), **options))


def test_a_batch_that_does_not_fit_is_halved_and_done() -> None:
    cpu, _ = tokenizers(host_device(), "default")
    device = host_device(memory=1_500_000)
    cuda = on(device, cpu, 1 << 40)
    assert_same(cpu.encode(texts()), cuda.encode(texts()))
    assert_same(cpu.sample(texts(), num_samples=2, seed=0), cuda.sample(texts(), num_samples=2, seed=0))
    assert device.refused > 0


def test_a_text_that_never_fits_is_an_error_with_its_size() -> None:
    cpu, _ = tokenizers(host_device(), "default")
    cuda = on(host_device(), cpu, 100_000)
    with pytest.raises(MemoryError, match=r"document 1 has \d+ normalized bytes.*on cuda:host.*memory_limit is 100000"):
        cuda.encode(["a", "word " * 4000])
    assert_same(cpu.encode(["a"]), cuda.encode(["a"]))
    cuda = on(host_device(memory=200_000), cpu)
    with pytest.raises(MemoryError, match="document 1 has"):
        cuda.encode(["a", "word " * 4000])


def test_the_most_arcs_of_a_position_are_counted_along_the_trie() -> None:
    trie = build_trie(*to_ragged([b"a", b"ba", b"xba", b"c", b"dc", b"zzzz"]), np.arange(6))
    assert most_arcs(trie.slots, trie.piece) == 3 + 1


SHARED_TEXTS = ["wikitext2_valid.txt", "wagahai.txt", "chinese_msr.txt", "code_python.txt"]


@pytest.mark.parametrize("pattern", ["models/*.model", "models/*.json"])
def test_shared_models_give_the_ids_of_the_cpu(device: Any, shared_data: Path, pattern: str) -> None:
    cut = []
    for name in SHARED_TEXTS:
        text = (shared_data / "text" / name).read_text("utf-8")
        cut += [*text[:8000].split("\n"), text[8000:14000]]
    for path in sorted(shared_data.glob(pattern)):
        cpu = Tokenizer.from_file(path, device="cpu")
        cuda = on(device, cpu)
        assert_same(cpu.encode(cut), cuda.encode(cut))
        for alpha in (0.0, 0.2, 1.0):
            options: dict[str, Any] = {"alpha": alpha, "num_samples": 2, "seed": 0, "return_log_prob": True}
            assert_same(cpu.sample(cut, **options), cuda.sample(cut, **options))


SANITIZERS = ("asan", "ubsan")


def test_no_kernel_reads_or_writes_out_of_bounds() -> None:
    """The same tests again, on sources built with sanitizers; every buffer is exactly as long as it must be."""
    host_device()
    found = [
        subprocess.check_output(["g++", f"-print-file-name=lib{name}.so"], text=True).strip() for name in SANITIZERS
    ]
    if not all(os.path.isabs(path) for path in found):
        pytest.skip("g++ has no sanitizer libraries")
    environment = {
        **os.environ,
        "CUDA_ON_CPU_SANITIZE": "address,undefined",
        "CUDA_EXAMPLES": "25",
        "ASAN_OPTIONS": "detect_leaks=0",
        "LD_PRELOAD": " ".join(found),
    }
    some = "random or far_beyond or reset or runs_of or bytepiece or ja_whole or zh_bytes"
    chosen = f"not gpu and not last and tiny and ({some})"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen],
        env=environment, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.slow
def test_the_tests_of_the_cpu_backend_hold_for_the_cuda_sources() -> None:
    host_device()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "cuda_on_cpu.instead_of_cpu",
         "tests/test_exactness.py", "tests/test_identity.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
