"""BytePiece models and text rules: what is read, what is refused, and equality with bytepiece 0.6.3."""

import base64
import io
import json
import math
import random
import struct
import sys
import time
import tracemalloc
import unicodedata
import zipfile
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_lattice.models import bytepiece as reader
from gpu_lattice.models.bytepiece import looks_like, read
from gpu_lattice.normalizers.bytepiece import BytePieceNormalizer, inert_code_points
from gpu_lattice.text_batch import TextBatch
from gpu_lattice.vocabulary import Kind

normalize = BytePieceNormalizer()


def entries_of(extra: dict[bytes, float]) -> dict[str, list[Any]]:
    """A small sound model: every byte, and the given tokens."""
    counts = {bytes([byte]): 1 + byte for byte in range(256)} | extra
    ordered = sorted(counts.items(), key=lambda item: (len(item[0]), item[0]))
    return {
        base64.b64encode(token).decode(): [3 + i, token.decode(errors="ignore"), count]
        for i, (token, count) in enumerate(ordered)
    }


ENTRIES = entries_of({b"ab": 1000, b"the ": 5_000_000_000, "的".encode(): 70, "的".encode()[:2]: 7})
FILE = json.dumps(ENTRIES, indent=4, ensure_ascii=False).encode()

# ln(1 / total), ln(256 / total), ln(5e9 / total), by fixed_log.
SCORES_FROZEN = ["-0x1.6552c84a954dfp+4", "-0x1.0c99bc4eac663p+4", "-0x1.c7f9f15000000p-18"]


