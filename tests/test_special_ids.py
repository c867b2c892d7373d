"""Special ids are the tool's, and rows are framed, cut and padded as it does that."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hf_files import added_token, tokenizer_file

from gpu_lattice import TokenBatch, Tokenizer

DATA = Path(__file__).parent / "data"
MODELS = ["en_casefold.model", "en_nmt_nfkc.model", "en_symbols.model", "ja_bytes.model", "zh_bytes.model"]
TEXTS = ["a new dawn", "", "x", "the end of the world"]


def hugging_face(**parts: Any) -> tuple[Tokenizer, Any]:
    """A tokenizer.json with special tokens around rows, here and in the tool."""
    pieces = [["<unk>", 0.0], ["▁", -2.0], *([letter, -3.0] for letter in "abcdefghijklmnopqrstuvwxyz")]
    template = [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
    ]
    names = ["<s>", "</s>", "<pad>"]
    ids = {name: len(pieces) + i for i, name in enumerate(names)}
    file = tokenizer_file(
        model={"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
        pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        added_tokens=[added_token(i, name, special=True) for name, i in ids.items()],
        post_processor={
            "type": "TemplateProcessing",
            "single": template,
            "pair": template,
            "special_tokens": {
                name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in names
            },
        },
        **parts,
    )  # fmt: skip
    data = json.dumps(file)
    return Tokenizer.from_bytes(data.encode(), device="cpu"), tokenizers.Tokenizer.from_str(data)


@pytest.mark.parametrize("name", MODELS)
def test_special_ids_and_kinds_are_those_of_sentencepiece(name: str) -> None:
    ours = Tokenizer.from_file(DATA / name, device="cpu")
    tool = sentencepiece.SentencePieceProcessor(model_file=str(DATA / name))
    for which in ("bos_id", "eos_id", "pad_id", "unk_id"):
        i = getattr(tool, which)()
        assert getattr(ours, which) == (None if i < 0 else i)
    ids = list(range(len(ours)))
    assert len(ours) == tool.vocab_size()
    assert ours.is_control(ids) == tool.is_control(ids)
    assert ours.is_unknown(ids) == tool.is_unknown(ids)
    assert ours.is_byte(ids) == tool.is_byte(ids)
    assert ours.is_unused(ids) == tool.is_unused(ids)
    assert ours.id_to_piece(ids) == tool.id_to_piece(ids)
    normal = [i for i in ids if not (ours.is_control(i) or ours.is_unknown(i) or ours.is_byte(i))]
    if name != "en_symbols.model":  # user-defined symbols have scores by their length
        assert np.array_equal(np.float32(ours.score(normal)), np.float32(tool.get_score(normal)))


@pytest.mark.parametrize("name", MODELS)
def test_bos_and_eos_are_added_as_by_sentencepiece(name: str) -> None:
    ours = Tokenizer.from_file(DATA / name, device="cpu")
    tool = sentencepiece.SentencePieceProcessor(model_file=str(DATA / name))
    for bos, eos in [(True, False), (False, True), (True, True)]:
        assert ours.encode(TEXTS, add_bos=bos, add_eos=eos).tolist() == tool.encode(TEXTS, add_bos=bos, add_eos=eos)


def test_a_model_without_a_special_id_says_so() -> None:
    tok = Tokenizer.from_pieces(["a"], device="cpu")
    assert (tok.bos_id, tok.eos_id, tok.pad_id, tok.unk_id) == (None, None, None, None)
    with pytest.raises(ValueError, match="no bos_id; give the id in prefix_ids"):
        tok.encode("a", add_bos=True)
    with pytest.raises(ValueError, match="no id for padding; give pad_id"):
        tok.encode("a").to_padded()


def test_the_special_ids_of_a_tokenizer_json_have_customary_names() -> None:
    ours, tool = hugging_face()
    assert [ours.bos_id, ours.eos_id, ours.pad_id] == [tool.token_to_id(name) for name in ("<s>", "</s>", "<pad>")]
    padding = {
        "strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 3, "pad_type_id": 0,
        "pad_token": "b",
    }  # fmt: skip
    ours, tool = hugging_face(padding=padding)
    assert ours.pad_id == 3
    expected = [encoding.ids for encoding in tool.encode_batch(TEXTS)]
    assert ours.encode(TEXTS).to_padded().tolist() == expected


@pytest.mark.parametrize("direction", ["Right", "Left"])
@pytest.mark.parametrize("max_length", [2, 3, 5, 100])
@pytest.mark.parametrize("special", [True, False])
def test_rows_are_cut_as_by_tokenizers(direction: str, max_length: int, special: bool) -> None:
    truncation = {"direction": direction, "max_length": max_length, "strategy": "LongestFirst", "stride": 0}
    ours, tool = hugging_face(truncation=truncation)
    expected = [encoding.ids for encoding in tool.encode_batch(TEXTS, add_special_tokens=special)]
    assert ours.encode(TEXTS, add_special_tokens=special).tolist() == expected
    plain, whole = hugging_face()
    cut = plain.encode(TEXTS, add_special_tokens=special, max_length=max_length, truncation=direction.lower())
    assert cut.tolist() == expected
    uncut = ours.encode(TEXTS, truncation=False)
    assert uncut.tolist() == [encoding.ids for encoding in whole.encode_batch(TEXTS)]


def test_samples_are_framed_like_best_segmentations() -> None:
    ours, _ = hugging_face()
    inner = ours.sample([*TEXTS, None], seed=5, num_samples=2, add_special_tokens=False).tolist()
    for side in ("right", "left"):
        out = ours.sample([*TEXTS, None], seed=5, num_samples=2, max_length=4, truncation=side, prefix_ids=[7, 8],
                          suffix_ids=[], add_eos=True, return_log_prob=True)  # fmt: skip
        cut = [row if row is None else row[:1] if side == "right" else row[-1:] for row in inner]
        assert out.tolist() == [None if row is None else [7, 8, *row, ours.eos_id] for row in cut]
        assert out.log_prob is not None
        assert len(out.log_prob) == len(out)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prefix_ids": [99]}, ValueError, "prefix_ids is 99; give an integer from 0 to 30"),
        ({"suffix_ids": "ab"}, TypeError, "suffix_ids is a str"),
        ({"max_length": -1}, ValueError, "max_length is -1"),
        ({"truncation": "up"}, ValueError, "truncation is 'up'; give 'right' or 'left'"),
        ({"add_bos": 1}, TypeError, "add_bos is 1; give True or False"),
        (
            {"temperature": 2.0},
            TypeError,
            "encode has no option temperature; use the method sample, with alpha, which is 1 / temperature",
        ),
        ({"nonsense": 2.0}, TypeError, "nonsense"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], error: type, message: str) -> None:
    ours, _ = hugging_face()
    with pytest.raises(error, match=message):
        ours.encode("a", **options)


def test_controls_are_decoded_by_name_when_asked_for() -> None:
    ours, tool = hugging_face()
    out = ours.encode(TEXTS)
    for skip in (True, False):
        expected = tool.decode_batch(out.tolist(), skip_special_tokens=skip)
        assert ours.decode(out, skip_special_tokens=skip) == expected
    sp = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    assert sp.decode(sp.encode("a new dawn", add_bos=True, add_eos=True), skip_special_tokens=False) == [
        "<s>a new dawn</s>"
    ]


def test_pieces_are_told_apart_by_their_bytes() -> None:
    tok = Tokenizer.from_pieces([b"\xc3", b"\\xc3", b"a"], device="cpu")
    assert tok.piece_to_id([b"\xc3", b"\\xc3", b"a", b"b"]) == [0, 1, 2, None]
    assert tok.piece_to_id("no such piece") is None
    assert tok.vocab == tok._model.vocabulary.id_of


BATCH = TokenBatch(
    np.array([5, 6, 7, 8, 9], np.int32), np.array([0, 2, 2, 2, 5]), np.zeros(4), np.array([True, True, False, True])
)


@pytest.mark.parametrize("rows", [slice(None), slice(1, 3), slice(-1, None), slice(3, 1), slice(None, None, -2)])
def test_slices_are_batches_of_these_rows(rows: slice) -> None:
    part = BATCH[rows]
    assert part.tolist() == BATCH.tolist()[rows]
    assert part.log_prob is not None
    assert len(part.log_prob) == len(part)


def test_batches_are_equal_if_their_rows_are() -> None:
    assert BATCH[:] == BATCH
    assert BATCH[:3] != BATCH
    assert BATCH != [[5, 6]]
    assert list(map(len, BATCH)) == [2, 0, 0, 3]


def test_padding_has_a_side_and_a_mask() -> None:
    padded, mask = BATCH.to_padded(1, side="left", return_mask=True)
    assert padded.tolist() == [[1, 5, 6], [1, 1, 1], [1, 1, 1], [7, 8, 9]]
    assert mask.tolist() == [[False, True, True], [False] * 3, [False] * 3, [True] * 3]
    padded, mask = BATCH.to_padded(1, max_length=2, return_mask=True)
    assert padded.tolist() == [[5, 6], [1, 1], [1, 1], [7, 8]]
    assert mask.tolist() == [[True, True], [False] * 2, [False] * 2, [True] * 2]
    with pytest.raises(ValueError, match="side is 'top'; give 'right' or 'left'"):
        BATCH.to_padded(1, side="top")  # type: ignore[call-overload]


def test_a_pickled_batch_leaves_the_vocabulary_behind() -> None:
    out = Tokenizer.from_pieces(["a", "b"], device="cpu").sample(["ab", None], seed=3)
    assert out.pieces() == [["a", "b"], None]
    copy = pickle.loads(pickle.dumps(out))
    assert copy == out
    assert copy.seed == 3
    with pytest.raises(ValueError, match="came without their tokenizer"):
        copy.pieces()


def test_samples_are_fresh_unless_there_is_a_seed() -> None:
    tok = Tokenizer.from_pieces({"a": 0.0, "aa": 0.0}, device="cpu")
    text = "a" * 200
    fresh = [tok.sample(text) for _ in range(3)]
    assert len({out.seed for out in fresh}) == 3
    assert fresh[0] != fresh[1]
    assert tok.sample(text, seed=fresh[0].seed) == fresh[0]
    assert tok.encode(text).seed is None


def test_epochs_of_one_seed_differ_and_the_first_is_the_seed_itself() -> None:
    tok = Tokenizer.from_pieces({"a": 0.0, "aa": 0.0}, device="cpu")
    text = "a" * 200
    epochs = [tok.sample(text, seed=7, epoch=k) for k in range(4)]
    assert epochs[0] == tok.sample(text, seed=7)
    assert len({tuple(out.tolist()[0]) for out in epochs}) == 4
    assert {out.seed for out in epochs} == {7}
    with pytest.raises(ValueError, match="epoch is 1 without a seed"):
        tok.sample(text, epoch=1)


def test_models_come_from_folders_bytes_and_other_tokenizers(tmp_path: Path) -> None:
    data = (DATA / "en_nmt_nfkc.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(data)
    tool = sentencepiece.SentencePieceProcessor(model_proto=data)
    made = [
        Tokenizer.from_file(tmp_path, device="cpu"),
        Tokenizer.from_bytes(data, device="cpu"),
        Tokenizer.from_tokenizer(tool, device="cpu"),
    ]
    assert all(tok.encode(TEXTS).tolist() == tool.encode(TEXTS) for tok in made)
    made[1].save(tmp_path / "copy.model")
    assert (tmp_path / "copy.model").read_bytes() == data
    _, hf = hugging_face()
    assert Tokenizer.from_tokenizer(hf, device="cpu").encode("a b").tolist() == [hf.encode("a b").ids]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer\.json"):
        Tokenizer.from_file(tmp_path / "empty")
    with pytest.raises(TypeError, match="this is a int"):
        Tokenizer.from_tokenizer(3)
    with pytest.raises(TypeError, match=r"use Tokenizer\.from_file\(path\)"):
        Tokenizer("spiece.model")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not made from a file"):
        Tokenizer.from_pieces(["a"], device="cpu").save(tmp_path / "x")
