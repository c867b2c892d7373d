"""What users call: construction, pieces, options, forms of input and output, and what importing costs."""

import doctest
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import DATA

import gpu_lattice
from gpu_lattice import TextBatch, TokenBatch, Tokenizer

PIECES = {"a": -1.0, "b": -2.0, "ab": -1.5, "漢": -3.0}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_pieces(PIECES, device="cpu")


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer",
        "token_batch",
        "text_batch",
        "kernels.fixed",
        "kernels.tables.trie",
        "runtime.threads",
        "runtime.seeds",
    ],
)
def test_examples_in_docstrings_are_true(name: str) -> None:
    module = importlib.import_module(f"gpu_lattice.{name}")
    result = doctest.testmod(module, extraglobs={"np": np, "pa": pa})
    assert result.attempted > 0
    assert result.failed == 0


def test_public_names_are_importable() -> None:
    names = ["Continuations", "Lattice", "PathBatch", "RaggedLattice", "TextBatch", "TokenBatch", "Tokenizer"]
    names.append("retokenize")
    assert gpu_lattice.__all__ == names
    assert all(hasattr(gpu_lattice, name) for name in gpu_lattice.__all__)
    assert gpu_lattice.__version__


def test_options_after_the_texts_are_keyword_only() -> None:
    for function, positional in [
        (Tokenizer.encode, ["self", "texts"]),
        (Tokenizer.sample, ["self", "texts"]),
        (Tokenizer.from_file, ["path"]),
        (Tokenizer.from_pieces, ["pieces"]),
        (Tokenizer.default, []),
    ]:
        parameters = inspect.signature(function).parameters.values()
        assert [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY] == positional
    defaults = {p.name: p.default for p in inspect.signature(Tokenizer.sample).parameters.values()}
    expected = {
        "alpha": 0.1,
        "nbest_size": -1,
        "num_samples": 1,
        "seed": None,
        "doc_ids": None,
        "return_log_prob": False,
    }
    assert {name: defaults[name] for name in expected} == expected


