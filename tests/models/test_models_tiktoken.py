"""Models without stated merges: tiktoken files, tekken.json and SentencePiece BPE, against their own tools."""

from __future__ import annotations

import base64
import json
import pickle
import random
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
import tokenizers
from bpe_files import CL100K, LINES, ranks, tekken_file, tiktoken_file, trained, trained_bpe
from handmade import field
from hf_files import texts
from hypothesis import given, settings
from sentencepiece_files import MODEL_TYPE, UNK, UNUSED, A, model_bytes, piece

from gpu_lattice import Tokenizer
from gpu_lattice.cli import main
from gpu_lattice.fitting import fits_unigram
from gpu_lattice.models.detect import read_model
from gpu_lattice.models.own import OWN
from gpu_lattice.models.tiktoken import ENCODINGS, read_ranks
from gpu_lattice.text_batch import TextBatch

tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is absent: pip install 'gpu_lattice[test]'")

ODD = [
    "",
    "  two  spaces\n\n \t\r\n",
    "I'M don't 'LL 12345",
    "<|endoftext|>x",
    "👩\u200d🚀 e\u0301",
    "a" * 300,
    "the<x><x>then a e",
    "x \n  ",
    "a\n\n\t ",
]
BPE = {MODEL_TYPE: 2}


@pytest.mark.parametrize("encoding", ["gpt2", "cl100k_base", "o200k_harmony"])
def test_a_tiktoken_file_encodes_as_by_tiktoken(encoding, tmp_path):
    (tmp_path / "x.tiktoken").write_bytes(tiktoken_file())
    tokenizer = Tokenizer.from_tiktoken(tmp_path / "x.tiktoken", encoding=encoding, device="cpu", threads=1)
    pattern, specials = ENCODINGS[encoding]
    tool = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks(), special_tokens=specials)
    wanted = tool.encode_ordinary_batch([*LINES, *ODD])
    assert tokenizer.encode([*LINES, *ODD]).tolist() == wanted
    assert tokenizer.decode(wanted) == tool.decode_batch(wanted)
    assert tokenizer.vocab_size == tool.n_vocab
    cut = [row[:-1] for row in wanted]
    assert tokenizer.decode(cut) == tool.decode_batch(cut)
    assert Tokenizer.from_tiktoken(tool, device="cpu").encode([*LINES, *ODD]).tolist() == wanted
    with pytest.raises(ValueError, match="leave encoding and pattern out"):
        Tokenizer.from_tiktoken(tool, encoding=encoding)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode(ODD).tolist() == tokenizer.encode(ODD).tolist()
    out = tokenizer.sample(ODD, alpha=0, num_samples=2, seed=0)
    assert tokenizer.verify(ODD, out) is None
    assert tokenizer.decode(out) == [text for text in ODD for _ in range(2)]


def test_a_token_without_bytes_has_an_id_that_no_text_gets(tmp_path):
    """The last line of Whisper's multilingual.tiktoken."""
    (tmp_path / "x.tiktoken").write_bytes(tiktoken_file() + b"= 601\n")
    tool = tiktoken.Encoding(
        "x", pat_str=CL100K, mergeable_ranks={**ranks(), b"": 601}, special_tokens={"<|endoftext|>": 602}
    )
    made = Tokenizer.from_tiktoken(tool, device="cpu")
    made.save(tmp_path / "x.json")
    read = Tokenizer.from_tiktoken(tmp_path / "x.tiktoken", pattern=CL100K, device="cpu")
    for tokenizer in (made, read, Tokenizer.from_file(tmp_path / "x.json", device="cpu")):
        assert tokenizer.encode(ODD).tolist() == tool.encode_ordinary_batch(ODD)
        assert tokenizer.decode([64, 601, 65]) == tool.decode([64, 601, 65])
        assert not tokenizer.model.vocabulary.in_lattice[601]
    assert made.vocab_size == tool.n_vocab


