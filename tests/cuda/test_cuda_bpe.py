"""BPE models on the CUDA backend: samples are those of the CPU, canonical encoding is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bpe_files import trained
from cuda_on_cpu.host_device import HostDevice, compiler

from gpu_lattice import Tokenizer
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.models.hf_tokenizers import read

DOCS = ["The whale, the WHALE!", "  12 apples'", "漢字かな 👩", "", "a<|end|>b"]


@pytest.mark.parametrize("name", ["llama3", "llama2"])
def test_a_bpe_model_samples_as_on_the_cpu_and_does_not_encode(name):
    if compiler() is None:
        pytest.skip("no g++: the CUDA sources cannot be built for this machine")
    model = read(json.dumps(trained(name)).encode(), "t.json")
    cpu = Tokenizer(model, device="cpu")
    cuda = cpu.on(CudaBackend(model, HostDevice()))
    one, other = (tok.sample(DOCS, alpha=0, num_samples=3, seed=5, return_log_prob=True) for tok in (cpu, cuda))
    assert other.tolist() == one.tolist()
    np.testing.assert_array_equal(other.log_prob, one.log_prob)
    with pytest.raises(ValueError, match="device='cpu'"):
        cuda.encode(DOCS)
