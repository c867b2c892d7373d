"""Every operation gives on a device what it gives on the CPU: on the host build, and on a GPU where there is one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import DATA
from cuda_on_cpu.host_device import HostDevice, compiler

from gpu_lattice import Lattice, PathBatch, TokenBatch, Tokenizer
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.backends.cuda_device import CudaDevice, device_count

# Sums of logs, and counts that a GPU adds in no set order; all else is equal.
CLOSE = 1e-12

OPERATIONS: dict[str, Callable[[Lattice], Any]] = {
    "tensors": lambda lat: (lat.piece_id, lat.length, lat.num_arcs, lat.num_bytes),
    "to_ragged": lambda lat: (*lat.to_ragged()[:2], *lat.to_ragged().row_splits, lat.to_ragged().is_cut),
    "from_ragged": lambda lat: Lattice.from_ragged(lat.to_ragged(), vocab_size=8000).log_partition(
        weights=np.full(8000, 0.5)
    ),
    "take": lambda lat: [part.piece_id for _, part in lat.buckets()],
    "forward_scores": lambda lat: lat.forward_scores(0.2),
    "backward_scores": lambda lat: lat.backward_scores(0.2),
    "log_partition": lambda lat: lat.log_partition(0),
    "num_paths": lambda lat: (lat.num_paths(), lat.num_paths(log=True)),
    "marginals": lambda lat: lat.marginals(1.0),
    "expected_counts": lambda lat: lat.expected_counts(0.5),
    "entropy": lambda lat: lat.entropy(0.5),
    "viterbi": lambda lat: lat.viterbi(),
    "sample": lambda lat: lat.sample(alpha=0.2, num_samples=3, seed=1, return_log_prob=True),
    "sample by weights": lambda lat: lat.sample(weights=np.linspace(0.01, 1.0, 8000), seed=2),
    "nbest": lambda lat: lat.nbest(5),
    "sample_nbest": lambda lat: lat.sample_nbest(4, alpha=0.3, num_samples=3, return_log_prob=True),
    "sample_without_replacement": lambda lat: lat.sample_without_replacement(4, alpha=0.3),
    "viterbi_sample": lambda lat: lat.viterbi_sample(alpha=0.3, num_samples=2),
    "log_prob": lambda lat: lat.log_prob(lat.sample(seed=5), alpha=0.1),
    "is_path": lambda lat: lat.is_path(lat.sample(seed=5)),
    "continuations": lambda lat: lat.continuations(max_rollback=6),
}


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)], scope="module")
def lattices(request: pytest.FixtureRequest) -> tuple[Lattice, Lattice]:
    """The same texts on the CPU and on the device."""
    if request.param == "gpu" and device_count() == 0:
        pytest.skip("no CUDA device answers through CuPy")
    if request.param == "host" and compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    cpu = Tokenizer.default(device="cpu")
    other = Tokenizer(cpu._model, device="cpu")
    device: Any = CudaDevice() if request.param == "gpu" else HostDevice(reversed=True)
    other._backend = CudaBackend(cpu._model, device)
    texts = ["", None, "\U0010ffff" * 40 + "x", "a" * 300]
    for name in ("en.txt", "ja.txt", "zh.txt", "odd.txt"):
        texts += (DATA / name).read_bytes().decode().split("\n")[:12]
    return cpu.lattice(texts), other.lattice(texts)


def arrays(result: Any) -> list[Any]:
    """All that a result holds, on the host."""
    if isinstance(result, list | tuple):
        return [array for part in result for array in arrays(part)]
    if isinstance(result, TokenBatch):
        return arrays([result.ids, result.offsets, result.log_prob, result.valid])
    if isinstance(result, PathBatch):
        logs = (result.scores, result.log_prob, result.log_inclusion)
        return [*arrays(result.tokens), *arrays([result.doc_offsets, *logs])]
    if hasattr(result, "rollback"):
        parts = (result.doc_offsets, result.rollback, result.tokens, result.scores, result.ranges, result.order)
        return [*arrays(list(parts)), *arrays(result.mask())]
    if result is None or isinstance(result, int):
        return [np.array(result, object)]
    return [result.get() if hasattr(result, "get") else np.asarray(result)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_operation_gives_what_it_gives_on_the_cpu(lattices: tuple[Lattice, Lattice], name: str) -> None:
    expected, got = (arrays(OPERATIONS[name](lattice)) for lattice in lattices)
    assert len(expected) == len(got)
    for one, other in zip(expected, got, strict=True):
        assert one.dtype == other.dtype
        if one.dtype == np.float64:
            np.testing.assert_allclose(other, one, CLOSE, CLOSE)
        else:
            np.testing.assert_array_equal(other, one)
