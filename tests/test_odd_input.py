"""Texts that nobody expects: empty, broken, huge, uncut, unknown. Right rows, or an error that names the document."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from brute_force import brute_force
from conftest import DATA, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_lattice import TokenBatch, Tokenizer

FILES = ["bytepiece.json", "en_nmt_nfkc.model", "en_split.tokenizer.json", "en_symbols.model", "ja_bytes.model",
         "ja_whole.tokenizer.json"]  # fmt: skip
LONG = 10_000_000


@pytest.fixture(scope="module", params=["default", "str pieces", "bytes pieces", *FILES])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """One of every kind of model; each can spell anything, or has an unknown id."""
    if request.param == "default":
        return Tokenizer.default(device="cpu")
    if request.param == "str pieces":
        return Tokenizer.from_pieces({"?": None, "a": -1.0, "aa": -1.5, "漢": -2.0}, unk_piece="?", device="cpu")
    if request.param == "bytes pieces":
        return Tokenizer.from_pieces({bytes([b]): -5.0 for b in range(256)} | {b"aa": -1.5, b"ab": -2.0}, device="cpu")
    return Tokenizer.from_file(DATA / request.param, device="cpu")


def both(tokenizer: Tokenizer) -> list[Callable[[list[str | bytes]], TokenBatch]]:
    return [
        tokenizer.encode,
        lambda texts: tokenizer.sample(texts, alpha=0.2, num_samples=2, return_log_prob=True, seed=0),
    ]


ODD = [
    "",
    " ",
    "a",
    "\x00",
    "a\x00b\x00",
    "\x7f\x01",
    "\n\n",
    "\r\n \t",
    "▁",
    " ▁ ▁",
    "\ufeffa",
    "\ufffd",
    "\ufffe\uffff",
    "\U0010ffff",
    "e\u0301\u0323",
    "\u0301",
    "\u200d\u200b",
    "😀👩‍👩‍👧‍👦🇯🇵",
    "각가ᄀ",
    "<s></s><unk><pad>",
    "<0x41><0xFF>",
    b"\xff",
    b"\xc3",
    b"a\xe6\xbca",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    bytes(range(256)),
    "٣½Ⅷ㍿ﬃ",
    "a" * 300,
    " " * 300,
]


def test_odd_texts_are_spelled_by_their_rows(tokenizer: Tokenizer) -> None:
    for segment in both(tokenizer):
        out = segment(ODD)
        assert tokenizer.verify(ODD, out) is None
        assert out.ids.min() >= 0
        assert out.ids.max() < tokenizer.vocab_size
        if out.log_prob is not None:
            assert np.all(np.isfinite(out.log_prob))
            assert np.all(out.log_prob <= 1e-9)


def test_an_odd_text_does_not_disturb_its_neighbours(tokenizer: Tokenizer) -> None:
    plain = "a plain text 漢字"
    between = [text for odd in ODD for text in (odd, plain)]
    alone = tokenizer.encode([plain]).tolist()[0]
    rows = tokenizer.encode(between).tolist()
    assert all(row == alone for row in rows[1::2])
    assert rows[0::2] == [tokenizer.encode([odd]).tolist()[0] for odd in ODD]
    ids = np.arange(len(ODD)) + 100
    sampled = tokenizer.sample(between, seed=1, doc_ids=np.repeat(ids, 2)).tolist()
    assert sampled[0::2] == tokenizer.sample(ODD, seed=1, doc_ids=ids).tolist()
    assert sampled[1::2] == tokenizer.sample([plain] * len(ODD), seed=1, doc_ids=ids).tolist()


@settings(max_examples=40)
@given(texts=st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=20)), max_size=5))
def test_any_bytes_are_spelled_by_their_rows(tokenizer: Tokenizer, texts: list[bytes | str]) -> None:
    for segment in both(tokenizer):
        assert tokenizer.verify(texts, segment(texts)) is None


@pytest.mark.parametrize("text", ["\ud800", "ab\udfff", "\ud83d\ude00"])
def test_lone_surrogates_are_refused_with_their_document(tokenizer: Tokenizer, text: str) -> None:
    for segment in both(tokenizer):
        with pytest.raises(ValueError, match="document 1 holds the lone surrogate"):
            segment(["fine", text])


def test_text_of_unknown_symbols_alone_is_one_unknown_id() -> None:
    of_characters = Tokenizer.from_pieces({"a": -1.0, "?": None}, unk_piece="?", device="cpu")
    of_bytes = Tokenizer.from_pieces({b"a": -1.0, b"?": None}, unk_piece=b"?", device="cpu")
    texts = ["漢字仮名" * 1000, "b", "a漢a", "?"]
    for tokenizer in (of_characters, of_bytes):
        for segment in both(tokenizer):
            rows = segment(texts).tolist()
            assert rows[0] == rows[-1] == [1]
            assert [0, 1, 0] in rows


@pytest.mark.parametrize(
    ("pieces", "texts", "i_doc", "at"),
    [
        (["a", "b"], ["ab", None, "abxab"], 2, 3),
        (["a", "b"], ["漢"], 0, 3),
        ({"aa": None}, ["aa", "aaaa", "aaa"], 2, 3),
        ([b"a", b"\xe6\xbc"], ["", "漢"], 1, 3),
        ([b"a"], [b"aa\x00"], 0, 3),
        ({"ab": None, "bc": None}, ["abab" * 3, "bcab" * 3 + "a"], 1, 13),
    ],
)
def test_text_that_cannot_be_spelled_is_an_error_with_document_and_place(pieces, texts, i_doc: int, at: int) -> None:
    tokenizer = Tokenizer.from_pieces(pieces, device="cpu")
    for segment in both(tokenizer):
        with pytest.raises(ValueError, match=rf"document {i_doc} cannot be spelled .*reaches byte (\d+)") as error:
            segment(texts)
        assert int(str(error.value).split("reaches byte ")[1].split()[0]) >= at


def test_the_first_of_several_broken_documents_is_named_whatever_the_threads() -> None:
    texts = ["a" * 1000] * 2000
    texts[700] = texts[1500] = texts[1999] = "a?"
    for threads in (1, 4):
        tokenizer = Tokenizer.from_pieces(["a", "aa"], device="cpu", threads=threads)
        for segment in both(tokenizer):
            with pytest.raises(ValueError, match="document 700 cannot be spelled"):
                segment(texts)


def test_an_error_leaves_the_tokenizer_as_it_was() -> None:
    tokenizer = Tokenizer.from_pieces({"a": -1.0, "aa": -1.0}, device="cpu")
    before = tokenizer.sample("a" * 30, seed=1).tolist()
    with pytest.raises(ValueError, match="document 0"):
        tokenizer.sample("aab", seed=1)
    assert tokenizer.sample("a" * 30, seed=1).tolist() == before


@pytest.mark.parametrize("alpha", [0.0, 5e-324, 1e-300, 1e-9, 20.0])
def test_alphas_at_the_ends_of_the_range_give_valid_samples(alpha: float) -> None:
    pieces = {"a": -3.0, "aa": -30.0, "b": -0.001, "ab": -1.0}
    tokenizer = Tokenizer.from_pieces(pieces, device="cpu")
    texts = ["aabaab", "b", "aaaa" * 50]
    out = tokenizer.sample(texts, alpha=alpha, num_samples=20, return_log_prob=True, seed=0)
    assert tokenizer.verify(texts, out) is None
    paths = brute_force(texts[0], pieces)
    expected = dict(zip(paths.ids, paths.log_probs(alpha), strict=True))
    assert out.log_prob is not None
    for row, log_prob in list(zip(out.tolist(), out.log_prob.tolist(), strict=True))[:20]:
        assert log_prob == pytest.approx(expected[tuple(row)], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ["default", *FILES])
def test_an_alpha_that_is_too_large_for_a_model_names_the_largest(name: str) -> None:
    tokenizer = Tokenizer.default(device="cpu") if name == "default" else Tokenizer.from_file(DATA / name, device="cpu")
    with pytest.raises(ValueError, match=r"alpha=80 .* the largest alpha for this model is (\d+\.?\d*)") as error:
        tokenizer.sample("a", alpha=80, seed=0)
    largest = float(str(error.value).rsplit(" ", 1)[1])
    out = tokenizer.sample("a text", alpha=0.999 * largest, seed=0)
    assert tokenizer.verify(["a text"], out) is None


def test_alpha_zero_on_a_megabyte_in_one_piece_and_in_words() -> None:
    tokenizer = Tokenizer.from_pieces(["a", "aa", "aaa", " "], device="cpu")
    texts = ["a" * 1_000_000, "aaa " * 250_000]
    out = tokenizer.sample(texts, alpha=0, return_log_prob=True, seed=0)
    assert tokenizer.verify(texts, out) is None
    # Tribonacci numbers grow by 1.8392867552...; the constant of their growth is far below the tolerance.
    assert out.log_prob == pytest.approx([-1e6 * np.log(1.839286755214161), -250_000 * np.log(4)], rel=1e-6)


MEASURED = """
import resource, sys, time
import numpy as np
from gpu_lattice import Tokenizer
kind, size = sys.argv[1], int(sys.argv[2])
if kind == "bytes without a cut":
    pieces = {b"a": -1.0, b"b": -2.0, b"ab": -2.5, b"ba": -1.5, b"aa": -3.0}
    tokenizer = Tokenizer.from_pieces(pieces, device="cpu", threads=1)
    text = b"ab" * (size // 2)
elif kind == "characters without a cut":
    tokenizer = Tokenizer.from_file(sys.argv[3] + "/ja_bytes.model", device="cpu", threads=1)
    text = "。" * (size // 3)
elif kind == "one letter":
    tokenizer = Tokenizer.default(device="cpu", threads=1)
    text = "a" * size
else:
    tokenizer = Tokenizer.default(device="cpu", threads=1)
    text = ("A plain line of text, with words.\\n" * (size // 34 + 1))[:size]
for compiled in (tokenizer.encode, tokenizer.sample):
    compiled("ab")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
out = tokenizer.encode(text)
sampled = tokenizer.sample(text, alpha=0.1, return_log_prob=True)
seconds = time.perf_counter() - start
assert tokenizer.verify(text, out) is None and tokenizer.verify(text, sampled) is None
assert np.isfinite(sampled.log_prob[0])
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / size, seconds)
"""


@pytest.mark.parametrize("kind", ["bytes without a cut", "characters without a cut", "one letter", "plain text"])
def test_ten_megabytes_in_one_document_take_seconds_and_linear_memory(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, kind, str(LONG), str(DATA)], cwd=ROOT, env={**os.environ},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bytes_per_byte, seconds = map(float, done.stdout.split())
    assert bytes_per_byte < 150
    assert seconds < 60


def test_many_empty_documents_take_no_time_of_their_own() -> None:
    tokenizer = Tokenizer.default(device="cpu")
    out = tokenizer.sample([""] * 200_000, return_log_prob=True, seed=0)
    assert len(out) == 200_000
    assert len(out.ids) == 0


def test_a_model_that_may_never_end_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        for read in (Tokenizer.from_file, lambda path: Tokenizer.from_tiktoken(path, encoding="gpt2")):
            with pytest.raises(ValueError, match="is not a regular file; save the model as a file"):
                read(path)


def test_more_samples_than_bytes() -> None:
    tokenizer = Tokenizer.from_pieces(["a"], device="cpu")
    out = tokenizer.sample(["a", "", "aa"], num_samples=10_000, seed=0)
    assert out.to_padded(pad_id=-1).sum(axis=1).reshape(3, -1).tolist() == [[-1] * 10_000, [-2] * 10_000, [0] * 10_000]


def test_pieces_of_any_length_and_content_are_found() -> None:
    long = "x" * 5000
    pieces = {"\x00": -1.0, "x": -2.0, long: -3.0, "\U0010ffff": -1.0, "é" * 200: -2.0, "é": -1.0}
    tokenizer = Tokenizer.from_pieces(pieces, device="cpu")
    assert tokenizer.encode([long + "x", "\x00\U0010ffff", "é" * 200]).tolist() == [[1, 2], [0, 3], [4]]
    assert tokenizer.verify([long * 2], tokenizer.sample([long * 2], alpha=0.001, seed=0)) is None


def test_a_vocabulary_of_all_bytes_spells_any_bytes() -> None:
    tokenizer = Tokenizer.from_pieces([bytes([b]) for b in range(256)], device="cpu")
    data = np.random.default_rng(0).bytes(5000)
    assert tokenizer.sample([data], seed=0).ids.tolist() == list(data)
    assert tokenizer.encode([data]).ids.tolist() == list(data)
