"""The SentencePiece reader against the sentencepiece package and against damaged files."""

import io
import math
from itertools import pairwise

import numpy as np
import pytest
import sentencepiece
from handmade import field, varint
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece_files import (
    ADD_DUMMY_PREFIX,
    AS_SUFFIX,
    BYTE,
    BYTE_FALLBACK,
    BYTES,
    CHARSMAP,
    CONTROL,
    ESCAPE,
    MODEL_TYPE,
    NORMAL,
    REMOVE_EXTRA,
    UNK,
    UNK_SURFACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    A,
    model_bytes,
    piece,
    spec,
)

from gpu_lattice.decoding import Detokenizer
from gpu_lattice.models import sentencepiece as reader
from gpu_lattice.vocabulary import Kind


@pytest.fixture(scope="module")
def trained() -> bytes:
    lines = ["the cat sat on the mat", "a cat and a hat", "that is the hat of the cat"] * 5
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    return out.getvalue()


def test_vocabulary_has_names_kinds_ids_and_scores_of_sentencepiece(trained):
    vocabulary = reader.read(trained, "trained.model").vocabulary
    tool = sentencepiece.SentencePieceProcessor(model_proto=trained)
    assert len(vocabulary) == tool.get_piece_size()
    for i_piece, name in enumerate(vocabulary.names):
        assert name == tool.id_to_piece(i_piece)
        assert vocabulary.id_of[name] == tool.piece_to_id(name)
        assert vocabulary.scores[i_piece] == tool.get_score(i_piece)
    assert vocabulary.kinds[:4].tolist() == [Kind.UNKNOWN, Kind.CONTROL, Kind.CONTROL, Kind.NORMAL]
    assert vocabulary.in_lattice.tolist() == [False] * 3 + [True] * (len(vocabulary) - 3)
    assert vocabulary.surfaces[:3] == [b"", b"", b""]
    assert vocabulary.surfaces[3:] == [name.encode() for name in vocabulary.names[3:]]
    assert vocabulary.scores.dtype == np.float64
    assert vocabulary.best_scores.dtype == np.float32
    assert np.array_equal(vocabulary.scores, vocabulary.best_scores)
    assert vocabulary.unk_id == 0
    assert vocabulary.byte_ids is None
    assert (vocabulary.symbols, vocabulary.unknown_runs) == ("characters", "merge")


def test_an_unknown_scores_ten_below_the_lowest_normal_piece_in_float32():
    low = -7.123456
    data = model_bytes(UNK, A, piece("b", low), piece("c", -90.0, UNUSED), piece("d", -99.0, USER_DEFINED))
    vocabulary = reader.read(data, "m.model").vocabulary
    expected = float(np.float32(low) - np.float32(10))
    assert vocabulary.unk_score == vocabulary.best_unk_score == expected


def test_user_defined_scores_count_bytes_to_encode_and_characters_to_sample():
    data = model_bytes(UNK, A, piece("猫猫", -3.0, USER_DEFINED), piece("abcd", -3.0, USER_DEFINED))
    vocabulary = reader.read(data, "m.model").vocabulary
    assert vocabulary.best_scores[2:].tolist() == [np.float32(0.5), np.float32(0.1 * 3)]
    assert vocabulary.scores[2:].tolist() == [float(np.float32(0.1)), float(np.float32(0.1 * 3))]
    assert vocabulary.in_lattice.tolist() == [False, True, True, True]


def test_unused_pieces_have_ids_but_are_not_in_the_lattice():
    vocabulary = reader.read(model_bytes(UNK, A, piece("b", -1.0, UNUSED)), "m.model").vocabulary
    assert vocabulary.in_lattice.tolist() == [False, True, False]
    assert vocabulary.id_of["b"] == 2


def test_a_name_that_is_control_and_normal_resolves_to_the_control_id():
    data = model_bytes(UNK, piece("a", -2.0), piece("a", 0.0, CONTROL))
    vocabulary = reader.read(data, "m.model").vocabulary
    assert vocabulary.id_of["a"] == sentencepiece.SentencePieceProcessor(model_proto=data).piece_to_id("a") == 2
    assert vocabulary.in_lattice.tolist() == [False, True, False]
    assert vocabulary.surfaces == [b"", b"a", b""]