def test_a_digest_tells_what_was_said_of_a_tiktoken_file(tmp_path):
    path = tmp_path / "x.tiktoken"
    path.write_bytes(tiktoken_file())

    def digest(source=path, **what):
        return Tokenizer.from_tiktoken(source, device="cpu", **what).digest

    pattern, specials = ENCODINGS["gpt2"]
    tools = [tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks(), special_tokens=s) for s in (specials, {})]
    different = [digest(encoding="gpt2"), digest(encoding="cl100k_base"), digest(pattern=CL100K), digest(tools[1])]
    assert len(set(different)) == 4
    assert digest(tools[0]) == digest(encoding="gpt2")
    assert digest(pattern=CL100K, characters=True) != digest(pattern=CL100K)


def test_encodings_are_those_of_tiktoken(monkeypatch):
    from tiktoken_ext import openai_public as public

    for load in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
        monkeypatch.setattr(public, load, lambda *_, **__: {})
    made = {name: make() for name, make in public.ENCODING_CONSTRUCTORS.items()}
    assert {name: (parts["pat_str"], parts["special_tokens"]) for name, parts in made.items()} == ENCODINGS


def test_a_megabyte_of_one_pre_token_is_encoded_as_by_tiktoken():
    model = read_ranks(tiktoken_file(), "x", None, CL100K)
    tool = tiktoken.Encoding("x", pat_str=CL100K, mergeable_ranks=ranks(), special_tokens={})
    text = "".join(random.Random(22).choices("etaoinshrd", k=100_000))
    assert Tokenizer(model, device="cpu").encode(text).tolist() == [tool.encode_ordinary(text)]
    rows = Tokenizer(model, device="cpu").encode(10 * text)
    assert Tokenizer(model, device="cpu").decode(rows) == [10 * text]


def test_a_tekken_file_is_told_by_content_and_encodes_as_tiktoken_with_its_special_ids_before():
    model = read_model(tekken_file(), "tekken.json")
    used = {token: rank for token, rank in ranks().items() if rank < 400}
    tool = tiktoken.Encoding("x", pat_str=CL100K, mergeable_ranks=used, special_tokens={})
    wanted = [[20 + i for i in row] for row in tool.encode_ordinary_batch([*LINES, *ODD])]
    tokenizer = Tokenizer(model, device="cpu")
    assert tokenizer.encode([*LINES, *ODD]).tolist() == wanted
    assert tokenizer.decode(wanted) == [*LINES, *ODD]
    assert [tokenizer.id_to_piece(i) for i in (0, 3, 19)] == ["<unk>", "[INST]", "[TOOL_CONTENT]"]
    assert tokenizer.vocab_size == 420


