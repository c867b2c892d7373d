"""BPE models on the CUDA backend: canonical ids, those of `rate`, and samples are the CPU's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from bpe_files import MODELS, trained
from conftest import DATA
from cuda_on_cpu.host_device import HostDevice, compiler, gcc_version

from gpu_lattice import Tokenizer
from gpu_lattice.backends import cuda as cuda_backend
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.models.hf_tokenizers import read

if compiler() is None:
    pytest.skip("no g++: the CUDA sources cannot be built for this machine", allow_module_level=True)

LINES = [
    line for name in ("en", "ja", "zh", "odd") for line in (DATA / f"{name}.txt").read_bytes().decode().split("\n")
]
DOCS = [
    *LINES,
    " ".join(LINES),
    "",
    None,
    "a<|end|>b",
    "  12 apples'",
    "the" * 700,
    "漢字かな👩" * 90,
    "aab" * 500 + "?",
]


@pytest.fixture(params=[256, 8], ids=["as shipped", "tiny stretches"])
def stretch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "STRETCH", request.param)


def on_both(file: dict[str, Any]) -> tuple[Tokenizer, Tokenizer]:
    cpu = Tokenizer(read(json.dumps(file).encode(), "t.json"), device="cpu")
    return cpu, on_cuda(cpu)


def on_cuda(cpu: Tokenizer, **options: Any) -> Tokenizer:
    return cpu.on(CudaBackend(cpu._model, HostDevice(**options)))


def assert_same_ids(one: Any, other: Any) -> None:
    np.testing.assert_array_equal(other.offsets, one.offsets)
    np.testing.assert_array_equal(other.ids, one.ids)


@pytest.mark.usefixtures("stretch")
@pytest.mark.parametrize("name", [*MODELS, "en_bpe.model"])
def test_a_bpe_model_encodes_as_on_the_cpu(name: str) -> None:
    """All at once, by words as `rate` asks for, and with the last thread first."""
    cpu = Tokenizer.from_file(DATA / name, device="cpu") if name.endswith("model") else on_both(trained(name))[0]
    expected = cpu.encode(DOCS)
    assert_same_ids(expected, on_cuda(cpu).encode(DOCS))
    cuda = on_cuda(cpu, reversed=True)
    assert_same_ids(expected, cuda.encode(DOCS))
    for rate in (0.0, 0.3):
        options: dict[str, Any] = {"alpha": 0.0, "rate": rate, "num_samples": 2, "seed": 11}
        assert_same_ids(cpu.sample(DOCS, **options), cuda.sample(DOCS, **options))


@pytest.mark.parametrize(("name", "is_one_piece"), [("llama3", True), ("gpt2", False)])
def test_a_pre_token_that_is_a_piece_which_no_merge_makes(name: str, is_one_piece: bool) -> None:
    """It is that piece where the model ignores merges, and only there."""
    file = trained(name)
    file = file | {"model": file["model"] | {"vocab": file["model"]["vocab"] | {"zqxj": 990, "Ġzqxj": 991}}}
    cpu, cuda = on_both(file)
    docs = ["zqxj", "a zqxj zqxjs", "zqx", "zqxj zqxj", *LINES[:20]]
    expected = cpu.encode(docs)
    assert (expected.tolist()[0] == [990]) == is_one_piece
    assert_same_ids(expected, cuda.encode(docs))
    assert_same_ids(expected, cuda.sample(docs, alpha=0, rate=0.0, seed=1))


@pytest.mark.parametrize("unk_token", [None, "<gone>"], ids=["dropped", "an error"])
def test_symbols_that_the_model_does_not_know_are_what_they_are_on_the_cpu(unk_token: str | None) -> None:
    file = trained("unknown")
    cpu, cuda = on_both(file | {"model": file["model"] | {"unk_token": unk_token}})
    docs = ["the whale", "ok \U0010ffff ok", "a \U0010fffe", "\U0010ffff" * 300]
    if unk_token is None:
        assert_same_ids(cpu.encode(docs), cuda.encode(docs))
        return
    with pytest.raises(ValueError, match="spelled") as expected:
        cpu.encode(docs)
    with pytest.raises(ValueError, match="spelled") as got:
        cuda.encode(docs)
    assert str(got.value) == str(expected.value)
    assert_same_ids(cpu.encode(docs[:1]), cuda.encode(docs[:1]))


def test_text_without_a_boundary_takes_little_more_than_twice_the_steps_for_twice_its_length() -> None:
    if gcc_version() < 12:
        pytest.skip("g++ is older than 12, which is the first to count steps as is needed here")
    cpu, _ = on_both(trained("gpt2"))
    random = np.random.default_rng(3)
    steps = []
    for length in (1 << 13, 1 << 14):
        cuda = on_cuda(cpu, counts_steps=True)
        text = ["".join(random.choice(list("abcdefgh"), length))]
        assert_same_ids(cpu.encode(text), cuda.encode(text))
        steps.append(cuda._backend._device.most_steps["encode_merges"])
    assert steps[1] < 2.5 * steps[0]


@pytest.mark.parametrize("name", ["llama3", "llama2"])
def test_a_bpe_model_samples_as_on_the_cpu(name: str) -> None:
    cpu, cuda = on_both(trained(name))
    options: dict[str, Any] = {"alpha": 0, "num_samples": 3, "seed": 5, "return_log_prob": True}
    one, other = cpu.sample(DOCS, **options), cuda.sample(DOCS, **options)
    assert_same_ids(one, other)
    np.testing.assert_array_equal(other.log_prob, one.log_prob)