def test_byte_pieces_have_one_byte_and_no_arc():
    data = model_bytes(UNK, A, *BYTES, piece("<0x41>", -2.0), trainer={BYTE_FALLBACK: 1})
    vocabulary = reader.read(data, "m.model").vocabulary
    assert vocabulary.byte_ids.tolist() == list(range(2, 258))
    assert vocabulary.surfaces[2:258] == [bytes([byte]) for byte in range(256)]
    assert not vocabulary.in_lattice[2:258].any()
    assert vocabulary.surfaces[258] == b"<0x41>"
    assert vocabulary.id_of["<0x41>"] == 2 + 0x41


def test_byte_fallback_needs_no_unknown_piece():
    assert reader.read(model_bytes(A, *BYTES, trainer={BYTE_FALLBACK: 1}), "m.model").vocabulary.unk_id is None


def test_a_zero_byte_piece_is_unused_with_byte_fallback():
    data = model_bytes(UNK, A, piece(b"\0"), *BYTES, trainer={BYTE_FALLBACK: 1})
    vocabulary = reader.read(data, "m.model").vocabulary
    assert vocabulary.kinds[2] == Kind.UNUSED
    assert not vocabulary.in_lattice[2]


def test_unknown_fields_are_passed_over():
    extra = field(200, b"abc") + field(201, 7) + field(202, 1.0) + varint(203 << 3 | 1) + b"12345678"
    assert reader.read(model_bytes(UNK, A) + extra, "m.model").vocabulary.names == ["<unk>", "a"]


def test_pieces_of_any_form_are_read_as_sentencepiece_reads_them():
    """Fields in any order and more than once, others beside them, long ones, and other fields between the pieces."""
    text, score, kind = field(1, b"ab"), field(2, -1.5), field(3, NORMAL)
    forms = [
        field(1, score + kind + field(1, b"c")),
        field(1, field(1, b"zz") + text + field(2, -9.0) + score),
        field(1, field(1, b"d") + field(7, b"later") + field(8, 300) + varint(9 << 3 | 1) + b"12345678" + score),
        field(1, field(1, b"e" * 127) + score),
        field(1, field(1, b"f" * 128) + score),
        field(1, field(1, b"g" * 7000) + score),
        field(1, field(1, b"h")),
        field(1, field(1, "é猫".encode()) + b"\x18\x81\x00" + score),
        b"\x0a\x83\x00" + field(1, b"i"),
    ]
    other = spec(2, {MODEL_TYPE: 1}) + field(200, 7)
    for data in (UNK + b"".join(forms), UNK + other.join(forms) + other, b"".join(reversed(forms)) + UNK):
        vocabulary, tool = (
            reader.read(data, "m.model").vocabulary,
            sentencepiece.SentencePieceProcessor(model_proto=data),
        )
        ids = range(tool.get_piece_size())
        assert vocabulary.names == [tool.id_to_piece(i) for i in ids]
        assert vocabulary.scores.tolist() == [tool.get_score(i) for i in ids]
        assert vocabulary.kinds[vocabulary.id_of["ab"]] == Kind.NORMAL