def test_pieces_have_ids_in_their_order(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 4
    assert [tokenizer.id_to_piece(i) for i in range(4)] == list(PIECES)
    assert [tokenizer.piece_to_id(piece) for piece in PIECES] == [0, 1, 2, 3]
    assert tokenizer.piece_to_id("no piece") is None
    assert Tokenizer.from_pieces(["a", "?"], unk_piece="?").piece_to_id("no piece") is None


@pytest.mark.parametrize("i", [-1, 4, 10**12])
def test_an_id_that_does_not_exist_is_an_index_error(tokenizer: Tokenizer, i: int) -> None:
    with pytest.raises(IndexError, match=f"id {i} of a model with ids 0 to 3"):
        tokenizer.id_to_piece(i)


def test_bytes_pieces_are_named_by_their_text_or_escapes() -> None:
    tokenizer = Tokenizer.from_pieces([b"a", b"\xe6\xbc", "漢".encode()])
    assert [tokenizer.id_to_piece(i) for i in range(3)] == ["a", "\\xe6\\xbc", "漢"]


@pytest.mark.parametrize(
    ("pieces", "unk_piece", "error", "message"),
    [
        ({}, None, ValueError, "pieces is empty"),
        ([], None, ValueError, "pieces is empty"),
        ([1, 2], None, TypeError, "int 1"),
        (["a", b"b"], None, TypeError, "mixes str with bytes"),
        (["a", ""], None, ValueError, "empty piece"),
        (["a", "b", "a"], None, ValueError, "'a' occurs twice|b'a' occurs twice"),
        ({"a": float("nan")}, None, ValueError, "score of 'a' is nan"),
        ({"a": -float("inf")}, None, ValueError, "score of 'a' is -inf"),
        ({"a": 0.0}, "?", ValueError, r"unk_piece '\?' is not among the pieces"),
        ({"a": "high"}, None, TypeError, "score of 'a' is 'high'"),
        (["a", "\ud800"], None, ValueError, "the piece '\\\\ud800' holds half of a surrogate pair"),
        (["a", "b"], "\ud800", ValueError, "is not among the pieces"),
        (["a", "b"], ["a"], TypeError, r"unk_piece is \['a'\]; give one of the pieces"),
        ({"a": 10**400}, None, ValueError, "score of 'a' is 1000"),
    ],
)
def test_unsound_pieces_are_refused_by_name(pieces: Any, unk_piece: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Tokenizer.from_pieces(pieces, unk_piece=unk_piece)


def test_scores_may_be_absent() -> None:
    texts = ["abab"]
    zero = Tokenizer.from_pieces({"a": 0.0, "b": 0.0, "ab": 0.0}).sample(texts, num_samples=9, seed=0).tolist()
    assert (
        Tokenizer.from_pieces({"a": None, "b": None, "ab": None}).sample(texts, num_samples=9, seed=0).tolist() == zero
    )
    assert Tokenizer.from_pieces(["a", "b", "ab"]).sample(texts, num_samples=9, seed=0).tolist() == zero
    assert Tokenizer.from_pieces(iter(["a", "b", "ab"])).sample(texts, num_samples=9, seed=0).tolist() == zero


def test_one_str_is_a_batch_of_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("ab漢").tolist() == [[2, 3]]
    assert tokenizer.encode("ab漢".encode()).tolist() == [[2, 3]]
    assert len(tokenizer.sample("ab", num_samples=5, seed=0)) == 5


def forms_of(texts: list[str | None]) -> dict[str, Any]:
    strings = pa.array(texts, pa.string())
    return {
        "list of str": texts,
        "list of bytes": [text if text is None else text.encode() for text in texts],
        "mixed list": [text if text is None or i % 2 else text.encode() for i, text in enumerate(texts)],
        "tuple": tuple(texts),
        "numpy objects": np.array(texts, object),
        "string": strings,
        "large_string": strings.cast(pa.large_string()),
        "binary": strings.cast(pa.binary()),
        "large_binary": strings.cast(pa.large_binary()),
        "string_view": strings.cast(pa.string_view()),
        "binary_view": strings.cast(pa.binary()).cast(pa.binary_view()),
        "dictionary": strings.dictionary_encode(),
        "slice": pa.array(["x", None, *texts, "漢"], pa.string()).slice(2, len(texts)),
        "large slice": pa.array(["x", None, *texts, "漢"], pa.large_string()).slice(2, len(texts)),
        "view slice": pa.array(["x", None, *texts, "a long text of more than twelve bytes"], pa.string_view())
        .slice(2, len(texts)),
        "chunks": pa.chunked_array([strings[:1], strings[:0], strings[1:3], strings[3:]], pa.string()),
        "one chunk": pa.chunked_array([strings]),
        "chunks of slices": pa.chunked_array([pa.concat_arrays([strings, strings])[len(texts) - 1 : len(texts)]
                                              .slice(1), strings[:2], strings[2:]], pa.string()),
        "dictionary chunks": pa.chunked_array([strings[:2].dictionary_encode(), strings[2:].dictionary_encode()]),
        "TextBatch": TextBatch.from_texts(strings),
    }  # fmt: skip


WITH_NULLS: list[str | None] = ["ab", None, "", "漢a" * 9, None, "b"]


@pytest.mark.parametrize("form", forms_of(WITH_NULLS))
def test_every_form_of_input_gives_the_same_rows(tokenizer: Tokenizer, form: str) -> None:
    texts = forms_of(WITH_NULLS)[form]
    out = tokenizer.encode(texts)
    assert out.tolist() == [[2], None, [], [3, 0] * 9, None, [1]]
    assert out.valid is not None
    assert out.valid.tolist() == [True, False, True, True, False, True]
    sampled = tokenizer.sample(texts, num_samples=2, seed=3, return_log_prob=True)
    assert sampled.tolist() == tokenizer.sample(WITH_NULLS, num_samples=2, seed=3).tolist()
    assert [row is None for row in sampled.tolist()] == [text is None for text in WITH_NULLS for _ in (0, 1)]


@pytest.mark.parametrize("form", forms_of(["ab", "", "b", "漢"]))
def test_without_nulls_no_row_is_marked(tokenizer: Tokenizer, form: str) -> None:
    out = tokenizer.encode(forms_of(["ab", "", "b", "漢"])[form])
    assert out.tolist() == [[2], [], [1], [3]]
    assert out.valid is None


@pytest.mark.parametrize(
    "texts",
    [[], (), np.array([], object), pa.array([], pa.string()), pa.array([], pa.large_binary()), pa.array([], pa.null()),
     pa.chunked_array([], pa.string()), pa.array(["a"]).slice(1), TextBatch.from_texts([])],
    ids=lambda texts: str(getattr(texts, "type", type(texts).__name__)),
)  # fmt: skip
def test_no_texts_give_no_rows(tokenizer: Tokenizer, texts: Any) -> None:
    for out in (tokenizer.encode(texts), tokenizer.sample(texts, num_samples=3, return_log_prob=True, seed=0)):
        assert len(out) == 0
        assert out.tolist() == []
        assert out.ids.dtype == np.int32
        assert out.offsets.tolist() == [0]
        assert out.to_padded(0).shape == (0, 0)
        assert out.to_arrow().to_pylist() == []
        assert tokenizer.decode(out) == []
    assert tokenizer.sample(texts, return_log_prob=True, seed=0).log_prob.shape == (0,)


def test_all_null_and_all_empty_batches(tokenizer: Tokenizer) -> None:
    nulls = pa.nulls(3)
    assert tokenizer.encode(nulls).tolist() == [None] * 3
    assert tokenizer.encode([None, None]).tolist() == [None, None]
    sampled = tokenizer.sample(nulls, num_samples=2, return_log_prob=True, seed=0)
    assert sampled.tolist() == [None] * 6
    empty = tokenizer.sample(["", ""], num_samples=2, return_log_prob=True, seed=0)
    assert empty.tolist() == [[]] * 4
    assert empty.log_prob.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "texts",
    [3, 2.5, None, {"a": 1}, {"a"}, iter([1]), [1], ["a", 2], [b"a", 2.0], [["a"]], object(),
     pa.array([1]), pa.array([["a"]]), pa.array([True]), pa.scalar("a"), np.array([1, 2]), bytearray(b"ab")],
    ids=lambda texts: f"{type(texts).__name__}-{texts!r:.12}",
)  # fmt: skip
def test_what_is_no_text_is_a_type_error(tokenizer: Tokenizer, texts: Any) -> None:
    with pytest.raises(TypeError, match=r"texts|document|Arrow array"):
        tokenizer.encode(texts)


def test_the_document_at_fault_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(TypeError, match="document 2 is a int"):
        tokenizer.encode(["a", "b", 3])
    with pytest.raises(ValueError, match=r"document 1 holds the lone surrogate U\+D83D at character 2"):
        tokenizer.encode(["a", "bc\ud83d", "\ud800"])
    with pytest.raises(ValueError, match="document 1 holds the lone surrogate"):
        tokenizer.encode([b"a", "\ud83d"])
    with pytest.raises(ValueError, match="document 0 holds the lone surrogate"):
        tokenizer.encode("\udc00")


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("alpha", -0.1, ValueError, "alpha is -0.1"),
        ("alpha", float("nan"), ValueError, "alpha is nan"),
        ("alpha", float("inf"), ValueError, "alpha is inf"),
        ("alpha", "much", TypeError, "alpha is 'much'"),
        ("alpha", None, TypeError, "alpha is None"),
        ("alpha", 1e9, ValueError, "the largest alpha for this model is 231"),
        ("nbest_size", 1.5, TypeError, "nbest_size is 1.5"),
        ("nbest_size", None, TypeError, "nbest_size is None"),
        ("nbest_size", 2**31, ValueError, "nbest_size is 2147483648"),
        ("num_samples", 0, ValueError, "num_samples is 0"),
        ("num_samples", -1, ValueError, "num_samples is -1"),
        ("num_samples", 2**32, ValueError, "num_samples is 4294967296"),
        ("num_samples", 1.5, TypeError, "num_samples is 1.5"),
        ("num_samples", "2", TypeError, "num_samples is '2'"),
        ("seed", -1, ValueError, "seed is -1"),
        ("seed", 2**64, ValueError, "seed is 18446744073709551616"),
        ("seed", 0.5, TypeError, "seed is 0.5"),
        ("doc_ids", [1], ValueError, "give 2 integers"),
        ("doc_ids", [1, 2, 3], ValueError, "give 2 integers"),
        ("doc_ids", [0.5, 1.5], ValueError, "float64"),
        ("doc_ids", ["a", "b"], ValueError, "doc_ids is of dtype"),
        ("doc_ids", [[1, 2]], ValueError, "doc_ids is of dtype"),
        ("doc_ids", 5, ValueError, "doc_ids is of dtype"),
        ("doc_ids", [1, 2**64], ValueError, "doc_ids"),
        ("doc_ids", [1, -(2**63) - 1], ValueError, "doc_ids"),
        ("doc_ids", [1, None], ValueError, "doc_ids"),
        ("doc_ids", [True, False], ValueError, "doc_ids"),
    ],
)
def test_options_out_of_range_are_refused_by_name(
    tokenizer: Tokenizer, option: str, value: Any, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        tokenizer.sample(["a", "ab"], **{option: value})


@pytest.mark.parametrize("seed", [0, 2**64 - 1, np.int32(5), np.uint64(2**63), True])
def test_integers_of_any_type_are_seeds(tokenizer: Tokenizer, seed: Any) -> None:
    assert tokenizer.sample("ab", seed=seed).tolist() == tokenizer.sample("ab", seed=int(seed)).tolist()


@pytest.mark.parametrize(
    "doc_ids",
    [[7, 2**40], (7, 2**40), np.array([7, 2**40], np.int64), np.array([7, 2**40], np.uint64), pa.array([7, 2**40])],
    ids=lambda ids: str(getattr(ids, "dtype", type(ids).__name__)),
)
def test_doc_ids_of_any_form_count_the_same(tokenizer: Tokenizer, doc_ids: Any) -> None:
    expected = [tokenizer.sample("abab" * 9, seed=1, doc_ids=np.array([i])).tolist()[0] for i in (7, 2**40)]
    assert tokenizer.sample(["abab" * 9] * 2, seed=1, doc_ids=doc_ids).tolist() == expected


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ("gpu", ValueError, "device is 'gpu'; give 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        ("", ValueError, "device is ''"),
        ("cuda:", ValueError, "device"),
        ("cuda:x", ValueError, "device"),
        (0, TypeError, "device is 0"),
        (None, TypeError, "device is None"),
    ],
)
def test_unknown_devices_are_refused(device: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Tokenizer.from_pieces(["a"], device=device)


def test_cuda_without_cuda_says_what_to_do() -> None:
    try:
        import cupy

        if cupy.is_available():
            pytest.skip("a CUDA device is here")
    except ImportError:
        pass
    with pytest.raises((ValueError, ImportError, RuntimeError), match=r"device='cuda'.*'cpu'|gpu_lattice\[cuda"):
        Tokenizer.from_pieces(["a"], device="cuda")


def test_auto_and_cpu_are_devices(tokenizer: Tokenizer) -> None:
    assert tokenizer.device == "cpu"
    assert Tokenizer.from_pieces(["a"]).device in ("cpu", "cuda:0")


@pytest.mark.parametrize(("threads", "error"), [(0, ValueError), (-2, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_threads_must_be_a_positive_integer(threads: Any, error: type) -> None:
    with pytest.raises(error, match="threads is"):
        Tokenizer.from_pieces(["a"], threads=threads)


def test_a_file_that_is_not_there_or_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing\.model"):
        Tokenizer.from_file(tmp_path / "missing.model")
    for content in (b"", b"no model at all", b"{}", b"\x00" * 100, b"PK\x03\x04", "漢字".encode()):
        path = tmp_path / "odd.model"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"odd\.model"):
            Tokenizer.from_file(str(path))


def test_decode_takes_batches_rows_and_arrow(tokenizer: Tokenizer) -> None:
    out = tokenizer.encode(["ab漢", None, "", "b"])
    texts = ["ab漢", None, "", "b"]
    assert tokenizer.decode(out) == texts
    assert tokenizer.decode(out.to_arrow()) == texts
    assert tokenizer.decode(pa.chunked_array([out.to_arrow()])) == texts
    assert tokenizer.decode([[2, 3], [], [1]]) == ["ab漢", "", "b"]
    assert tokenizer.decode([2, 3]) == "ab漢"
    assert tokenizer.decode(out[0]) == "ab漢"
    assert tokenizer.decode(np.array([[0, 1], [1, 0]])) == ["ab", "ba"]
    assert tokenizer.decode([out[0], out[3]]) == ["ab漢", "b"]


def test_decode_takes_pieces_and_what_is_none_is_text(tokenizer: Tokenizer) -> None:
    texts = ["ab漢", None, "", "b"]
    assert tokenizer.decode(tokenizer.encode(texts).pieces()) == texts
    assert tokenizer.decode(["ab", "no", "漢"]) == "abno漢"
    assert tokenizer.decode([["a", "▁no"], None, [1], [], ("b",)]) == ["a▁no", None, "b", "", "b"]
    tok = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    rows = tok.encode(["the 漢字 end", "漢"], add_bos=True).pieces()
    assert tok.decode(rows) == ["the 漢字 end", "漢"]
    assert tok.decode(rows[1], skip_special_tokens=False) == "<s>漢"


@pytest.mark.parametrize("rows", [[[0], [1, 4]], [[0], [-1]], [[0], [2**40]]])
def test_decoding_an_id_that_does_not_exist_names_row_and_id(tokenizer: Tokenizer, rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=f"row 1 holds the id {rows[1][-1]}; this model has ids 0 to 3"):
        tokenizer.decode(rows)


def test_verify_finds_the_first_row_that_does_not_spell_its_text(tokenizer: Tokenizer) -> None:
    texts = ["ab", None, "漢ab", ""]
    out = tokenizer.sample(texts, num_samples=3, seed=0)
    assert tokenizer.verify(texts, out) is None
    assert tokenizer.verify(texts, tokenizer.encode(texts)) is None
    ids = out.ids.copy()
    ids[out.offsets[7]] = 1
    assert tokenizer.verify(texts, TokenBatch(ids, out.offsets, None, out.valid)) == 7
    with pytest.raises(ValueError, match="out has 12 rows"):
        tokenizer.verify(["ab"] * 5, out)


def test_verify_lets_an_unknown_id_stand_for_any_text() -> None:
    tokenizer = Tokenizer.from_pieces({"a": None, "b": None, "?": None}, unk_piece="?")
    texts = ["xaxxb", "xyz", "ab漢"]
    assert tokenizer.verify(texts, tokenizer.encode(texts)) is None
    assert tokenizer.verify(texts, tokenizer.encode(["xaxxb", "xyz", "ba漢"])) == 2


def test_normalize_gives_the_text_that_is_segmented(tokenizer: Tokenizer) -> None:
    assert tokenizer.normalize(["ab", None, b"\xff"]).tolist() == [b"ab", None, "\ufffd".encode()]
    assert Tokenizer.from_pieces([b"a"]).normalize([b"\xff"]).tolist() == [b"\xff"]


def test_reprs_say_what_a_thing_is(tokenizer: Tokenizer) -> None:
    assert repr(tokenizer).startswith("<Tokenizer: pieces, 4 ids, on cpu, ")
    assert repr(tokenizer.encode(["ab", "b"])) == "TokenBatch(2 rows, 2 tokens)"


BATCH = TokenBatch(
    np.array([5, 6, 7, 8], np.int32), np.array([0, 2, 2, 2, 4]), None, np.array([True, True, False, True])
)


def test_token_batches_are_lists_of_rows() -> None:
    assert len(BATCH) == 4
    assert BATCH.tolist() == [[5, 6], [], None, [7, 8]]
    assert [BATCH[i].tolist() for i in (0, 1, 3, -1, -4)] == [[5, 6], [], [7, 8], [7, 8], [5, 6]]
    assert BATCH[0].base is BATCH.ids
    assert [row.tolist() for row in BATCH] == [[5, 6], [], [], [7, 8]]
    for row in (4, -5):
        with pytest.raises(IndexError, match=f"row {row} of a TokenBatch of 4 rows"):
            BATCH[row]


def test_token_batches_become_arrow_lists_with_nulls() -> None:
    array = BATCH.to_arrow()
    array.validate(full=True)
    assert array.type == pa.list_(pa.int32())
    assert array.to_pylist() == [[5, 6], [], None, [7, 8]]
    assert array.null_count == 1
    assert pa.array(BATCH).to_pylist() == array.to_pylist()
    assert pa.array(BATCH, pa.large_list(pa.int64())).to_pylist() == array.to_pylist()
    assert TokenBatch(BATCH.ids, BATCH.offsets).to_arrow().to_pylist() == [[5, 6], [], [], [7, 8]]


def test_more_tokens_than_int32_offsets_hold_become_a_large_list() -> None:
    class Long(np.ndarray[Any, Any]):
        def __len__(self) -> int:
            return 2**31

    batch = TokenBatch(BATCH.ids.view(Long), BATCH.offsets, None, BATCH.valid)
    array = batch.to_arrow()
    assert array.type == pa.large_list(pa.int32())
    assert array.to_pylist() == [[5, 6], [], None, [7, 8]]


def test_token_batches_become_padded_arrays() -> None:
    assert BATCH.to_padded(0).tolist() == [[5, 6], [0, 0], [0, 0], [7, 8]]
    assert BATCH.to_padded(pad_id=-1, max_length=1).tolist() == [[5], [-1], [-1], [7]]
    assert BATCH.to_padded(0, max_length=9).dtype == np.int32
    assert BATCH.to_padded(0, max_length=0).shape == (4, 0)
    assert TokenBatch(np.empty(0, np.int32), np.zeros(3, np.int64)).to_padded(0).shape == (2, 0)
    with pytest.raises(ValueError, match="max_length is -1"):
        BATCH.to_padded(0, max_length=-1)


@pytest.mark.parametrize("text", [b"\xff", bytearray(b"ab"), memoryview(b"ab"), memoryview(b"abc")[::2], "é", None])
@pytest.mark.parametrize("others", [["ok", "ok"], [b"ok", b"ok"], [None, None], ["ok", b"\xff"]])
def test_a_text_is_taken_alike_wherever_it_stands(text: Any, others: list[Any]) -> None:
    expected = text.encode() if isinstance(text, str) else None if text is None else bytes(text)
    for i_doc in range(3):
        texts = [*others[:i_doc], text, *others[i_doc:]]
        assert TextBatch.from_texts(texts).tolist()[i_doc] == expected


def test_text_batches_slice_and_list() -> None:
    batch = TextBatch.from_texts(["ab", None, "", "漢"])
    assert len(batch) == 4
    assert batch.num_bytes == 5
    assert batch.slice(1, 4).tolist() == [None, b"", "漢".encode()]
    assert TextBatch.from_texts(batch) is batch


def test_arrow_buffers_are_used_in_place() -> None:
    array = pa.array(["skip", "ab", "c"], pa.large_string())
    batch = TextBatch.from_texts(array.slice(1))
    assert batch.values.ctypes.data == array.buffers()[2].address
    assert batch.tolist() == [b"ab", b"c"]


def test_null_slots_that_own_bytes_are_left_out(tokenizer: Tokenizer) -> None:
    array = pa.Array.from_buffers(
        pa.string(), 3, [pa.py_buffer(b"\x05"), pa.py_buffer(np.array([0, 2, 4, 5], np.int32)), pa.py_buffer(b"abXXb")]
    )
    assert array.to_pylist() == ["ab", None, "b"]
    assert tokenizer.encode(array).tolist() == [[2], None, [1]]


HEAVY = [
    "cupy",
    "ray",
    "datasets",
    "torch",
    "matplotlib",
    "tokenizers",
    "sentencepiece",
    "bytepiece",
]


def test_import_is_light() -> None:
    script = f"import sys, gpu_lattice; print([name for name in {HEAVY} if name in sys.modules])"
    root = Path(gpu_lattice.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env={**os.environ}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
