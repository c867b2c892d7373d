"""Every lattice operation is read three times: by the definition, by Numba, and by the CUDA sources built by g++."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.host_device import HostDevice, compiler

from gpu_lattice import Tokenizer
from gpu_lattice.backends.cuda import CudaBackend

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(compiler() is None, reason="needs g++"))]


def on_host_build(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer by the CUDA sources."""
    other = Tokenizer(tokenizer._model, device="cpu")
    other._backend = CudaBackend(tokenizer._model, HostDevice())
    return other


def on(device: str, tokenizer: Tokenizer) -> Tokenizer:
    return on_host_build(tokenizer) if device == "cuda" else tokenizer


def both(tokenizer: Tokenizer, texts: Any) -> Iterator[Any]:
    """The lattices of the texts by Numba and, where a compiler is there, by the CUDA sources."""
    yield tokenizer.lattice(texts)
    if compiler() is not None:
        yield on_host_build(tokenizer).lattice(texts)


def documents_of(lattice: Any, values: Any) -> list[Any]:
    """Each document as kernels.reference_lattice takes it; values [A] are its arcs' weights or scores."""
    ragged = lattice.to_ragged()
    doc_splits, arc_splits = (splits.tolist() for splits in ragged.row_splits)
    arcs = list(zip(ragged.length.tolist(), np.asarray(values).tolist(), strict=True))
    rows = [arcs[a:b] for a, b in pairwise(arc_splits)]
    return [rows[a:b] for a, b in pairwise(doc_splits)]