@pytest.mark.parametrize(
    "options",
    [
        {"byte_fallback": True, "character_coverage": 0.98},
        {"character_coverage": 0.98},
        {"normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False},
        {"split_by_whitespace": False, "treat_whitespace_as_suffix": True},
        {"user_defined_symbols": ["the", "<x>", "th", " a", "e"], "byte_fallback": True},
    ],
)
def test_sentencepiece_bpe_encodes_as_by_sentencepiece(options):
    data = trained_bpe(**options)
    tool = sentencepiece.SentencePieceProcessor(model_proto=data)
    tokenizer = Tokenizer(read_model(data, "m.model"), device="cpu", threads=1)
    docs = [*LINES, *ODD]
    assert tokenizer.encode(docs).tolist() == tool.encode(docs)
    assert tokenizer.decode(tool.encode(docs)) == tool.decode(tool.encode(docs))
    assert not tokenizer.model.vocabulary.scores.any()

    @settings(max_examples=50)
    @given(texts)
    def check(text):
        assert tokenizer.encode([text]).tolist() == [tool.encode(text)]

    check()


def test_pieces_of_equal_score_merge_from_the_left():
    data = model_bytes(UNK, A, piece("b", -2.0), piece("ab", -5.0), piece("ba", -5.0), piece("▁", -9.0), trainer=BPE)
    tool = sentencepiece.SentencePieceProcessor(model_proto=data)
    for text in ("aba", "baba", "bab abab"):
        assert Tokenizer(read_model(data, "m"), device="cpu").encode(text).tolist() == [tool.encode(text)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (model_bytes(UNK, A, piece("b", 0.0, UNUSED), trainer=BPE), "piece 2, 'b', is unused"),
        (model_bytes(UNK, A, piece("ab"), trainer=BPE), "piece 'ab' holds a character that is no piece"),
        (tekken_file(vocab=[{"rank": 0, "token_bytes": "YQ=="}]), "whose ranks do not count up to 400"),
        (tekken_file(special_tokens=[{"rank": 0, "token_str": 5}]), "is not a whole tekken.json"),
        (tekken_file(special_tokens=[{"rank": 0, "token_str": "\ud800"}]), "is not a whole tekken.json"),
        (
            tekken_file(special_tokens=[{"rank": i, "token_str": "x"} for i in (0, 1)]),
            "two special tokens have one name",
        ),
        (tekken_file(**{OWN: {"special_tokens": {"\udc00": 5}}}), "is not a whole tekken.json"),
        (tekken_file(vocab=[{"rank": 0.0, "token_bytes": "YQ=="}] * 400), "whose ranks do not count up to 400"),
        (tekken_file(vocab=[{"rank": 0, "token_bytes": "YQ=="}] * 400), "whose ranks do not count up to 400"),
        (tekken_file(config={}), "is not a whole tekken.json"),
        (
            tekken_file(config={"pattern": "a", "default_vocab_size": 420, "default_num_special_tokens": 0.5}),
            "is not a whole tekken.json",
        ),
        (tiktoken_file(), "is a tiktoken file, .* use Tokenizer.from_tiktoken"),
    ],
)
def test_files_that_are_not_covered_are_refused_by_name(data, message):
    with pytest.raises(ValueError, match=message):
        read_model(data, "m")


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"", ("cl100k_base", None), "the byte 0x00 has no token"),
        (tiktoken_file() + b"IQ==\n", ("cl100k_base", None), "line 601 is b'IQ==', not base64 and a rank"),
        (tiktoken_file() + b"IXh4eHg= 3\n", ("cl100k_base", None), "its rank is taken"),
        (tiktoken_file() + b"IXh4eHg= 99999999\n", ("cl100k_base", None), "far above all others"),
        (tiktoken_file(), ("cl99k", None), "encoding is 'cl99k'; known are gpt2"),
        (tiktoken_file(), (None, None), "give either encoding"),
        (tiktoken_file(), ("gpt2", "a"), "give either encoding"),
        (tiktoken_file(), (None, r"\p{N}{1,3}+"), r"the pattern has '\{1,3}\+', which"),
        (tiktoken_file(), (None, r"[^\s]+|\w"), r"the pattern has '\\\\w', which"),
        (tiktoken_file(), (None, r"[^\s$]+|\s+$"), r"the pattern has '\$', which"),
        (tiktoken_file(), (None, r"[[:alpha:]]"), r"the pattern has '\[:alpha:\]', which"),
        (tiktoken_file(), (None, "("), "tokenizers cannot load"),
    ],
)
def test_tiktoken_files_that_cannot_be_read_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        read_ranks(data, "x.tiktoken", *options)


def test_a_long_token_takes_no_longer_to_read_than_short_ones():
    begin = time.process_time()
    data = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))
    long = b"ab" * 500_000
    tokens = b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate((b"ab", b"abab", long), 256))
    model = read_ranks(data + tokens, "x", None, CL100K)
    assert model.merges.pairs.tolist() == [[97, 98, 256, 256], [256, 256, 257, 257]]
    assert time.process_time() - begin < 20


@pytest.mark.parametrize(
    ("ranks", "specials"), [({"a": 0}, {}), ({b"a": "0"}, {}), ({b"a": 0}, {"x": "5"}), ({b"a": 0}, {5: 300})]
)
def test_an_encoding_whose_parts_are_of_other_types_is_refused(ranks, specials):
    made = SimpleNamespace(encode_ordinary=None, _mergeable_ranks=ranks, _pat_str="a", _special_tokens=specials)
    with pytest.raises(TypeError, match="whose ranks are not of bytes"):
        Tokenizer.from_tiktoken(made, device="cpu")