def zipped(method: int = zipfile.ZIP_DEFLATED, /, **files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def normalized(texts: Any, threads: int = 1) -> tuple[list[bytes], list[bytes]]:
    """Documents and chunks."""
    out = normalize(TextBatch.from_texts(texts), threads)
    assert out.chunk_offsets is not None
    blob = out.values.tobytes()
    docs, chunks = (
        [blob[a:b] for a, b in pairwise(bounds)] for bounds in (out.offsets.tolist(), out.chunk_offsets.tolist())
    )
    return docs, chunks


def test_ids_surfaces_kinds_and_scores_are_those_of_the_file() -> None:
    model = read(FILE, "small.model")
    vocabulary = model.vocabulary
    assert len(vocabulary) == 3 + 256 + 4
    assert vocabulary.names[:3] == ["<pad>", "<bos>", "<eos>"]
    assert vocabulary.surfaces[:5] == [b"", b"", b"", b"\x00", b"\x01"]
    assert vocabulary.surfaces[-4:] == [b"ab", "的".encode()[:2], "的".encode(), b"the "]
    assert vocabulary.names[-4:] == ["ab", "\\xe7\\x9a", "的", "the "]
    assert vocabulary.kinds.tolist() == [Kind.CONTROL] * 3 + [Kind.NORMAL] * 260
    assert vocabulary.in_lattice.tolist() == [False] * 3 + [True] * 260
    total = sum(range(1, 257)) + 1000 + 5_000_000_000 + 70 + 7
    assert vocabulary.best_scores.dtype == np.float64
    assert vocabulary.best_scores[-1] == np.log(5_000_000_000) - np.log(total)
    assert vocabulary.scores[3 + 65] == pytest.approx(math.log(66 / total), rel=1e-14)
    assert vocabulary.scores == pytest.approx(vocabulary.best_scores, rel=1e-14)
    assert (vocabulary.symbols, vocabulary.unk_id, vocabulary.byte_ids) == ("bytes", None, None)
    assert vocabulary.id_of["ab"] == 3 + 256
    assert model.kind == "bytepiece"
    assert (model.decoder.metaspace, model.decoder.strip, model.decoder.errors) == (False, None, "ignore")


def test_scores_for_sampling_are_the_same_bits_on_every_machine() -> None:
    scores = read(FILE, "small.model").vocabulary.scores
    assert [score.hex() for score in scores[[3, 258, -1]].tolist()] == SCORES_FROZEN


def test_a_name_that_two_tokens_share_means_the_plain_text() -> None:
    entries = entries_of({b"\xe7\x9a": 5, b"\\xe7\\x9a": 6, b"<pad>": 7})
    vocabulary = read(json.dumps(entries).encode(), "small.model").vocabulary
    assert vocabulary.surfaces[vocabulary.id_of["\\xe7\\x9a"]] == b"\\xe7\\x9a"
    assert vocabulary.id_of["<pad>"] == 0


def test_a_count_that_rounds_to_the_limit_is_still_one_below_it() -> None:
    entries = entries_of({b"ab": 2**64 - 1, b"cd": 2**53 + 1})
    vocabulary = read(json.dumps(entries).encode(), "small.model").vocabulary
    plain = read(json.dumps(entries_of({b"ab": 2**63, b"cd": 2**53 + 1})).encode(), "small.model").vocabulary
    assert (vocabulary.names, vocabulary.surfaces) == (plain.names, plain.surfaces)
    assert vocabulary.scores[vocabulary.id_of["ab"]] == pytest.approx(0, abs=1e-3)


def test_order_of_the_entries_does_not_matter() -> None:
    turned = json.dumps(dict(reversed(ENTRIES.items()))).encode()
    assert read(turned, "turned").vocabulary.surfaces == read(FILE, "small.model").vocabulary.surfaces


def test_zip_and_byte_order_mark_are_read_alike() -> None:
    surfaces = read(FILE, "small.model").vocabulary.surfaces
    for data in (zipped(model=FILE), b"\xef\xbb\xbf" + FILE):
        assert looks_like(data)
        assert read(data, "small").vocabulary.surfaces == surfaces


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"version": "1.0"}', b'{"a": {"b": []}}', b"\x0a\x0e\x0a\x05<unk>\x15", b"PK", b"\x00" * 64],
)
def test_other_formats_do_not_look_like_bytepiece(data: bytes) -> None:
    assert not looks_like(data)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("YWI=", [259, "ab", 0], "count 0"),
        ("YWI=", [259, "ab", -3], "count -3"),
        ("YWI=", [259, "ab", float("nan")], "count nan"),
        ("YWI=", [259, "ab", float("inf")], "count inf"),
        ("YWI=", [259, "ab", 1 << 64], "below 2\\*\\*64"),
        ("YWI=", [259, "ab", True], "should be \\[id, text, count\\]"),
        ("YWI=", [259, "ab", "9"], "should be \\[id, text, count\\]"),
        ("YWI=", [259.0, "ab", 9], "should be \\[id, text, count\\]"),
        ("YWI=", [True, "ab", 9], "should be \\[id, text, count\\]"),
        ("YWI=", [259, "ab"], "should be \\[id, text, count\\]"),
        ("YWI=", 259, "should be \\[id, text, count\\]"),
        ("YWI=", [261, "ab", 9], "id 261 belongs to"),
        ("YWI=", [2, "ab", 9], "no token has the id 259"),
        ("YWI=", [263, "ab", 9], "no token has the id 259"),
        ("YWI", [259, "ab", 9], "'YWI' is not base64"),
        ("YW I=", [259, "ab", 9], "not base64"),
        ("YWé=", [259, "ab", 9], "not base64"),
        ("", [259, "", 9], "empty token"),
        ("YWJ=", [259, "ab", 9], "not base64|has the ids"),
    ],
)
def test_unsound_entries_are_refused_with_the_file_and_the_fault(key: str, value: Any, message: str) -> None:
    entries = {k: v for k, v in ENTRIES.items() if k != "YWI="} | {key: value}
    if key == "YWJ=":  # another spelling of the same bytes, where base64 is lax about the unused bits
        entries = ENTRIES | {key: [263, "ab", 9]}
    with pytest.raises(ValueError, match=f"odd.model.*({message})"):
        read(json.dumps(entries).encode(), "odd.model")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (FILE[:-20], "may be cut off"),
        (FILE.replace(b'"YWI="', b'"AA=="'), "'AA==' occurs twice"),
        (FILE.replace(b"the ", b"th\xff "), "not UTF-8 at byte"),
        (b"[1, 2]", "a list, not an object"),
        (b"{}", "256 of the 256 single bytes"),
        (b'{"YWI=": ' + b"[" * 100_000, "not a JSON object"),
        (zipped(model=FILE)[:-30], "zip cannot be read"),
        (zipped(model=FILE, other=b"{}"), "holds 2 files"),
        (zipped(), "holds 0 files"),
        (zipped(model=b"no JSON"), "not a JSON object"),
    ],
)
def test_damaged_files_are_refused_with_the_file_and_the_fault(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"odd.model.*{message}"):
        read(data, "odd.model")


