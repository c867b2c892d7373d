"""Pre-tokens of text on a device are those of the CPU, and so are its ids; what is not plain goes by the host."""

from __future__ import annotations

import json
import random
from itertools import product
from typing import Any

import numpy as np
import pytest
from bpe_files import trained
from conftest import DATA
from cuda_on_cpu.host_device import HostDevice, OnDevice, compiler, gcc_version
from pre_token_texts import ALL, NAMES, branches, recipe, rules

from gpu_lattice import TextBatch, Tokenizer
from gpu_lattice.backends import cuda as cuda_backend
from gpu_lattice.backends.cuda import CudaBackend
from gpu_lattice.backends.cuda_launcher import CudaLauncher
from gpu_lattice.backends.cuda_pre_tokens import PreTokens
from gpu_lattice.kernels.cpu.bulk.parts import filled_documents
from gpu_lattice.models.hf_tokenizers import read
from gpu_lattice.normalizers.hf_tokenizers import CompiledNormalizer
from gpu_lattice.normalizers.pre_tokens import CL100K, GPT2

pytestmark = pytest.mark.skipif(compiler() is None, reason="no g++: the CUDA sources cannot be built for this machine")
SOME = branches()
EVERY = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
# All branches behind one another too, so that stretches begin within them.
DOCS = [
    "",
    *SOME,
    "",
    "".join(SOME),
    *("".join(EVERY[i : i + 1000]) for i in range(0, len(EVERY), 1000)),
    "a" * 999,
    "",
]
TEXTS = [*SOME[-8:], "", "  12 apples'", "the" * 700, "漢字かな👩" * 90, "", "x"]


def divider(pre_tokenizer: dict[str, Any], stretch: int, by_tiktoken: bool = False, **options: Any) -> Any:
    """(the rule object, how it divides on a device, the device)."""
    normalizer, device = rules(pre_tokenizer, by_tiktoken=by_tiktoken), HostDevice(**options)
    assert isinstance(normalizer, CompiledNormalizer)
    assert normalizer.rules.only_divide
    launcher = CudaLauncher(device, {"IS_BYTES": 1, "STRETCH": stretch})
    return normalizer, PreTokens(launcher, normalizer.rules, stretch), device


def marked(pre_tokens: PreTokens, texts: TextBatch) -> list[int]:
    """Where pre-tokens begin, and the end."""
    marks = np.zeros(len(texts.values) + 1, np.uint8)
    marks[filled_documents(texts.offsets)] = 1
    pre_tokens.mark(texts.values, texts.offsets, marks)
    assert marks.max(initial=0) <= 1
    return np.flatnonzero(marks).tolist()


NUMBERS_FIRST = [
    {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, *inner]}
    for inner in (recipe(CL100K)["pretokenizers"], recipe(GPT2)["pretokenizers"])
]


@pytest.mark.parametrize(
    "recipe_of", [*(recipe(*one) for one in ALL), *NUMBERS_FIRST], ids=[*NAMES, "digits 1", "digits 2"]
)
def test_pre_tokens_are_those_of_the_cpu(recipe_of: dict[str, Any]) -> None:
    texts = TextBatch.from_texts(DOCS)
    for stretch, is_reversed in ((8, False), (61, True), (256, False)):
        by_tiktoken = "$" in json.dumps(recipe_of)
        normalizer, pre_tokens, _ = divider(recipe_of, stretch, by_tiktoken, reversed=is_reversed)
        assert marked(pre_tokens, texts) == normalizer(texts).chunk_bounds.tolist()
        assert pre_tokens.take(texts)


@pytest.mark.parametrize("text", ["en", "ja"])
def test_many_threads_divide_a_document(text: str) -> None:
    if gcc_version() < 12:
        pytest.skip("g++ is older than 12, which is the first to count steps as is needed here")
    some = (DATA / f"{text}.txt").read_text("utf-8")
    for one in ALL:
        _, pre_tokens, device = divider(recipe(*one), 256, "$" in one[0], counts_steps=True)
        for times in (1, 8):
            marked(pre_tokens, TextBatch.from_texts([some * times]))
            if times == 1:
                few = device.most_steps["mark_pre_tokens"]
        assert device.most_steps["mark_pre_tokens"] < 1.2 * few


