"""Text that cannot be divided is worked on block by block, and parts may end within unknown text: the ids are those of
the whole at once."""

import random

import numpy as np
import pytest
import sentencepiece
from handmade import hugging_face_file, sentencepiece_model

from gpu_lattice import TextBatch, Tokenizer
from gpu_lattice.backends.cpu import batch_of
from gpu_lattice.kernels.cpu.bulk.parts import BLOCK_BYTES, PART_BYTES, block_bytes, plan_parts
from gpu_lattice.models.detect import read_model

LONG = 2 * BLOCK_BYTES + 1234
# No position in a text of these is a cut.
JOINED = {"a": -1.0, "aa": -1.5, "aab": -2.0, "b": -3.0, "ba": -2.7, "bb": -6.2, "abab": -2.2, "é": -1.0, "éa": -1.0}
UNKNOWN = "".join(map(chr, range(0xE000, 0xE200)))


def text_of(symbols: str, length: int) -> str:
    return "".join(random.Random(0).choices(symbols, k=length))


def assert_as_at_once(tokenizer: Tokenizer, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with blocks and parts longer than the texts."""
    whole = Tokenizer(tokenizer._model, device="cpu")
    tables = whole._backend.tables
    tables.pieces = tables.pieces._replace(longest=1 << 20)
    tables.best = tables._build_best_model()
    assert block_bytes(tables.pieces.longest) > max(len(text.encode()) for text in texts)
    in_blocks = [
        tokenizer.encode(texts),
        tokenizer.sample(texts, alpha=0.4, seed=7, num_samples=2, return_log_prob=True),
    ]
    monkeypatch.setattr("gpu_lattice.backends.cpu.PART_BYTES", 1 << 30)
    at_once = [whole.encode(texts), whole.sample(texts, alpha=0.4, seed=7, num_samples=2, return_log_prob=True)]
    monkeypatch.undo()
    for out, expected in zip(in_blocks, at_once, strict=True):
        assert np.array_equal(out.ids, expected.ids)
        assert np.array_equal(out.offsets, expected.offsets)
    assert in_blocks[1].log_prob == pytest.approx(at_once[1].log_prob, rel=1e-12, abs=1e-6)
    assert tokenizer.verify(texts, in_blocks[1]) is None


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_segments_of_any_number_of_blocks(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With positive scores, too, forward scores leave float64's range."""
    tokenizer = Tokenizer.from_pieces({piece: scale * score for piece, score in JOINED.items()}, device="cpu")
    lengths = [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, LONG]
    texts = [text_of(symbols, length) for length in lengths for symbols in ("aab", "a", "éab")]
    assert_as_at_once(tokenizer, texts, monkeypatch)


def test_bytes_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = {b"\xe3": -3.0, b"\x81\x82": -1.0, b"\xe3\x81\x82": -1.5, b"\x81": -2.0, b"\x82": -2.5, b"\x82\xe3": -1.1}
    assert_as_at_once(Tokenizer.from_pieces(pieces, device="cpu"), ["あ" * 40_000, "あ" * 5], monkeypatch)


def test_a_long_segment_after_short_ones_and_before_others(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_pieces(JOINED | {"c": -1.0, "?": None}, unk_piece="?", device="cpu")
    long = text_of("aab", BLOCK_BYTES + 99)
    texts = ["cab" * 2000 + long + "xyc" * 50 + long + "z", "", long, "x" * 50_000 + long]
    assert_as_at_once(tokenizer, texts, monkeypatch)


def test_pieces_longer_than_the_sixteenth_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = {"a": -1.0, "b": -2.0, "ab" * 1500: -400.0, "a" * 2100: -1000.0}
    texts = ["ab" * 30_000, "a" * 40_000 + "ab" * 20_000]
    assert_as_at_once(Tokenizer.from_pieces(pieces, device="cpu"), texts, monkeypatch)


@pytest.mark.parametrize("score", [-1000.0, -20.0])
def test_sums_that_begin_anew_do_so_in_every_block(score: float) -> None:
    """SentencePiece's, beyond 1e5."""
    pieces = [(piece, score + k / 7, "NORMAL") for k, piece in enumerate(("a", "aa", "aab", "b", "ba", "abab", "▁"))]
    data = sentencepiece_model([("<unk>", 0.0, "UNKNOWN"), ("<s>", 0.0, "CONTROL"), *pieces])
    tool = sentencepiece.SentencePieceProcessor(model_proto=data)
    texts = [text_of("aab", length) for length in (BLOCK_BYTES + 1, LONG)]
    assert Tokenizer(read_model(data, "m.model"), device="cpu").encode(texts).tolist() == tool.encode(texts)


@pytest.mark.parametrize("spelled", [False, True])
def test_unknown_text_of_any_length_is_one_run(spelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of no byte pieces, and of all of them, where a run may yet be a piece."""
    names = [f"<0x{byte:02X}>" for byte in range(256)] if spelled else []
    vocab = [("<unk>", 0.0), *((name, -1.0) for name in names), ("ab", -1.0), ("a", -2.0), ("\ue000\ue001", -9.0)]
    tokenizer = Tokenizer(read_model(hugging_face_file(vocab, 0, spelled), "t.json"), device="cpu")
    run = UNKNOWN[2:] * (3 * PART_BYTES // len(UNKNOWN.encode()) + 1)
    texts = [
        run,
        run + "a",
        UNKNOWN * 40,
        "ab" * 9000 + run + "a" + run[5:],
        "a" + run + "ab" * 20_000,
        run[1:] + "a" * 50_000,
    ]
    assert_as_at_once(tokenizer, texts, monkeypatch)
    ids = [1 + byte for byte in run.encode()] if spelled else [0]
    assert tokenizer.encode([run, run + "ab" + run]).tolist() == [ids, [*ids, len(names) + 1, *ids]]


def test_a_part_ends_in_unknown_text_only_if_no_other_end_is_near() -> None:
    tokenizer = Tokenizer.from_pieces({"a": -1.0, "?": None}, unk_piece="?", device="cpu")
    texts = ["é" * 10_000 + "a" + "é" * 30_000, "é" * 10]
    batch = batch_of(tokenizer._model.normalizer(TextBatch.from_texts(texts)))
    offsets, docs, firsts = plan_parts(batch, tokenizer._backend.tables.pieces, PART_BYTES)
    assert offsets.tolist() == [0, 20_001, 20_001 + 2 * PART_BYTES, 80_001, 80_021]
    assert docs.tolist() == [0, 0, 0, 1]
    assert firsts.tolist() == [0, 1, 3, 4]