def test_a_damaged_zip_member_is_refused() -> None:
    data = bytearray(zipped(model=FILE))
    data[200] ^= 0xFF
    with pytest.raises(ValueError, match=r"odd.zip: the zip cannot be read"):
        read(bytes(data), "odd.zip")


def test_a_missing_single_byte_is_named() -> None:
    entries = {k: v for k, v in ENTRIES.items() if k != base64.b64encode(b"A").decode()}
    for i, value in enumerate(entries.values()):
        value = value.copy()
        value[0] = 3 + i
        entries[list(entries)[i]] = value
    with pytest.raises(ValueError, match=r"odd.model: 1 of the 256 single bytes .*0x41"):
        read(json.dumps(entries).encode(), "odd.model")


def test_zip_bombs_are_refused_before_they_unfold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_UNZIPPED_BYTES", 1 << 20)
    bomb = zipped(model=b" " * ((1 << 20) + 1))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("the archive was unfolded"))
    with pytest.raises(ValueError, match=r"bomb.zip: model would unzip to 1048577 bytes"):
        read(bomb, "bomb.zip")


def test_no_more_of_a_zip_is_unfolded_than_it_declares() -> None:
    bomb = bytearray(zipped(model=b" " * (64 << 20)))
    directory = bomb.rindex(b"PK\x01\x02")
    bomb[directory + 24 : directory + 28] = struct.pack("<I", 1000)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb.zip: the zip cannot be read \(Bad CRC-32"):
        read(bytes(bomb), "bomb.zip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_whose_unfolding_cannot_be_bounded_is_refused(method: int) -> None:
    with pytest.raises(ValueError, match=r"odd.zip: model is compressed by a method other than deflate; unzip it"):
        read(zipped(method, model=FILE), "odd.zip")


def test_a_zip_whose_names_are_no_text_is_refused() -> None:
    data = bytearray(zipped(model=FILE))
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 9] |= 8  # the name is said to be UTF-8
    data[directory + 46] = 0xFF
    with pytest.raises(ValueError, match=r"odd.zip: the zip cannot be read"):
        read(bytes(data), "odd.zip")
    data = bytearray(zipped(model=FILE))
    data[directory + 28], data[directory + 32] = 0, len("model")  # no name, but a comment in its place
    with pytest.raises(ValueError, match=r"odd.zip: the zip cannot be read"):
        read(bytes(data), "odd.zip")


def test_a_key_twice_is_found_by_looking_at_each_once() -> None:
    class Key(str):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Key.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    pairs: list[tuple[str, Any]] = [(Key(i), 0) for i in range(2000)]
    with pytest.raises(ValueError, match="the key '1998' occurs twice"):
        reader._unique_keys([*pairs, (Key(1998), 0)])
    assert Key.compared < 100


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("", []),
        ("\n", ["\n"]),
        ("a", ["a"]),
        ("a\n", ["a\n"]),
        ("\n\na", ["\n\n", "a"]),
        ("a\n\nb\nc", ["a\n\n", "b\n", "c"]),
        ("a\r\nb\x0b\x0c\x85\u2028\u2029\x1cc\rd", ["a\r\n", "b\x0b\x0c\x85\u2028\u2029\x1cc\rd"]),
        ("e\u0301\ne\u0301\u0323", ["é\n", "ẹ\u0301"]),
        ("\u212b\n\u0301", ["Å\n", "\u0301"]),
        ("\u1100\u1161\u11a8", ["각"]),
        ("가\u11a8", ["각"]),
        ("\u0958", ["क\u093c"]),
        ("か\u3099", ["が"]),
        ("\U0002f800", ["丽"]),
        ("\U0001d15e", ["\U0001d157\U0001d165"]),
    ],
)
def test_nfc_and_lines_have_their_literal_values(text: str, chunks: list[str]) -> None:
    for around in ("", "漢", "x"):  # alone, and where other documents stand around it
        docs, got = normalized([around, text, around])
        expected = [around, "".join(chunks), around]
        assert [doc.decode() for doc in docs] == expected
        assert [chunk.decode() for chunk in got] == [
            chunk for chunk in ([around], chunks, [around]) for chunk in chunk if chunk
        ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff", "\ufffd"),
        (b"a\xc3", "a\ufffd"),
        (b"\xe7\x9a", "\ufffd\ufffd"),
        (b"\xe7\x9a\xc3\xa9", "\ufffd\ufffdé"),
        (b"\xc0\x80\xc1\xbf", "\ufffd" * 4),
        (b"\xe0\x9f\xbf", "\ufffd" * 3),
        (b"\xed\xa0\x80|\xed\x9f\xbf", "\ufffd\ufffd\ufffd|\ud7ff"),
        (b"\xf0\x8f\xbf\xbf", "\ufffd" * 4),
        (b"\xf4\x8f\xbf\xbf", "\U0010ffff"),
        (b"\xf4\x90\x80\x80\xf5\x80", "\ufffd" * 6),
        (b"e\xcc\x81\n\x80e\xcc\x81", "é\n\ufffdé"),
        (b"\n\xff\n\n\xff", "\n\ufffd\n\n\ufffd"),
    ],
)
def test_every_malformed_byte_becomes_a_replacement_character(data: bytes, expected: str) -> None:
    docs, chunks = normalized([b"ok", data, b""])
    assert docs == [b"ok", expected.encode(), b""]
    assert b"".join(chunks) == b"ok" + expected.encode()