SPECIAL = ["<|endoftext|><s>", "<x>[INST]a</s>", "<0x41><unk> <SPECIAL_3>"]
SYMBOLS = {"user_defined_symbols": ["the", "<x>", "th", " a", "e"], "byte_fallback": True}


@cache
def bpe_tokenizers():
    """One of every format that holds a BPE model, and of those that no unigram model stands for."""
    files = {
        **{name: json.dumps(trained(name)).encode() for name in ("gpt2", "llama2")},
        "tekken": tekken_file(special_tokens=[{"rank": 1, "token_str": "<s>"}]),
        "sentencepiece": trained_bpe(**SYMBOLS),
    }
    tool = tiktoken.Encoding(
        "x", pat_str=CL100K, mergeable_ranks=ranks(), special_tokens={"<|endoftext|>": 700, "<s>": 703, "[INST]": 703}
    )
    made = {name: Tokenizer.from_bytes(data, device="cpu") for name, data in files.items()}
    return made | {"tiktoken": Tokenizer.from_tiktoken(tool, device="cpu")}


@pytest.mark.parametrize("name", ["gpt2", "llama2", "tekken", "sentencepiece", "tiktoken"])
def test_scores_are_saved_beside_merges_and_all_else_is_as_it_was(name, tmp_path):
    tokenizer, docs, path = bpe_tokenizers()[name], [*LINES[:60], *ODD, *SPECIAL], tmp_path / "new.json"
    fitted = tokenizer.fit(docs, iterations=2).tokenizer
    in_lattice = tokenizer.model.vocabulary.in_lattice
    few = [i for i in np.flatnonzero(in_lattice) if len(tokenizer.model.vocabulary.surfaces[i]) > 3][:5]
    for scored in (fitted, fitted.without(few)):
        scored.save(path)
        again = Tokenizer.from_file(path, device="cpu")
        wanted, found = (one.model.vocabulary for one in (scored, again))
        assert found.names == wanted.names
        assert found.id_of == wanted.id_of
        assert found.kinds.tolist() == wanted.kinds.tolist()
        assert again.excluded_ids == scored.excluded_ids
        arcs = wanted.in_lattice
        assert found.scores[arcs].tolist() == wanted.scores[arcs].tolist()
        assert [again.bos_id, again.eos_id, again.pad_id] == [scored.bos_id, scored.eos_id, scored.pad_id]
        theirs, ours = (one.model.normalizer(TextBatch.from_texts(docs), 1) for one in (scored, again))
        assert theirs.values.tobytes() == ours.values.tobytes()
        assert theirs.chunk_offsets.tolist() == ours.chunk_offsets.tolist()
        assert again.encode(docs).tolist() == scored.encode(docs).tolist()
        drawn, expected, pickled = (
            one.sample(docs, alpha=0.7, seed=1, return_log_prob=True)
            for one in (again, scored, pickle.loads(pickle.dumps(again)))
        )
        assert drawn.tolist() == expected.tolist() == pickled.tolist()
        assert drawn.log_prob.tolist() == expected.log_prob.tolist()
        assert again.to_bytes() == path.read_bytes()
    back = again.rescored(dict.fromkeys(np.flatnonzero(in_lattice), 0.0))
    back.save(path)
    assert Tokenizer.from_file(path, device="cpu").sample(docs, alpha=0, seed=2).tolist() == (
        tokenizer.sample(docs, alpha=0, seed=2).tolist()
    )


def sentencepiece_of(data):
    return sentencepiece.SentencePieceProcessor(model_proto=data)