REFUSED_BY_BOTH = {
    "only unk": (model_bytes(UNK), "it has no pieces"),
    "only an unused zero byte": (model_bytes(UNK, piece(b"\0", 0.0, UNUSED)), "it has no pieces"),
    "no unknown": (model_bytes(A), "it has no unknown piece"),
    "two unknown": (model_bytes(UNK, piece("<u>", 0.0, UNKNOWN), A), "pieces 0 and 1 are both the unknown piece"),
    "duplicate": (model_bytes(UNK, A, A), "pieces 1 and 2 are the same: 'a'"),
    "duplicate of an unused": (model_bytes(UNK, A, piece("a", 0.0, UNUSED)), "pieces 1 and 2 are the same: 'a'"),
    "duplicate control": (model_bytes(UNK, A, *[piece("<s>", 0.0, CONTROL)] * 2), "pieces 2 and 3 are the same"),
    "nan": (model_bytes(UNK, piece("a", math.nan)), "the score of piece 1 is nan"),
    "infinite": (model_bytes(UNK, A, piece("<s>", -math.inf, CONTROL)), "the score of piece 2 is -inf"),
    "empty piece": (model_bytes(UNK, A, piece("")), "piece 2 is empty"),
    "zero byte": (model_bytes(UNK, A, piece(b"\0")), "piece 2 holds a zero byte"),
    "zero byte inside": (model_bytes(UNK, A, piece(b"a\0", 0.0, UNUSED)), "piece 2 holds a zero byte"),
    "long piece": (model_bytes(UNK, A, piece("a" * 8000)), "piece 2 has 8000 bytes"),
    "byte piece": (model_bytes(UNK, A, BYTES[65]), "piece 2, '<0x41>', is a byte but byte_fallback is off"),
    "byte missing": (
        model_bytes(UNK, A, *BYTES[:65], *BYTES[66:], trainer={BYTE_FALLBACK: 1}),
        "the byte piece <0x41> is missing",
    ),
    "bad byte name": (
        model_bytes(UNK, A, *BYTES, piece("<0x4a>", 0.0, BYTE), trainer={BYTE_FALLBACK: 1}),
        "piece 258 is of type byte but named '<0x4a>'",
    ),
    "endless number": (model_bytes(UNK, A) + b"\x80" * 20, "does not end"),
    "cut short": (model_bytes(UNK, A)[:-1], "declares 10 bytes where 9 are left"),
    "huge length": (model_bytes(UNK, A) + b"\x0a" + varint(1 << 63), f"declares {1 << 63} bytes where 0 are left"),
    "field zero": (model_bytes(UNK, A) + b"\x00\x01", "field 0"),
    "stray group end": (model_bytes(UNK, A) + varint(200 << 3 | 4), "wire type 4"),
    "short charsmap": (model_bytes(UNK, A, normalizer={CHARSMAP: b"abc"}), "too few for its header"),
    "false charsmap": (model_bytes(UNK, A, normalizer={CHARSMAP: b"abcdefgh"}), "declares an array of"),
}


@pytest.mark.parametrize("case", REFUSED_BY_BOTH)
def test_what_sentencepiece_refuses_is_refused_with_the_reason(case):
    data, reason = REFUSED_BY_BOTH[case]
    with pytest.raises(RuntimeError):
        sentencepiece.SentencePieceProcessor(model_proto=data)
    with pytest.raises(ValueError, match=r"^m\.model: ") as error:
        reader.read(data, "m.model")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (model_bytes(UNK, A, trainer={MODEL_TYPE: 3}), "it is a word model"),
        (model_bytes(UNK, A, trainer={MODEL_TYPE: 4}), "it is a character model"),
        (model_bytes(UNK, A, trainer={MODEL_TYPE: 9}), "it is a type-9 model"),
        (model_bytes(UNK, A, piece("b", 0.0, 9)), "piece 2 is of the unknown type 9"),
        (model_bytes(UNK, A, piece(b"\xe3\x81")), "piece 2 is not UTF-8"),
        (model_bytes(UNK, A, trainer={UNK_SURFACE: b"\xff"}), "unk_surface is not UTF-8"),
        (model_bytes(UNK, A, field(1, field(1, 5))), "field 1 at byte 30 has wire type 0"),
        (model_bytes(UNK, A, trainer={BYTE_FALLBACK: b"1"}), "wire type 2"),
        (b"", "it has no pieces"),
    ],
)
def test_other_models_and_types_are_refused_with_the_reason(data, reason):
    with pytest.raises(ValueError, match=r"^m\.model: ") as error:
        reader.read(data, "m.model")
    assert reason in str(error.value)


def loads_or_says_why(data: bytes) -> None:
    """Nothing but a Model or a ValueError that names the file may come out."""
    reader.looks_like(data)
    try:
        reason, size = "m.model: ", len(reader.read(data, "m.model").vocabulary)
    except ValueError as error:
        reason, size = str(error), 1
    assert reason.startswith("m.model: ")
    assert size > 0


SMALL = model_bytes(
    UNK, A, piece("▁b", -2.0), piece("<s>", 0.0, CONTROL), piece("猫", 0.0, USER_DEFINED), normalizer={REMOVE_EXTRA: 0}
)


def test_a_file_cut_anywhere_loads_or_says_why(trained):
    for stop in range(len(SMALL)):
        loads_or_says_why(SMALL[:stop])
    for stop in range(0, len(trained), 997):
        loads_or_says_why(trained[:stop])


@settings(max_examples=300)
@given(st.integers(0, len(SMALL) - 1), st.integers(0, 255), st.binary(max_size=3))
def test_a_changed_file_loads_or_says_why(at, byte, inserted):
    loads_or_says_why(SMALL[:at] + bytes([byte]) + SMALL[at + 1 :])
    loads_or_says_why(SMALL[:at] + inserted + SMALL[at:])