def test_null_documents_come_out_empty_and_slices_start_at_zero() -> None:
    for word in ("ab", "e\u0301"):
        array = pa.array(["skipped", word, None, "", f"{word}\n{word}"]).slice(1)
        docs, chunks = normalized(array)
        word = unicodedata.normalize("NFC", word)
        assert [doc.decode() for doc in docs] == [word, "", "", f"{word}\n{word}"]
        assert [chunk.decode() for chunk in chunks] == [word, f"{word}\n", word]
    assert normalized([]) == ([], [])


def test_threads_and_ranges_do_not_change_a_byte() -> None:
    texts = [("plain line\n" * 3000, "e\u0301\n" * 9000, "漢字\n" * 5000, b"\xff\n" * 4000)[i % 4] for i in range(40)]
    batch = TextBatch.from_texts(texts)
    one, four = normalize(batch, 1), normalize(batch, 4)
    assert one.values.tobytes() == four.values.tobytes()
    assert one.offsets.tolist() == four.offsets.tolist()
    assert one.chunk_offsets is not None
    assert four.chunk_offsets is not None
    assert one.chunk_offsets.tolist() == four.chunk_offsets.tolist()


def test_inert_characters_are_those_that_nfc_never_touches() -> None:
    inert = np.unpackbits(inert_code_points(), bitorder="little").astype(bool)
    assert len(inert) == 0x110000
    for c in np.flatnonzero(inert).tolist():
        character = chr(c)
        assert unicodedata.combining(character) == 0
        assert unicodedata.is_normalized("NFC", character)
    assert inert[:0x300].all()
    assert not inert[[0x300, 0x340, 0x9BE, 0x1161, 0x11A8, 0x212B, 0x3099, 0xFB1D, 0x2F800, 0xD800, 0xFFFF]].any()
    # A character that begins a decomposition of two and ends none is safe to cut before; one that ends one is not.
    for c in range(sys.maxunicode + 1):
        mapping = unicodedata.decomposition(chr(c))
        if mapping and not mapping.startswith("<"):
            assert not inert[[int(code, 16) for code in mapping.split()[1:]]].any()


AWKWARD = st.sampled_from(
    "aeñ\n\n\r\u2028\u0085\u0301\u0323\u0327\u1100\u1161\u11a8가\u212b\u0344\u0958क\u093c\u09c7\u09be\ufb1d漢\U0002f800か\u3099"
)


@settings(max_examples=200)
@given(
    st.lists(
        st.text(st.one_of(AWKWARD, AWKWARD, st.characters(codec="utf-8", exclude_categories=["Cs", "Cn"]))), max_size=6
    )
)
def test_documents_are_pythons_nfc_and_chunks_are_lines_with_their_newlines(texts: list[str]) -> None:
    docs, chunks = normalized(texts)
    expected = [unicodedata.normalize("NFC", text) for text in texts]
    assert [doc.decode() for doc in docs] == expected
    lines = []
    for text in expected:
        start = 0
        for i in range(1, len(text) + 1):
            if i == len(text) or (text[i - 1] == "\n" and text[i] != "\n"):
                lines.append(text[start:i])
                start = i
    assert [chunk.decode() for chunk in chunks] == lines


