"""Pickles of earlier versions load: tests/data/pickles.xz was written before the packages were rearranged (8c5e4a4)."""

import lzma
import pickle
import sys
from typing import Any

import pytest
from conftest import DATA

from gpu_lattice import TextBatch, TokenBatch, Tokenizer

MODELS = ("en_suffix.model", "en_split.tokenizer.json", "bytepiece.json")


@pytest.fixture(scope="module")
def pickled() -> dict[str, Any]:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("models of that version took functions with them, as bytecode of Python 3.11")
    loaded: dict[str, Any] = pickle.loads(lzma.decompress((DATA / "pickles.xz").read_bytes()))
    return loaded


def test_batches_of_an_earlier_version_load(pickled: dict[str, Any]) -> None:
    assert isinstance(pickled["texts"], TextBatch)
    assert pickled["texts"].tolist() == [b"ab", None, "é".encode()]
    assert isinstance(pickled["tokens"], TokenBatch)
    assert pickled["tokens"].tolist() == [[1, 2]]


@pytest.mark.parametrize("name", ["pieces", *MODELS])
def test_tokenizers_of_an_earlier_version_load_and_give_the_same_ids(pickled: dict[str, Any], name: str) -> None:
    """A Tokenizer of a Model pickles the model itself: its vocabulary, normalizer and decoder."""
    old = pickled[name]
    now = Tokenizer.from_pieces({"ab": -1.0, "a": -2.0, "b": -2.5}) if name == "pieces" else None
    now = now or Tokenizer.from_file(DATA / name)
    texts = ["ab ab", "abab"] if name != "pieces" else ["abab", "ba"]
    assert old.encode(texts).tolist() == now.encode(texts).tolist()
    assert old.sample(texts, alpha=0.2, seed=3).tolist() == now.sample(texts, alpha=0.2, seed=3).tolist()
    assert old.decode(old.encode(texts)) == now.decode(now.encode(texts))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_takes_no_functions_with_it_so_that_any_python_can_load_it(name: str) -> None:
    model = Tokenizer.from_file(DATA / name, device="cpu").model
    pickled = pickle.dumps(model)
    assert b"numba" not in pickled
    assert b"CodeType" not in pickled