@settings(max_examples=300)
@given(st.binary(max_size=100))
def test_any_bytes_load_or_say_why(data):
    loads_or_says_why(data)
    loads_or_says_why(b"\x0a" + data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n",
        b"\n\n\n{}",
        b"{}",
        b'{"version": "1.0"}',
        b"PK\x03\x04",
        b"hello",
        b"\xff" * 20,
        b"\x0a\x05ab",
    ],
)
def test_other_files_do_not_look_like_models(data):
    assert not reader.looks_like(data)


def test_models_look_like_models_wherever_their_specs_stand(trained):
    assert reader.looks_like(trained)
    assert reader.looks_like(SMALL)
    assert reader.looks_like(spec(2, {MODEL_TYPE: 1}) + SMALL)


DECODE_PIECES = [
    UNK,
    piece("<s>", 0.0, CONTROL),
    *[piece(text, -1.0) for text in ("▁", "▁▁", "▁a", "b", "c▁", "▁d▁e", "▁▁f", "あ")],
    piece("g▁", 0.0, USER_DEFINED),
    piece("h", 0.0, UNUSED),
    *BYTES,
]


@pytest.mark.parametrize("add_dummy_prefix", [0, 1])
@pytest.mark.parametrize("remove_extra", [0, 1])
@pytest.mark.parametrize("as_suffix", [0, 1])
def test_decoder_writes_what_sentencepiece_writes(add_dummy_prefix, remove_extra, as_suffix):
    data = model_bytes(
        *DECODE_PIECES,
        trainer={BYTE_FALLBACK: 1, AS_SUFFIX: as_suffix, UNK_SURFACE: "⁇".encode()},
        normalizer={ADD_DUMMY_PREFIX: add_dummy_prefix, REMOVE_EXTRA: remove_extra},
    )
    tool = sentencepiece.SentencePieceProcessor(model_proto=data)
    rng = np.random.default_rng(0)
    byte_ids = [12 + byte for byte in [*"▁あ".encode(), 0x20, 0x41, 0xED, 0xA0, 0xF0, 0x9F]]
    choices = np.array([*range(12)] * 2 + byte_ids)
    rows = [rng.choice(choices, size=rng.integers(0, 9)).tolist() for _ in range(2000)]
    assert Detokenizer(reader.read(data, "m.model"))(rows) == [tool.decode(row) for row in rows]


def test_decoder_applies_the_denormalizer(trained):
    charsmap = next(
        trained[a:b]
        for number, start, stop in reader._fields(trained, 0, len(trained), {})
        if number == 3
        for inner, a, b in reader._fields(trained, start, stop, {})
        if inner == CHARSMAP
    )
    rules = {CHARSMAP: charsmap, ADD_DUMMY_PREFIX: 0, REMOVE_EXTRA: 0, ESCAPE: 0}
    data = model_bytes(UNK, piece("▁", -1.0), piece("Ａ", -1.0), denormalizer=rules)
    tool = sentencepiece.SentencePieceProcessor(model_proto=data)
    rows = [[2, 1, 2], [1, 1, 2], [0], []]
    assert Detokenizer(reader.read(data, "m.model"))(rows) == [tool.decode(row) for row in rows]
    assert tool.decode([2, 1, 2]) == "A A"


def test_shared_models_are_read_as_sentencepiece_reads_them(shared_data):
    paths = sorted((shared_data / "models").glob("*.model"))
    assert paths
    for path in paths:
        vocabulary = reader.read(path.read_bytes(), path.name).vocabulary
        tool = sentencepiece.SentencePieceProcessor(model_file=str(path))
        ids = range(tool.get_piece_size())
        assert vocabulary.names == [tool.id_to_piece(i) for i in ids]
        assert [vocabulary.id_of[name] for name in vocabulary.names] == [tool.piece_to_id(n) for n in vocabulary.names]
        is_model_score = vocabulary.kinds != Kind.USER_DEFINED
        expected = np.array([tool.get_score(i) for i in ids])
        assert np.array_equal(vocabulary.scores[is_model_score], expected[is_model_score])
        surfaces = [s for s, used in zip(vocabulary.surfaces, vocabulary.in_lattice, strict=True) if used]
        assert all(a < b for a, b in pairwise(sorted(surfaces)))