EDGES = [
    0x41,
    0x7F,
    0x80,
    0x8F,
    0x90,
    0x9F,
    0xA0,
    0xBF,
    0xC0,
    0xC1,
    0xC2,
    0xDF,
    0xE0,
    0xE1,
    0xED,
    0xEF,
    0xF0,
    0xF1,
    0xF4,
    0xF5,
    0xFF,
]


def is_text(document: bytes) -> bool:
    try:
        document.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_bytes_that_are_no_characters_are_found() -> None:
    _, pre_tokens, _ = divider(recipe(CL100K), 256)
    draw = random.Random(22)
    strings = [*map(bytes, product(EDGES, repeat=2)), *(bytes(draw.choices(EDGES, k=k)) for k in (1, 3, 4) * 500)]
    strings += ["é漢😀".encode(), "\ud7ff\ue000\U0010ffff".encode()]
    strings += [bytes([lead, second, 0x80, 0x80]) for lead in (0xE0, 0xED, 0xF0, 0xF4) for second in EDGES]
    strings += [bytes([lead, second, 0x80]) for lead in (0xE0, 0xED, 0xF0, 0xF4) for second in EDGES]
    for string in strings:
        for docs in ([string], [b"a", string[:1], b"", string[1:], b""]):
            assert pre_tokens.take(TextBatch.from_texts(docs)) == all(map(is_text, docs))
    assert not pre_tokens.take(TextBatch(np.frombuffer(b"a.b.", np.uint8)[::2], np.array([0, 2])))


def on_device(texts: list[Any], **options: Any) -> TextBatch:
    """Texts on the device, after and before others there."""
    host = TextBatch.from_texts(["before \u00e9", *texts, b"after \xff"])
    batch = TextBatch.from_dlpack(host.values.view(OnDevice), host.offsets, host.valid)
    return batch.slice(1, 1 + len(texts))


@pytest.fixture(params=[256, 8], ids=["as shipped", "tiny stretches"])
def stretch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "STRETCH", request.param)
    monkeypatch.setattr(cuda_backend, "DEVICE_BATCH_BYTES", 4000)


def assert_same(cpu: Tokenizer, cuda: Tokenizer, texts: list[Any], is_fetched: list[bool]) -> None:
    """is_fetched: whether text comes to the host for `encode`, `sample`, and with log-probabilities."""
    options: dict[str, Any] = {"alpha": 0.0, "num_samples": 2, "seed": 3}
    for call, comes in zip(
        (
            lambda tok, texts: tok.encode(texts),
            lambda tok, texts: tok.sample(texts, **options),
            lambda tok, texts: tok.sample(texts, **options, return_log_prob=True),
        ),
        is_fetched,
        strict=True,
    ):  # fmt: skip
        OnDevice.fetched = 0
        expected, got = call(cpu, texts), call(cuda, on_device(texts))
        assert (OnDevice.fetched > 0) == comes
        assert got.offsets.tolist() == expected.offsets.tolist()
        assert got.ids.tolist() == expected.ids.tolist()
        assert expected.log_prob is None or got.log_prob.tolist() == expected.log_prob.tolist()


@pytest.mark.usefixtures("stretch")
@pytest.mark.parametrize("name", ["gpt2", "llama3", "gpt4o", "qwen"])
def test_text_on_the_device_is_divided_there(name: str) -> None:
    """Unless it is changed first, or has an added token in it, or bytes that are no characters."""
    cpu = Tokenizer(read(json.dumps(trained(name)).encode(), "t.json"), device="cpu")
    cuda = cpu.on(CudaBackend(cpu.model, HostDevice()))
    texts = [*TEXTS, None, "a <|", "<|en|>"]
    is_fetched = [name == "qwen", name == "qwen", True]
    assert_same(cpu, cuda, texts, is_fetched)
    assert_same(cpu, cuda, [None, ""], is_fetched)
    for odd in ("a <|end|>b", b"a\xffb", "\u00e9".encode()[1:]):
        assert_same(cpu, cuda, [*texts, odd], [True] * 3)
    for call in (
        lambda tok, texts: tok.lattice(texts).num_arcs,
        lambda tok, texts: tok.sample(texts, alpha=0.0, rate=0.5, seed=1),
        lambda tok, texts: tok.encode(texts, return_offsets="bytes").spans,
    ):
        assert call(cuda, on_device(texts)).tolist() == call(cpu, texts).tolist()