def test_the_tools_read_a_file_with_scores_as_the_one_without():
    files = {name: one.fit(LINES[:60], iterations=1).tokenizer.to_bytes() for name, one in bpe_tokenizers().items()}
    docs = [*LINES, *ODD, *SPECIAL]
    for name in ("gpt2", "llama2"):
        tools = [tokenizers.Tokenizer.from_str(text) for text in (files[name].decode(), json.dumps(trained(name)))]
        assert [row.ids for row in tools[0].encode_batch(docs)] == [row.ids for row in tools[1].encode_batch(docs)]
    one, other = map(sentencepiece_of, (files["sentencepiece"], trained_bpe(**SYMBOLS)))
    assert one.encode(docs) == other.encode(docs)
    # mistral-common asks for these names of every token, and for ranks in their order.
    assert {tuple(entry) for entry in json.loads(files["tekken"])["vocab"]} == {("rank", "token_bytes", "token_str")}
    assert json.loads(files["tekken"]).keys() - json.loads(tekken_file()).keys() == {"special_tokens", OWN}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (5, "is 5, not an object"),
        ({"scores": [1.0]}, "not a list of 420 numbers"),
        ({"scores": [float("nan")] * 420}, "not a list of 420 numbers"),
        ({"scores": [True] * 420}, "not a list of 420 numbers"),
        ({"scores": [10**400] * 420}, "not a list of 420 numbers"),
        ({"ids": [1, 2]}, "2 ids of 400 tokens"),
        ({"ids": [*range(399), 2**40]}, "far above all others"),
        ({"ids": [*range(399), 0]}, "its rank is taken"),
        ({"ids": [*range(399), 0.5]}, "400 ids of 400 tokens"),
        ({"ids": 7}, "is not a whole tekken.json"),
        ({"special_tokens": {"a": -1}}, "its rank is taken or far above"),
        ({"special_tokens": {"a": 2**40}}, "far above all others"),
        ({"special_tokens": ["a"]}, "is not a whole tekken.json"),
    ],
)
def test_a_damaged_field_of_our_own_is_refused(own, message):
    with pytest.raises(ValueError, match=message):
        read_model(tekken_file(**{OWN: own}), "m")
    file = trained("gpt2")
    data = json.dumps(file | {"model": file["model"] | {OWN: 5 if own == 5 else {"scores": own.get("scores", 5)}}})
    with pytest.raises(ValueError, match=r"not an object|not a list of 601 numbers|NaN"):
        read_model(data.encode(), "m")
    for scores in (np.zeros(3), np.full(len(read_model(trained_bpe(), "m").vocabulary), np.nan)):
        with pytest.raises(ValueError, match="of ours"):
            read_model(trained_bpe() + field(8192, scores.tobytes()), "m")


@pytest.mark.parametrize("name", ["gpt2", "llama2", "tekken", "sentencepiece"])
def test_the_command_saves_a_fit_of_every_bpe_model(name, tmp_path):
    model, text, new = (str(tmp_path / path) for path in ("old.json", "a.txt", "new.json"))
    tokenizer = bpe_tokenizers()[name]
    Path(model).write_bytes(tokenizer.to_bytes())
    Path(text).write_text("\n".join(LINES[:60]))
    assert main(["fit", text, "--model", model, "-o", new, "--iterations", "1", "--device", "cpu"]) == 0
    again = Tokenizer.from_file(new, device="cpu")
    # A unigram model where there is one that divides texts alike.
    assert (again.model.merges is None) == (name == "gpt2")
    wanted = tokenizer.fit(LINES[:60], iterations=1).tokenizer.log_partition(LINES[:60])
    np.testing.assert_allclose(again.log_partition(LINES[:60]), wanted, 1e-9)


def test_a_model_that_cannot_be_saved_is_refused_before_it_is_fitted(monkeypatch):
    monkeypatch.delattr(Tokenizer, "fit")
    with pytest.raises(ValueError, match="not made from a file"):
        fits_unigram(Tokenizer.from_pieces(["a"], device="cpu"))
    with pytest.raises(ValueError, match="leave out as_unigram=True"):
        bpe_tokenizers()["tekken"].to_bytes(as_unigram=True)