MARKS = [chr(c) for c in range(0x110000) if unicodedata.combining(chr(c))]
LONG_MARKS = {
    "all marks": MARKS,
    "two classes": ["\u0301", "\u0323"],
    "marks of several": ["\u0344", "\u0f73", "\u0f81", "\u0345", "\u0334"],
    "starters among them": ["\u0301", "\u0323", "\u09be", "\u1161", "\u11a8", "\u0958", "\u2126", "\u0f73"],
}


@pytest.mark.parametrize("name", LONG_MARKS)
@pytest.mark.parametrize("size", [60, 64, 65, 66, 1000])
def test_long_sequences_of_marks_are_pythons_nfc(name: str, size: int) -> None:
    generator = random.Random(size)
    texts = []
    for before, after in [("", ""), ("é", "x\u0301"), ("a\u0301b", "漢\n"), ("\u1100\u1161", "\u0338" * 70)]:
        marks = generator.choices(LONG_MARKS[name], k=size)
        texts += [before + "".join(marks) + after, "plain", before + "".join(sorted(marks)) + after * 2]
    assert [doc.decode() for doc in normalized(texts)[0]] == [unicodedata.normalize("NFC", text) for text in texts]


@pytest.mark.parametrize("name", LONG_MARKS)
def test_nfc_takes_a_time_that_is_linear_in_the_marks(name: str) -> None:
    text = "a" + "".join(random.Random(1).choices(LONG_MARKS[name], k=200_000))
    normalize(TextBatch.from_texts([text[:1000]]))
    before = time.process_time()
    [doc], _ = normalized([text])
    assert time.process_time() - before < 5
    decomposed = "".join(unicodedata.normalize("NFD", c) for c in text)
    groups = groupby(decomposed, lambda c: unicodedata.combining(c) > 0)
    ordered = "".join("".join(sorted(group, key=unicodedata.combining)) for _, group in groups)
    # In order, Python's takes no longer either.
    assert doc.decode() == unicodedata.normalize("NFC", ordered)


@settings(max_examples=100)
@given(st.text(AWKWARD))
def test_chunks_are_those_of_bytepiece(text: str) -> None:
    tool = pytest.importorskip("bytepiece.bytepiece", reason="bytepiece is not installed")
    assert normalized([text])[1] == tool.normalize(text)


@pytest.mark.parametrize("name", ["bytepiece.plus.40k.zip", "bytepiece_80k.zip", "bytepiece.eu.plus.160k.zip"])
def test_published_models_have_the_ids_and_the_doubles_of_bytepiece(name: str, shared_data: Any) -> None:
    tool = pytest.importorskip("bytepiece", reason="bytepiece is not installed")
    data = (shared_data / "models" / name).read_bytes()
    vocabulary = read(data, name).vocabulary
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        tokenizer = tool.Tokenizer(json.loads(archive.read(archive.namelist()[0])))
    assert len(vocabulary) == tokenizer.vocab_size
    assert vocabulary.surfaces[3:] == [tokenizer.id_to_piece(i) for i in range(3, len(vocabulary))]
    doubles = [tokenizer._automaton.get(surface)[1] for surface in vocabulary.surfaces[3:]]
    assert vocabulary.best_scores[3:].tolist() == doubles
    assert vocabulary.scores[3:] == pytest.approx(vocabulary.best_scores[3:], rel=1e-14)


@pytest.mark.parametrize("name", ["wikitext2_valid.txt", "wagahai.txt", "chinese_msr.txt", "code_python.txt"])
def test_real_text_is_chunked_as_bytepiece_does(name: str, shared_data: Any) -> None:
    tool = pytest.importorskip("bytepiece.bytepiece", reason="bytepiece is not installed")
    text = (shared_data / "text" / name).read_bytes().decode(errors="ignore")
    texts = [text[i : i + 5000] for i in range(0, len(text), 5000)]
    assert normalized(texts)[1] == [chunk for part in texts for chunk in tool.normalize(part)]
