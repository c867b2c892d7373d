"""What compiled code is given is sound: arrays that anybody made are checked at the door, or refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gpu_lattice import Lattice, RaggedLattice, TextBatch, TokenBatch, Tokenizer
from gpu_lattice.corpus.retokenize import retokenize
from gpu_lattice.kernels.cpu.bulk.verify import first_misspelled
from gpu_lattice.literature import bpe_dropout
from gpu_lattice.runtime.arguments import checked_alpha, checked_doc_ids, checked_integer, read_only
from gpu_lattice.show.portrait import portrait
from gpu_lattice.show.preview import preview

VALUES = np.frombuffer(b"abbaabba", np.uint8)
BAD_OFFSETS = [
    ([0, 10**9, 8], "must never decrease"),
    ([0, 5, 3], "from 5 to 3 in row 1"),
    ([0, 4, 9], "end at 9, but there are 8 values"),
    ([0, 10**9], "end at 1000000000"),
    ([-4, 4], "begin at -4"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_pieces({"a": -1.0, "b": -2.0, "ab": -2.5, "漢": -9.0}, device="cpu", threads=2)


def arrow(kind: pa.DataType, offsets: Any, values: bytes, validity: bytes | None = None) -> pa.Array:
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    buffers = [validity, np.array(offsets, np.int64 if wide else np.int32), values]
    return pa.Array.from_buffers(
        kind, len(offsets) - 1, [None if buffer is None else pa.py_buffer(buffer) for buffer in buffers]
    )


def every_use(tokenizer: Tokenizer, texts: Any) -> list[Callable[[], Any]]:
    return [
        lambda: tokenizer.encode(texts),
        lambda: tokenizer.sample(texts, alpha=0.2, seed=0),
        lambda: tokenizer.nbest(texts, 2),
        lambda: tokenizer.lattice(texts),
        lambda: tokenizer.continuations(texts),
        lambda: tokenizer.normalize(texts),
        lambda: tokenizer.verify(texts, TokenBatch(np.zeros(2, np.int32), np.array([0, 1, 2]))),
    ]


@pytest.mark.parametrize(("offsets", "message"), BAD_OFFSETS)
def test_text_batches_with_other_offsets_are_refused(tokenizer: Tokenizer, offsets: Any, message: str) -> None:
    for use in every_use(tokenizer, TextBatch(VALUES, np.array(offsets))):
        with pytest.raises(ValueError, match=message):
            use()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()], ids=str)
@pytest.mark.parametrize("offsets", [[0, 10**9, 8], [0, -4, 4], [0, 6, 5, 8]], ids=str)
def test_arrow_arrays_with_other_offsets_are_refused(tokenizer: Tokenizer, kind: pa.DataType, offsets: Any) -> None:
    array = arrow(kind, offsets, bytes(VALUES))
    for texts in (array, pa.chunked_array([pa.array(["a"], kind), array])):
        for use in every_use(tokenizer, texts):
            with pytest.raises(ValueError, match="offsets"):
                use()
    words = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), array)
    with pytest.raises(ValueError, match="offsets"):
        tokenizer.encode(words)


def test_arrow_arrays_that_begin_before_their_buffers_are_refused(tokenizer: Tokenizer) -> None:
    buffers = [pa.py_buffer(b"\1"), pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(bytes(VALUES))]
    array = pa.Array.from_buffers(pa.string(), 1, buffers, null_count=1, offset=-1)
    with pytest.raises(ValueError, match="it begins at -1"):
        tokenizer.encode(array)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()], ids=str)
def test_views_are_followed_within_their_buffers_only(tokenizer: Tokenizer, kind: pa.DataType) -> None:
    long = "ab" * 20
    assert tokenizer.encode(pa.array(["ab", long, None], kind)).tolist() == [[2], [2] * 20, None]
    for length, i_buffer, start in ((100, 0, 0), (40, 7, 0), (40, 0, 10**6), (-1, 0, 0)):
        view = np.array([length, int.from_bytes(b"abab", "little"), i_buffer, start], np.int64).astype(np.int32)
        array = pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(view.tobytes()), pa.py_buffer(long.encode())])
        with pytest.raises(ValueError, match="damaged"):
            tokenizer.encode(array)


def test_bytes_that_are_no_utf8_are_texts_in_every_kind_of_arrow_array(tokenizer: Tokenizer) -> None:
    bytes_tokenizer = Tokenizer.from_pieces([bytes([byte]) for byte in range(256)], device="cpu")
    plain = arrow(pa.string(), [0, 2, 3], b"a\xff\xc3")
    expected = [[97, 255], [195]]
    for texts in (
        plain,
        plain.view(pa.binary()).cast(pa.binary_view()).view(pa.string_view()),
        plain.dictionary_encode(),
    ):
        assert bytes_tokenizer.encode(texts).tolist() == expected


def test_indices_of_words_that_are_not_there_are_refused(tokenizer: Tokenizer) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([0, 5]), pa.array(["a"]), safe=False)
    with pytest.raises(ValueError, match=r"damaged: .*5"):
        tokenizer.encode(words)


def test_chunks_of_every_kind_are_one_batch(tokenizer: Tokenizer) -> None:
    chunks = [["a", "bb"], [], [None, "ab"], ["漢"]]
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        array = pa.chunked_array([pa.array(chunk, kind) for chunk in chunks], kind)
        assert TextBatch.from_texts(array).tolist() == [b"a", b"bb", None, b"ab", "漢".encode()]
        assert TextBatch.from_texts(array.slice(1, 2)).tolist() == [b"bb", None]
    assert TextBatch.from_texts(pa.chunked_array([], pa.string())).tolist() == []


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (TextBatch(VALUES.view(np.int8), np.array([0, 8])), TypeError, "values are of dtype int8; give uint8"),
        (TextBatch(VALUES.astype(np.int64), np.array([0, 8])), TypeError, "values are of dtype int64"),
        (TextBatch(VALUES.reshape(2, 4), np.array([0, 2])), ValueError, r"values have the shape \[2, 4\]"),
        (TextBatch(VALUES, np.array([0.0, 8.0])), TypeError, "offsets are of dtype float64"),
        (TextBatch(VALUES, np.array([], np.int64)), ValueError, r"offsets have the shape \[0\]"),
        (TextBatch(VALUES, np.array([[0, 8]])), ValueError, r"offsets have the shape \[1, 2\]"),
        (TextBatch(VALUES, np.array([0, 2**63 + 8], np.uint64)), ValueError, "end at 9223372036854775816"),
        (TextBatch(VALUES, np.array([0, 8]), np.array([True, False])), ValueError, r"valid is of dtype bool .*\[2\]"),
        (TextBatch(VALUES, np.array([0, 8]), np.array([1])), ValueError, "valid is of dtype int64"),
    ],
)
def test_text_batches_of_other_arrays_are_refused_by_name(
    tokenizer: Tokenizer, batch: Any, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        tokenizer.encode(batch)


def test_whatever_a_batch_is_made_of_compiled_code_gets_arrays_of_one_type(tokenizer: Tokenizer) -> None:
    unaligned = np.frombuffer(b"." + np.array([2, 4, 8], np.int64).tobytes(), np.uint8)[1:].view(np.int64)
    several = [
        TextBatch(VALUES.copy(), np.array([2, 4, 8])),
        TextBatch(VALUES, np.array([2, 4, 8], np.int32)),
        TextBatch(VALUES, np.array([2, 4, 8], ">u2")),
        TextBatch(np.repeat(VALUES, 2)[::2], np.array([2, 0, 4, 0, 8])[::2]),
        TextBatch(VALUES, unaligned),
        arrow(pa.string(), [2, 4, 8], bytes(VALUES)),
        arrow(pa.large_string(), [2, 4, 8], bytes(VALUES)),
        ["ba", "abba"],
    ]
    for texts in several:
        batch = TextBatch.from_texts(texts)
        for array, dtype in ((batch.values, np.uint8), (batch.offsets, np.int64)):
            assert (type(array), array.dtype) == (np.ndarray, dtype)
            assert (array.flags.c_contiguous, array.flags.aligned, array.flags.writeable) == (True, True, False)
        assert batch.tolist() == [b"ba", b"abba"]
        assert tokenizer.encode(texts).tolist() == [[1, 0], [2, 1, 0]]
    assert several[0].values.flags.writeable, "the caller's own array stays as it is"


def test_a_null_document_of_a_batch_has_no_bytes(tokenizer: Tokenizer) -> None:
    batch = TextBatch(VALUES, np.array([0, 2, 5, 8]), np.array([True, False, True]))
    assert tokenizer.encode(batch).tolist() == [[2], None, [1, 1, 0]]
    assert TextBatch.from_texts(TextBatch.from_texts(batch)).tolist() == [b"ab", None, b"bba"]


@pytest.mark.parametrize("bad", [4, -1, 10**6, 2**31 - 1, -(2**31)])
def test_verify_names_the_row_of_an_id_that_does_not_exist(tokenizer: Tokenizer, bad: int) -> None:
    texts = ["ab", "a", "bab", "b"]
    good = tokenizer.sample(texts, alpha=0.0, num_samples=2, seed=0)
    for row in (0, 3, 7):
        ids = good.ids.copy()
        ids[good.offsets[row]] = bad
        assert tokenizer.verify(texts, TokenBatch(ids, good.offsets)) == row
        ids[good.offsets[2]] = 3
        assert tokenizer.verify(texts, TokenBatch(ids, good.offsets)) == min(row, 2)
    around = TokenBatch(np.concatenate([[bad], good.ids, [bad]]).astype(np.int32), good.offsets + 1)
    assert tokenizer.verify(texts, around) is None


@pytest.mark.parametrize(("offsets", "message"), BAD_OFFSETS)
def test_token_batches_with_other_offsets_are_refused(tokenizer: Tokenizer, offsets: Any, message: str) -> None:
    batch = TokenBatch(np.zeros(8, np.int32), np.array(offsets))
    texts = ["a"] * (len(offsets) - 1)
    lattice = tokenizer.lattice(texts)
    uses: list[Callable[[], Any]] = [
        lambda: tokenizer.verify(texts, batch), lambda: tokenizer.decode(batch), batch.to_arrow, batch.to_padded,
        lambda: lattice.log_prob(batch),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(ValueError, match=message):
            use()


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([[0]], TypeError, "rows of type list; give a TokenBatch"),
        (TokenBatch(np.zeros(1), np.array([0, 1])), TypeError, "ids are of dtype float64"),  # type: ignore[arg-type]
        (TokenBatch(np.array([[0]], np.int32), np.array([0, 1])), ValueError, r"ids have the shape \[1, 1\]"),
        (TokenBatch(np.array([2**32]), np.array([0, 1])), ValueError, "ids go from 4294967296"),  # type: ignore[arg-type]
        (TokenBatch(np.array([0], np.int32), np.array([0.0, 1.0])), TypeError, "offsets of ids are of dtype"),  # type: ignore[arg-type]
        (TokenBatch(np.array([0], np.int32), np.array([0, 1]), None, np.array([True] * 2)), ValueError, "valid is"),
    ],
)
def test_what_is_no_batch_of_tokens_is_refused(tokenizer: Tokenizer, out: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        tokenizer.verify(["a"], out)


def test_verify_compiles_once_whatever_the_arrays_are(tokenizer: Tokenizer) -> None:
    texts = ["ab", "ba"]
    out = tokenizer.encode(texts)
    tokenizer.verify(texts, out)
    signatures = list(first_misspelled.signatures)
    for ids in (out.ids.astype(np.int64), out.ids.astype(np.uint8), read_only(out.ids, np.int32)):
        assert tokenizer.verify(TextBatch.from_texts(texts), TokenBatch(ids, out.offsets.astype(np.int32))) is None
    assert first_misspelled.signatures == signatures


@pytest.mark.parametrize(
    "rows",
    ["39", b"ab", bytearray(b"ab"), memoryview(b"ab"), ["1", 2], [[3.7]], [3.0], [[1], "1"], [[1], b"1"], [1, [1]],
     [[1], 1], [[[1]]], 5, None, 1.5, {1: 2}, {1}, np.array([1.0]), np.array("ab"), np.array(3), np.array([["1"]]),
     pa.array([1.5]), pa.array(["a"]), [1, None], [[None]], iter([1, 2]), (i for i in [[1]]), map(int, "12"),
     [iter([1])]],
    # Not what they look like, which has addresses of memory in it: pytest-xdist wants the same names in every process.
    ids=lambda rows: type(rows).__name__,
)  # fmt: skip
def test_what_are_neither_ids_nor_pieces_is_not_decoded(tokenizer: Tokenizer, rows: Any) -> None:
    with pytest.raises(TypeError, match="rows"):
        tokenizer.decode(rows)


def test_sequences_and_arrays_of_integers_are_decoded(tokenizer: Tokenizer) -> None:
    for rows in ([0, 1], (0, 1), range(2), np.array([0, 1], np.uint8), pa.array([0, 1]), [np.int8(0), np.uint64(1)]):
        assert tokenizer.decode(rows) == "ab"
    for rows in ([[0], None, (1, 2)], pa.array([[0], None, [1, 2]]), [np.array([0]), None, range(1, 3)]):
        assert tokenizer.decode(rows) == ["a", None, "bab"]


def test_damaged_arrow_lists_are_not_decoded(tokenizer: Tokenizer) -> None:
    offsets = pa.py_buffer(np.array([0, 10**6, 2], np.int32))
    damaged = pa.Array.from_buffers(pa.list_(pa.int32()), 2, [None, offsets], children=[pa.array([0, 1], pa.int32())])
    for rows in (damaged, pa.chunked_array([damaged])):
        with pytest.raises(ValueError, match="rows is a damaged Arrow array"):
            tokenizer.decode(rows)
        with pytest.raises(ValueError, match="ids is a damaged Arrow array"):
            tokenizer.lattice(["a", "b"]).log_prob(rows)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"length": np.array([1, 1, 2**32 + 2])}, ValueError, "length holds 4294967298; give int32"),
        ({"length": np.array([1, 1, 2**64 - 1], np.uint64)}, ValueError, "length holds 18446744073709551615"),
        ({"length": np.array([1.0, 1.0, 2.0])}, TypeError, "length is of dtype float64"),
        ({"piece_id": np.array([0, 1, 2**32])}, ValueError, "piece_id holds 4294967296"),
        ({"piece_id": np.array([True, False, True])}, TypeError, "piece_id is of dtype bool"),
        ({"piece_id": np.array(["a", "b", "c"])}, TypeError, "piece_id is of dtype"),
        ({"row_splits": (np.array([0.0, 3.0]), np.array([0, 0, 1, 3]))}, TypeError, "row_splits is of dtype float64"),
        ({"row_splits": (np.array([0, 2**64 - 1], np.uint64), np.array([0, 0, 1, 3]))}, ValueError, "row_splits holds"),
        ({"row_splits": (np.array([0, 3]),)}, TypeError, "row_splits must be a pair"),
        ({"row_splits": 5}, TypeError, "row_splits must be a pair"),
        ({"is_cut": np.array([True, False])}, ValueError, r"is_cut must be bool \[3\]"),
        ({"is_cut": np.array([0.0, 0.0, 1.0])}, ValueError, "is_cut must be bool"),
        ({"is_cut": np.array([0, 4, 0])}, ValueError, "False wherever an arc spans"),
    ],
)
def test_ragged_lattices_that_would_wrap_are_refused(change: dict[str, Any], error: type, message: str) -> None:
    splits = np.array([0, 3]), np.array([0, 0, 1, 3])
    arrays: dict[str, Any] = {"piece_id": np.array([0, 1, 2]), "length": np.array([1, 1, 2]), "row_splits": splits}
    with pytest.raises(error, match=message):
        Lattice.from_ragged(RaggedLattice(**(arrays | change)))


def test_marks_of_cuts_are_true_or_false_whatever_their_number() -> None:
    arcs = np.array([0, 1]), np.array([1, 1]), (np.array([0, 3]), np.array([0, 0, 1, 2]))
    expected = Lattice.from_ragged(RaggedLattice(*arcs, np.array([True, True, True]))).to_ragged().is_cut.tolist()
    assert Lattice.from_ragged(RaggedLattice(*arcs, np.array([7, 255, 2]))).to_ragged().is_cut.tolist() == expected


@pytest.mark.parametrize("size", [1.5, "2", -1, 2**31])
def test_vocabularies_have_a_whole_number_of_ids(size: Any) -> None:
    arcs = RaggedLattice(np.array([0]), np.array([1]), (np.array([0, 2]), np.array([0, 0, 1])))
    with pytest.raises((TypeError, ValueError), match="vocab_size is"):
        Lattice.from_ragged(arcs, vocab_size=size)


def test_numbers_too_long_to_print_are_refused_all_the_same(tokenizer: Tokenizer) -> None:
    for alpha in (10**400, 10**5000, -(10**400)):
        with pytest.raises(ValueError, match=r"alpha is .*; give a finite number >= 0"):
            checked_alpha(alpha)
    with pytest.raises(ValueError, match="seed is an int of 16610 bits; give an integer from 0"):
        checked_integer("seed", 10**5000, 0, 2**64 - 1)
    with pytest.raises(ValueError, match="doc_ids"):
        checked_doc_ids([10**5000], 1)
    with pytest.raises(IndexError, match="id an int of 16610 bits"):
        tokenizer.id_to_piece(10**5000)
    with pytest.raises(ValueError, match="row 0 holds the id"):
        tokenizer.decode([10**5000])


@pytest.mark.parametrize("piece", [3, None, {"a"}, [3]])
def test_pieces_are_looked_up_by_name_and_ids_by_number(tokenizer: Tokenizer, piece: Any) -> None:
    with pytest.raises(TypeError, match="piece is"):
        tokenizer.piece_to_id(piece)
    with pytest.raises(TypeError, match=r"the id is 1\.5; give an integer"):
        tokenizer.id_to_piece(1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"use Tokenizer\.from_file"):
        Tokenizer(piece, device="cpu")


@pytest.mark.parametrize("tokenizer", ["spiece.model", None, 5, b"x"])
def test_a_path_is_no_tokenizer(tmp_path: Path, tokenizer: Any) -> None:
    uses: list[Callable[[], Any]] = [
        lambda: retokenize(tmp_path, tmp_path / "out", tokenizer=tokenizer),
        lambda: preview([tmp_path], tokenizer=tokenizer),
        lambda: portrait(tokenizer, "a"),
        lambda: bpe_dropout(tokenizer, "a"),
    ]
    for use in uses:
        with pytest.raises(TypeError, match=r"tokenizer is .*; give a Tokenizer, such as Tokenizer\.from_file"):
            use()


@pytest.mark.parametrize("value", [None, 0, 1, "x", [True]])
def test_a_flag_of_another_type_is_refused_and_compiles_nothing(tokenizer: Tokenizer, value: Any) -> None:
    lattice = tokenizer.lattice(["ab"])
    uses: list[Callable[..., Any]] = [
        lambda: tokenizer.sample(["ab"], return_log_prob=value, seed=0),
        lambda: tokenizer.sample(["ab"], nbest_size=2, return_log_prob=value, seed=0),
        lambda: lattice.sample(return_log_prob=value, seed=0),
        lambda: lattice.sample_nbest(2, return_log_prob=value),
    ]
    for use in uses:
        with pytest.raises(TypeError, match=r"return_log_prob is .*; give True or False"):
            use()


@pytest.mark.parametrize("i_docs", [1.0, [np.inf], [2**64], 10**400, [True], ["0"], [None]], ids=str)
def test_documents_are_taken_by_whole_numbers(tokenizer: Tokenizer, i_docs: Any) -> None:
    with pytest.raises((TypeError, IndexError)):
        tokenizer.lattice(["ab", "a"]).take(i_docs)


@pytest.mark.parametrize("batch", [TokenBatch([1], np.array([0, 1])), TokenBatch(np.array([1]), [0, 1])])  # type: ignore[arg-type]
def test_lists_are_no_arrays_of_tokens(batch: TokenBatch) -> None:
    with pytest.raises(TypeError, match="are a list; give an array"):
        batch.to_padded()


@pytest.mark.parametrize(
    ("name", "value"), [("pad_id", 2**31), ("pad_id", 0.5), ("max_length", "1"), ("max_length", -1)]
)
def test_padding_is_of_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{name} is"):
        TokenBatch(np.array([1], np.int32), np.array([0, 1])).to_padded(**{"pad_id": 0, name: value})


@pytest.mark.parametrize(
    "score", [10**400, -(10**5000), float("inf"), float("nan"), np.float32("inf"), 1.7e308], ids=range(6)
)
def test_scores_whose_sums_no_float_holds_are_refused(score: Any) -> None:
    with pytest.raises(ValueError, match=r"the score of 'a' is .*; give a finite number"):
        Tokenizer.from_pieces({"a": score}, device="cpu")


def test_numbers_of_samples_of_any_integer_type_are_like_python_s_own(tokenizer: Tokenizer) -> None:
    lattice = tokenizer.lattice(["abab", "ba"])
    for draw in (lattice.sample, lattice.viterbi_sample, lambda **options: lattice.sample_nbest(2, **options)):
        expected = draw(num_samples=2, alpha=0.5).tolist()
        for two in (pa.scalar(2), np.uint8(2), np.array(2)):
            assert draw(num_samples=two, alpha=0.5).tolist() == expected


class Elsewhere:
    """An array of a device that is neither the host nor a CUDA GPU, or one that is not handed over."""

    def __init__(self, kind: int) -> None:
        self._kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._kind, 0

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("it is in use")


@pytest.mark.parametrize(
    ("values", "offsets", "error", "message"),
    [
        (b"ab", [0, 2], TypeError, "offsets are a list; give an array with DLPack"),
        (b"ab", np.array([0, 2]), TypeError, "values are a bytes; give an array with DLPack"),
        (Elsewhere(8), np.array([0, 2]), TypeError, "values are on a device of DLPack's kind 8"),
        (
            Elsewhere(1),
            np.array([0, 2]),
            TypeError,
            "values are a Elsewhere that DLPack does not hand over: it is in use",
        ),
        (VALUES, np.array([0.0, 2.0]), TypeError, "offsets are of dtype float64; give int64"),
        (VALUES.view(np.int8), np.array([0, 2]), TypeError, "values are of dtype int8; give uint8"),
        (VALUES, np.array([0, 5, 2]), ValueError, "offsets go from 5 to 2 in row 1"),
        (VALUES, np.array([0, 99]), ValueError, "offsets end at 99, but there are 8 values"),
        (VALUES.reshape(2, 4), np.array([0, 2]), ValueError, r"values have the shape \[2, 4\]"),
    ],
)
def test_arrays_that_are_no_texts_are_refused(values: Any, offsets: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        TextBatch.from_dlpack(values, offsets)


def test_a_call_that_memory_does_not_hold_says_what_to_do(tokenizer: Tokenizer) -> None:
    with pytest.raises(MemoryError, match="; give fewer texts or samples at a time"):
        tokenizer.sample(["ab"] * 1000, alpha=0.1, num_samples=2**31 - 1, seed=0)
