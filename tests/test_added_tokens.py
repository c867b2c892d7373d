"""Tokens added at run time are those that the tools add; doors for texts of every kind."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from conftest import DATA
from hf_files import METASPACE, added_token, tokenizer_file
from test_special_ids import hugging_face

from gpu_lattice import Tokenizer

TEXTS = ["a <x> b", "<x><x>", " <x> ", "a<X>b", "yab ab y", "ay", "ab"]


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(
    "flags", [{}, {"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"normalized": False}], ids=str
)
def test_tokens_are_added_as_by_tokenizers(flags: dict[str, bool], special: bool) -> None:
    data = json.dumps(tokenizer_file(pre_tokenizer=METASPACE, normalizer={"type": "Lowercase"}))
    ours, tool = Tokenizer.from_bytes(data.encode(), device="cpu"), tokenizers.Tokenizer.from_str(data)
    normalized = flags.get("normalized", not special)
    given = [
        tokenizers.AddedToken(t, special=special, **{"normalized": normalized} | flags) for t in ("<x>", "y", "ab")
    ]
    (tool.add_special_tokens if special else tool.add_tokens)(given)
    for more in (ours.add_tokens(given), ours.add_tokens(["<x>", "y", "ab"], special=special, **flags)):
        assert len(more) == tool.get_vocab_size()
        assert more.encode(TEXTS).tolist() == [encoding.ids for encoding in tool.encode_batch(TEXTS)]
        ids = more.encode(TEXTS).tolist()
        assert more.decode(ids) == tool.decode_batch(ids)
        assert {more.piece_to_id(token) for token in ("<x>", "y")} == {tool.token_to_id(t) for t in ("<x>", "y")}
    assert ours.encode(TEXTS) == Tokenizer.from_bytes(data.encode(), device="cpu").encode(TEXTS)


def test_tokens_are_added_to_a_sentencepiece_model_as_pieces_of_its_own(tmp_path: Path) -> None:
    ours = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    more = ours.add_tokens("<x>").add_tokens("<control>", special=True)
    more.save(tmp_path / "more.model")
    tool = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "more.model"))
    texts = ["the <x>end", "<x>", "<control>", "the end"]
    assert more.encode(texts).tolist() == tool.encode(texts)
    assert [more.piece_to_id("<x>"), more.piece_to_id("<control>")] == [len(ours), len(ours) + 1]
    assert more.is_control(len(ours) + 1)
    assert pickle.loads(pickle.dumps(more)).encode(texts) == more.encode(texts)
    assert len(more.add_tokens("<x>")) == len(more)


def test_ids_that_a_file_states_of_its_tokens_do_not_matter() -> None:
    """As for the tool, which goes by their order."""
    tokens = [added_token(99, "</s>"), added_token(99, "<new>"), added_token(0, "")]
    data = json.dumps(tokenizer_file(added_tokens=tokens)).encode()
    tokenizer = Tokenizer.from_bytes(data, device="cpu")
    assert tokenizer.add_tokens(["<more>"]).encode("</s><new><more>").tolist() == [[7, 8, 9]]


def test_tokens_that_cannot_be_added_are_refused() -> None:
    ours, _ = hugging_face()
    with pytest.raises(TypeError, match=r"a token to add is 3; give str or tokenizers\.AddedToken"):
        ours.add_tokens([3])
    with pytest.raises(ValueError, match="a token to add is empty"):
        ours.add_tokens([""])
    with pytest.raises(ValueError, match="has lstrip, which a SentencePiece model cannot say"):
        Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu").add_tokens("x", lstrip=True)
    with pytest.raises(ValueError, match="'a' is a piece of this SentencePiece model, of another kind"):
        Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu").add_tokens("a")
    with pytest.raises(ValueError, match="cannot be added to a bytepiece model"):
        Tokenizer.from_file(DATA / "bytepiece.json", device="cpu").add_tokens("x")
    with pytest.raises(ValueError, match="not made from a file"):
        Tokenizer.from_pieces(["a"], device="cpu").add_tokens("x")


@pytest.mark.parametrize("kind", ["pandas", "polars", "numpy", "objects", "generator", "tuple"])
def test_texts_come_from_anything_that_holds_strings(kind: str) -> None:
    tok = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    texts = ["the end", "of the world", ""]
    made: Any = texts
    if kind in ("pandas", "polars"):
        made = pytest.importorskip(kind, reason=f"{kind} is absent").Series(texts)
    elif kind == "numpy":
        made = np.array(texts)
    elif kind == "objects":
        made = np.array(texts, object)
    elif kind == "generator":
        made = (text for text in texts)
    elif kind == "tuple":
        made = tuple(texts)
    assert tok.encode(made) == tok.encode(texts)


def test_a_tokenizer_has_a_card() -> None:
    card = hugging_face()[0]._repr_html_()
    assert "huggingface, 31 ids" in card
    assert "bos 28 &lt;s&gt;" in card
